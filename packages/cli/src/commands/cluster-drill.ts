import { DRILL_LOSSES } from "@lockstep/core";
import type { Command } from "commander";
import { collect, usage, wholeNumber } from "../options.ts";
import { addClusterOptions, type ClusterArguments, withCluster } from "./cluster-session.ts";

interface DrillCommandArguments extends ClusterArguments {
  readonly what: (typeof DRILL_LOSSES)[number];
  readonly rounds: number;
  readonly report?: readonly string[];
  readonly probe?: string;
  readonly lasts?: number;
  readonly yes?: boolean;
}

/** `lockstep cluster drill`: a loss on purpose, and what clients see of it. */
export function defineDrill(command: Command): void {
  const drill = command
    .command("drill")
    .description("lose something on purpose, measure what clients see, judge it, and put everything back");
  addClusterOptions(drill.argument("<virtual-server>"))
    .option("--what <loss>", `what is lost: ${DRILL_LOSSES.join(", ")}`, readLoss, "service")
    .option("--rounds <count>", "so many times", wholeNumber("--rounds", 1, 1_000), 1)
    .option(
      "--lasts <seconds>",
      "for how long (else as long as a takeover needs)",
      wholeNumber("--lasts", 1, 600),
    )
    .option(
      "--probe <target>",
      "what a client asks: HOST:PORT or http://HOST:PORT/PATH (else as it is defined)",
    )
    .option("--report <file>", "write the report as .html, .json or text; repeatable", collect)
    .option("--yes", "do not ask")
    .action(async (name: string, options: DrillCommandArguments) => {
      const { drillServer } = await import("../cluster/drill.ts");
      const { report = [], ...rest } = options;
      await withCluster(options, (session) => drillServer(session, name, { ...rest, report }));
    });
}

function readLoss(value: string): (typeof DRILL_LOSSES)[number] {
  const found = DRILL_LOSSES.find((word) => word === value);
  if (found === undefined) throw usage("--what takes one of several words", DRILL_LOSSES.join(", "), value);
  return found;
}

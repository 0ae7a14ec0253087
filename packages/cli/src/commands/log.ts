import { printable } from "@lockstep/platform";
import type { Command } from "commander";
import { wholeNumber } from "../options.ts";
import { formatTime } from "../screen/format.ts";
import { Output } from "../screen/output.ts";

interface LogArguments {
  readonly json?: boolean;
  readonly last?: number;
  readonly run?: string;
}

/** `lockstep log`: the records of update.log (S26), oldest first; with `--json` one document a line. */
export function define(command: Command): void {
  command
    .argument("<directory>", "the installation")
    .option("--last <count>", "only the last records", wholeNumber("--last", 1, 10_000_000))
    .option("--run <run>", "only those of one run")
    .option("--json", "one JSON document a line")
    .action(showLog);
}

async function showLog(directory: string, options: LogArguments): Promise<void> {
  const { readLog } = await import("@lockstep/updater");
  const output = new Output(options);
  const all = await readLog(directory);
  const wanted = options.run === undefined ? all : all.filter((record) => record.run === options.run);
  for (const record of options.last === undefined ? wanted : wanted.slice(-options.last)) {
    output.document(record);
    const { time, run, action, path, result, reason, ...facts } = record;
    const more = Object.entries(facts).map(([name, value]) => `${name}=${String(value)}`);
    const words = [path, result === "ok" ? null : result, reason, ...more].filter((word) => word !== null);
    const at = Number.isNaN(Date.parse(time)) ? time : formatTime(Date.parse(time));
    output.line(printable(`${at}  ${run}  ${action.padEnd(8)} ${words.join("  ")}`.trimEnd()));
  }
}

import type { LogRecord } from "@lockstep/updater";
import type { Command } from "commander";
import { wholeNumber } from "../options.ts";
import { formatUtc } from "../screen/format.ts";
import { describeRecord } from "../screen/log-text.ts";
import { Output } from "../screen/output.ts";
import { printTable } from "../screen/table.ts";

interface LogArguments {
  readonly json?: boolean;
  readonly last?: number;
  readonly run?: string;
}

/**
 * `lockstep log`: the records of update.log (S26), oldest first; with `--json` one document a line. Ends with UPDATE_LOG_ALTERED
 * where a record does not follow the one before it, whichever records are shown.
 */
export function define(command: Command): void {
  command
    .argument("<directory>", "the installation")
    .option("--last <count>", "only the last records", wholeNumber("--last", 1, 10_000_000))
    .option("--run <run>", "only those of one run")
    .option("--json", "one JSON document a line")
    .action(showLog);
}

async function showLog(directory: string, options: LogArguments): Promise<void> {
  const { findLogBreak, logAltered, readLog } = await import("@lockstep/updater");
  const output = new Output(options);
  const all = await readLog(directory);
  const ofRun = options.run === undefined ? all : all.filter((record) => record.run === options.run);
  const wanted = options.last === undefined ? ofRun : ofRun.slice(-options.last);
  for (const record of wanted) output.document(record);
  printTable(
    output,
    [
      { title: "time" },
      { title: "run" },
      { title: "action" },
      { title: "path", shrinks: true },
      { title: "result" },
      { title: "details" },
    ],
    wanted.map((record) => [
      formatUtc(timeOf(record)),
      record.run,
      record.action,
      record.path ?? "",
      record.result,
      describeRecord(record),
    ]),
  );
  // What can be read is shown all the same; whoever relies on it has to know.
  const broken = await findLogBreak(directory);
  if (broken !== null) throw await logAltered(directory, broken);
}

function timeOf({ time }: LogRecord): number | null {
  const ms = Date.parse(time);
  return Number.isNaN(ms) ? null : ms;
}

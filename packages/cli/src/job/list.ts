import type { ProcessSummary } from "@lockstep/protocol/wire";
import { usage } from "../options.ts";
import { formatDuration, formatUtc } from "../screen/format.ts";
import { Output } from "../screen/output.ts";
import { printTable } from "../screen/table.ts";
import { type JobArguments, withJobs } from "./connect.ts";
import { formatSteps } from "./states.ts";

interface ListArguments extends JobArguments {
  readonly state?: string;
  readonly template?: string;
  readonly text?: string;
  readonly limit?: number;
}

const STATES = ["running", "finished", "failed", "stuck", "cancelled"];
const LIMIT_USUAL = 50;
const PAGE_MAX = 1_000;

/** `lockstep job list`. */
export async function listJobs(options: ListArguments): Promise<void> {
  const output = new Output(options);
  if (options.state !== undefined && !STATES.includes(options.state))
    throw usage("--state takes the state of a process", STATES.join(", "), options.state);
  const { state, template, text, limit = LIMIT_USUAL } = options;
  await withJobs(options, async (jobs) => {
    const processes: ProcessSummary[] = [];
    let before: number | undefined;
    let more = false;
    do {
      const page = await jobs.processes({
        state,
        template,
        text,
        before,
        limit: Math.min(limit - processes.length, PAGE_MAX),
      });
      processes.push(...page.processes);
      more = page.next !== null;
      before = page.next ?? undefined;
    } while (before !== undefined && processes.length < limit);
    output.document({ processes, more });
    printTable(
      output,
      [
        { title: "id", align: "right" },
        { title: "process", shrinks: true },
        { title: "state" },
        { title: "steps", shrinks: true },
        { title: "started" },
        { title: "took", align: "right" },
        { title: "by", shrinks: true },
      ],
      processes.map((each) => [
        String(each.id),
        each.name,
        each.state,
        formatSteps(each.steps),
        formatUtc(each.createdAt),
        each.finishedAt === null ? "-" : formatDuration(each.finishedAt - each.createdAt),
        each.startedBy,
      ]),
    );
    if (more) output.note(`there are more; --limit ${limit * 2} shows more of them`);
  });
}

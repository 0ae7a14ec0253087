import type { ScheduleState } from "@lockstep/protocol/wire";
import { formatUtc } from "../screen/format.ts";
import { Output } from "../screen/output.ts";
import { printTable } from "../screen/table.ts";
import { type JobArguments, withJobs } from "./connect.ts";
import { readValues, type ValueArguments } from "./values.ts";

interface PutArguments extends JobArguments, ValueArguments {
  readonly template: string;
  readonly cron: string;
  readonly timeZone?: string;
  readonly catchUp?: boolean;
  readonly skipWhileRunning?: boolean;
  readonly disabled?: boolean;
}

/** `lockstep job schedule put`. */
export async function putSchedule(name: string, options: PutArguments): Promise<void> {
  const output = new Output(options);
  const parameters = readValues(options);
  await withJobs(options, async (jobs) => {
    const stored = await jobs.putSchedule({
      name,
      template: options.template,
      parameters,
      cron: options.cron,
      ...(options.timeZone === undefined ? {} : { timeZone: options.timeZone }),
      enabled: options.disabled !== true,
      catchUp: options.catchUp === true,
      skipWhileRunning: options.skipWhileRunning === true,
    });
    output.document(stored);
    output.line(`${name}: next ${formatNext(stored)}`);
  });
}

/** `lockstep job schedule list`. */
export async function listSchedules(options: JobArguments): Promise<void> {
  const output = new Output(options);
  await withJobs(options, async (jobs) => {
    const list = await jobs.schedules();
    output.document(list);
    printTable(
      output,
      [
        { title: "schedule" },
        { title: "template", shrinks: true },
        { title: "cron" },
        { title: "time zone" },
        { title: "next" },
        { title: "last" },
        { title: "process", align: "right" },
        { title: "problem", shrinks: true },
      ],
      list.schedules.map((each) => [
        each.schedule.name,
        each.schedule.template,
        each.schedule.cron,
        each.schedule.timeZone ?? "UTC",
        formatNext(each),
        formatUtc(each.lastAt),
        each.lastProcess === null ? "-" : String(each.lastProcess),
        each.lastProblem ?? "",
      ]),
    );
  });
}

function formatNext({ schedule, nextAt }: ScheduleState): string {
  if (schedule.enabled === false) return "off";
  return nextAt === null ? "never" : formatUtc(nextAt);
}

/** `lockstep job schedule remove`. */
export async function removeSchedule(name: string, options: JobArguments): Promise<void> {
  const output = new Output(options);
  await withJobs(options, async (jobs) => {
    await jobs.removeSchedule(name);
    output.document({ removed: name });
    output.note(`removed ${name}`);
  });
}

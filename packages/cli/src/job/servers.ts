import { printable, type Style } from "@lockstep/platform";
import {
  type ComponentLimitList,
  type JobServer,
  type JobServerChange,
  LockstepError,
} from "@lockstep/protocol/wire";
import { usage } from "../options.ts";
import { formatUtc } from "../screen/format.ts";
import { Output } from "../screen/output.ts";
import { printTable } from "../screen/table.ts";
import { type JobArguments, withJobs } from "./connect.ts";

/** `lockstep job servers`. */
export async function listServers(options: JobArguments): Promise<void> {
  const output = new Output(options);
  await withJobs(options, async (jobs) => {
    const list = await jobs.servers();
    output.document(list);
    if (list.stopped)
      output.warn(
        `all job servers are stopped${list.stoppedReason === null ? "" : `: ${printable(list.stoppedReason)}`}`,
      );
    printTable(
      output,
      [
        { title: "queue" },
        { title: "state" },
        { title: "machine", shrinks: true },
        { title: "revision", align: "right" },
        { title: "last fetch" },
        { title: "steps", shrinks: true },
        { title: "remark", shrinks: true },
      ],
      list.servers.map((server) => [
        server.queue,
        server.state,
        formatMachine(server),
        formatRevision(server, list.revision),
        formatUtc(server.lastFetchAt),
        formatCounts(server.steps),
        formatRemark(server),
      ]),
    );
    if (list.servers.some(({ revision }) => revision !== null && revision !== list.revision))
      output.note(`the software revision is ${list.revision}`);
  });
}

/** The physical machine; with a virtual server also under which lease it is there. */
function formatMachine({ machine, node, term }: JobServer): string {
  if (node === null) return machine;
  const place = node === machine ? [] : [node];
  return `${machine} (${[...place, ...(term === null ? [] : [`term ${term}`])].join(", ")})`;
}

function formatRevision({ revision }: JobServer, current: number): string {
  if (revision === null) return "-";
  return revision === current ? String(revision) : `${revision} of ${current}`;
}

function formatCounts(steps: JobServer["steps"]): string {
  return Object.entries(steps)
    .map(([state, count]) => `${count} ${state}`)
    .join(", ");
}

function formatRemark(server: JobServer): string {
  const remarks = [
    server.pauseReason === null ? "" : `paused: ${server.pauseReason}`,
    server.state === "never" ? "no server has ever asked for this queue" : "",
    server.noAutoUpdate ? "no automatic update" : "",
    server.updateServer ? "update server" : "",
    server.pauseReason === null && !server.disabled ? (server.withheld ?? "") : "",
  ];
  return remarks.filter((remark) => remark !== "").join("; ");
}

interface ServerArguments extends JobArguments {
  readonly pause?: string;
  readonly resume?: boolean;
  readonly disable?: boolean;
  readonly enable?: boolean;
  readonly autoUpdate?: boolean;
  readonly updateServer?: boolean;
  readonly checkVersion?: boolean;
}

/** `lockstep job server`: without an option it shows the server. */
export async function changeServer(queue: string, options: ServerArguments): Promise<void> {
  const output = new Output(options);
  const change = toChange(options);
  await withJobs(options, async (jobs) => {
    const list = await jobs.servers();
    const known = list.servers.find((each) => each.queue === queue);
    const changes = Object.keys(change).length > 0;
    if (known === undefined && !changes && options.checkVersion !== true)
      throw new LockstepError(
        "JOB_SERVER_UNKNOWN",
        `nothing is known of the queue ${JSON.stringify(queue)}`,
        {
          hint: "lockstep job servers shows the queues; compare the spelling.",
        },
      );
    if (known === undefined && changes)
      output.warn(`no server has ever asked for ${printable(queue)}; the flags wait for the first that does`);
    const server = changes ? await jobs.changeServer(queue, change) : known;
    const check = options.checkVersion === true ? await jobs.checkVersion(queue) : null;
    output.document({ ...server, ...(check === null ? {} : { check }) });
    if (check !== null)
      output.note(
        `${check.process === null ? "no update step" : `process ${check.process}`}: ${check.detail}`,
      );
    if (server !== undefined) printServer(output, server, list.revision);
  });
}

function toChange(options: ServerArguments): JobServerChange {
  if (options.pause !== undefined && options.resume === true)
    throw usage("--pause and --resume exclude each other");
  if (options.disable === true && options.enable === true)
    throw usage("--disable and --enable exclude each other");
  return {
    ...(options.pause === undefined ? {} : { paused: options.pause }),
    ...(options.resume === true ? { paused: null } : {}),
    ...(options.disable === true ? { disabled: true } : {}),
    ...(options.enable === true ? { disabled: false } : {}),
    ...(options.autoUpdate === undefined ? {} : { noAutoUpdate: !options.autoUpdate }),
    ...(options.updateServer === undefined ? {} : { updateServer: options.updateServer }),
  };
}

const STATE_STYLES: Readonly<Record<JobServer["state"], Style>> = {
  serving: "green",
  updating: "cyan",
  paused: "yellow",
  disabled: "yellow",
  silent: "red",
  never: "red",
};

function printServer(output: Output, server: JobServer, revision: number): void {
  const lines: [string, string][] = [
    ["queue", server.queue],
    ["state", server.state],
    ["machine", server.machine === "" ? "-" : server.machine],
    ["node", server.node ?? "-"],
    ["term", server.term === null ? "-" : String(server.term)],
    ["version", server.version === "" ? "-" : server.version],
    ["revision", formatRevision(server, revision)],
    ["last fetch", formatUtc(server.lastFetchAt)],
    ["status page", server.statusUrl ?? "-"],
    ["steps", formatCounts(server.steps) || "none"],
    ["remark", formatRemark(server) || "-"],
  ];
  for (const [name, value] of lines) {
    const shown = printable(value);
    output.line(
      `${name.padEnd(11)} ${name === "state" ? output.paintData(STATE_STYLES[server.state], shown) : shown}`,
    );
  }
}

/** `lockstep job limits`. */
export async function listLimits(options: JobArguments): Promise<void> {
  await withJobs(options, async (jobs) => printLimits(new Output(options), await jobs.limits()));
}

function printLimits(output: Output, list: ComponentLimitList): void {
  output.document(list);
  printTable(
    output,
    [{ title: "component" }, { title: "task" }, { title: "at once", align: "right" }],
    list.limits.flatMap(({ component, maxInstance, tasks = {} }) => [
      ...(maxInstance === 0 ? [] : [[component, "", String(maxInstance)]]),
      ...Object.entries(tasks).map(([task, limit]) => [component, task, String(limit)]),
    ]),
  );
}

/** `lockstep job limits set`. */
export async function setLimit(
  component: string,
  options: JobArguments & { readonly max?: number; readonly task?: readonly string[] },
): Promise<void> {
  const tasks = Object.fromEntries(
    (options.task ?? []).map((pair) => {
      const match = /^(.+)=(-1|[0-9]{1,9})$/.exec(pair);
      if (match === null) throw usage("--task takes NAME=N", "Run=2", pair);
      return [match[1] ?? "", Number(match[2])];
    }),
  );
  await withJobs(options, async (jobs) => {
    const limit = { component, maxInstance: options.max ?? 0, tasks };
    printLimits(new Output(options), await jobs.putLimit(limit));
  });
}

/** `lockstep job stop` and `resume`. */
export async function stopJobs(
  stopped: boolean,
  options: JobArguments & { readonly reason?: string },
): Promise<void> {
  const output = new Output(options);
  await withJobs(options, async (jobs) => {
    const stop = await jobs.setStop({ stopped, reason: options.reason ?? null });
    output.document(stop);
    output.note(
      stop.stopped
        ? "all job servers are stopped: steps that they have are finished, no new ones are given out"
        : "job servers get steps again",
    );
  });
}

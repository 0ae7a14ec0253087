import { spawn } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { silentLogger } from "@lockstep/platform";
import type { Exchange, ExchangeAnswer } from "@lockstep/protocol";
import pg from "pg";
import { startEmbeddedPostgres } from "../../packages/hub/src/db/embedded/embedded.ts";
import { inTemporaryDirectory, lockstep, startHub } from "../lockstep.ts";
import { processorMs } from "../processor-time.ts";
import type { Report } from "../report.ts";

/**
 * What the job service costs while there is nothing to do: the memory of one real service, and the load that a thousand
 * waiting ones put on a hub and its database. The thousand are requests as the service sends them, over a connection
 * each, because a thousand real services would be the load.
 */
const SERVICES = 1_000;
/** So long until everything has settled: caches are filled, and the first collections are over. */
const SETTLE_MS = 20_000;
/** Longer than a request waits, so that each service asks again at least once. */
const WATCH_MS = 60_000;
const WAIT_MS = 30_000;

export function run(): Promise<Report> {
  return inTemporaryDirectory(async (directory) => {
    const postgres = await startEmbeddedPostgres({
      dataDirectory: join(directory, "postgres"),
      log: silentLogger,
    });
    const admin = new pg.Client(postgres.adminAddress);
    await admin.connect();
    try {
      await admin.query("create database jobs encoding 'UTF8' template template0");
      const { host, port, user, password } = postgres.adminAddress as unknown as Record<string, string>;
      const url = `postgres://${user}:${encodeURIComponent(password ?? "")}@/jobs?host=${encodeURIComponent(host ?? "")}&port=${port}`;
      const hub = await startHub(join(directory, "hub"), ["--database", url]);
      try {
        const memory = await idleMemory(directory, hub.url);
        const alone = await load(hub.pid, await postgres.pid());
        const stop = waitAll(hub.url);
        await pause(SETTLE_MS);
        const { rows } = await admin.query<{ count: number }>(
          "select count(*)::int as count from pg_stat_activity where datname = 'jobs'",
        );
        const waiting = await load(hub.pid, await postgres.pid());
        const asked = await stop();
        return {
          title: "Jobs: nothing to do",
          text: [
            `One idle service with status page and log, ${SETTLE_MS / 1000} s after its start: supervisor and engine, each page counted once (PSS), ${Math.round(memory.residentBytes / 1e6)} MB if shared pages count twice (RSS). Then ${SERVICES.toLocaleString("en")} services with a queue each that wait at one hub for ${WATCH_MS / 1000} s (${asked.toLocaleString("en")} requests of ${WAIT_MS / 1000} s since they began); the hub had ${rows[0]?.count ?? 0} connections to its database open meanwhile.`,
            "",
            "| | hub and database, share of one core | memory of the hub |",
            "| --- | --- | --- |",
            `| nobody waits | ${alone.percent.toFixed(2)} % | ${Math.round(alone.hubBytes / 1e6)} MB |`,
            `| ${SERVICES.toLocaleString("en")} wait | ${waiting.percent.toFixed(2)} % | ${Math.round(waiting.hubBytes / 1e6)} MB |`,
          ].join("\n"),
          measured: [],
          findings: [
            {
              what: "memory of an idle service",
              found: memory.proportionalBytes / 1e6,
              goal: 80,
              unit: " MB",
            },
            {
              what: `share of one core for ${SERVICES.toLocaleString("en")} waiting services`,
              found: waiting.percent - alone.percent,
              goal: 10,
              unit: " %",
            },
          ],
        };
      } finally {
        await hub.stop();
      }
    } finally {
      await admin.end();
      await postgres.stop();
    }
  });
}

async function idleMemory(directory: string, hub: string) {
  const file = join(directory, "JobService.toml");
  writeFileSync(
    file,
    `[JobProvider]
Hub = "${hub}"

[[JobServiceDestination]]
Queue = '\\IDLE'

[FileLogWriter]
OutPutFile = "${join(directory, "service.log")}"

[HTTPStatus]
Port = 0
`,
  );
  const [program, args] = lockstep("service", "run", "--config", file);
  const child = spawn(program, args, { stdio: "ignore" });
  const ended = new Promise((done) => child.once("close", done));
  try {
    await pause(SETTLE_MS);
    const processes = treeOf(child.pid ?? 0);
    if (processes.length < 2) throw new Error("the service does not run");
    const sum = (what: "Pss" | "Rss") => processes.reduce((total, pid) => total + memoryOf(pid, what), 0);
    return { proportionalBytes: sum("Pss"), residentBytes: sum("Rss") };
  } finally {
    child.kill("SIGTERM");
    await ended;
  }
}

/** The processor time of a while, and the memory at its end. */
async function load(hub: number, database: number | null) {
  const pids = [hub, ...(database === null ? [] : [database])];
  const [before, began] = [processorMs(pids), performance.now()];
  await pause(WATCH_MS);
  const percent = (100 * (processorMs(pids) - before)) / (performance.now() - began);
  return { percent, hubBytes: treeOf(hub).reduce((total, pid) => total + memoryOf(pid, "Pss"), 0) };
}

/** Services that wait. Returns what ends them, and says how many requests there were. */
function waitAll(hub: string): () => Promise<number> {
  const stopping = new AbortController();
  let asked = 0;
  const serve = async (index: number) => {
    const instance = crypto.randomUUID();
    for (let sequence = 1; !stopping.signal.aborted; sequence++) {
      asked += 1;
      const request: Exchange = {
        queue: `\\IDLE${index}`,
        instance,
        sequence,
        answered: sequence - 1,
        holding: [],
        started: [],
        results: [],
        want: { internal: 20, external: 10 },
        waitMs: sequence === 1 ? 0 : WAIT_MS,
        machine: `machine ${index}`,
        revision: null,
        installation: null,
        version: "0.1.0",
        statusUrl: null,
      };
      const answer = await fetch(`${hub}/v1/jobs/exchange`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(request),
        signal: stopping.signal,
      });
      if (!answer.ok) throw new Error(await answer.text());
      if (((await answer.json()) as ExchangeAnswer).steps.length > 0) throw new Error("there is a step");
    }
  };
  const all = Promise.allSettled(Array.from({ length: SERVICES }, (_, index) => serve(index)));
  return async () => {
    stopping.abort();
    const failed = (await all).flatMap((each) => (each.status === "rejected" ? [String(each.reason)] : []));
    const other = failed.find((reason) => !reason.includes("AbortError"));
    if (other !== undefined) throw new Error(other);
    return asked;
  };
}

/** A process and all below it. */
function treeOf(root: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync("/proc"))
    if (/^\d+$/.test(name)) {
      const parent = /^PPid:\s+(\d+)/m.exec(read(`/proc/${name}/status`))?.[1];
      if (parent !== undefined) parents.set(Number(name), Number(parent));
    }
  const below = (pid: number): number[] => [
    pid,
    ...[...parents].flatMap(([child, parent]) => (parent === pid ? below(child) : [])),
  ];
  return below(root);
}

function memoryOf(pid: number, what: "Pss" | "Rss"): number {
  const kilobytes = new RegExp(`^${what}:\\s+(\\d+) kB`, "m").exec(read(`/proc/${pid}/smaps_rollup`))?.[1];
  return Number(kilobytes ?? 0) * 1024;
}

function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    // The process has ended.
    return "";
  }
}

const pause = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));

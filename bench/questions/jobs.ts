import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { silentLogger } from "@lockstep/platform";
import pg from "pg";
import { startEmbeddedPostgres } from "../../packages/hub/src/db/embedded/embedded.ts";
import { formatMs, type Measured, median, type Sample } from "../harness.ts";
import { inTemporaryDirectory, lockstep, startHub } from "../lockstep.ts";
import { processorMs } from "../processor-time.ts";
import type { Finding, Report } from "../report.ts";

/**
 * Jobs that do nothing, on one PostgreSQL with fsync on: how many are claimed and completed in a second, and how long
 * one takes from the call that starts it until it runs, and how much processor time one costs. The peers are libraries
 * that speak SQL from within the worker; ours is a service that speaks HTTP to a hub, which keeps fencing tokens, leases,
 * runs and processes besides.
 */
const JOBS = 6_000;
/** So rarely that asking costs no contestant much, and often enough for what takes half a second. */
const LOOK_MS = 10;
const LATENCY_JOBS = 100;
const WORKERS = [1, 4, 16];
const ROUNDS = 3;
/** Whoever completes nothing for so long is not measured, but broken. */
const STALLED_MS = 30_000;
const PEERS = { "graphile-worker": "0.18.0", "pg-boss": "12.38.0" };
const PROGRAMS = resolve(import.meta.dirname, "../peers");
const MODULES = resolve(import.meta.dirname, "../../.cache/bench/peers");

interface Worker extends AsyncDisposable {
  readonly pid: number;
}

interface Contestant {
  readonly name: string;
  /** Puts jobs in, without a worker. */
  enqueue(count: number, mark: string | null): Promise<void>;
  /** Starts the worker; resolves when it works. */
  work(concurrency: number): Promise<Worker>;
  /** Processes that take part, beside worker and database. */
  readonly pids: readonly number[];
  /** Jobs that are not done. */
  left(): Promise<number>;
  clear(): Promise<void>;
}

export function run(): Promise<Report> {
  return inTemporaryDirectory(async (directory) => {
    installPeers();
    const postgres = await startEmbeddedPostgres({
      dataDirectory: join(directory, "postgres"),
      log: silentLogger,
      settings: { max_connections: "200" },
    });
    const admin = new pg.Client(postgres.adminAddress);
    await admin.connect();
    try {
      const url = async (database: string) => {
        await admin.query(`create database ${database} encoding 'UTF8' template template0`);
        const { host, port, user, password } = postgres.adminAddress as unknown as Record<string, string>;
        return `postgres://${user}:${encodeURIComponent(password ?? "")}@/${database}?host=${encodeURIComponent(host ?? "")}&port=${port}`;
      };
      await using ending = new AsyncDisposableStack();
      const contestants: Ending[] = [];
      for (const enter of [
        async () => graphile(await url("graphile"), "single"),
        async () => graphile(await url("graphile_batched"), "batched"),
        async () => boss(await url("boss")),
        async () => ours(directory, await url("jobs")),
      ]) {
        const contestant = await enter();
        ending.defer(() => contestant.end());
        contestants.push(contestant);
      }
      const server = await postgres.pid();
      return await measure(directory, contestants, server === null ? [] : [server]);
    } finally {
      await admin.end();
      await postgres.stop();
    }
  });
}

function installPeers(): void {
  if (Object.keys(PEERS).every((name) => existsSync(join(MODULES, "node_modules", name)))) return;
  mkdirSync(MODULES, { recursive: true });
  writeFileSync(join(MODULES, "package.json"), JSON.stringify({ private: true, dependencies: PEERS }));
  execFileSync("npm", ["install", "--silent", "--no-audit", "--no-fund"], { cwd: MODULES, stdio: "inherit" });
}

type Ending = Contestant & { end(): Promise<void> };

async function graphile(connectionString: string, how: "single" | "batched"): Promise<Ending> {
  const { makeWorkerUtils } = createRequire(`${MODULES}/`)("graphile-worker") as {
    makeWorkerUtils(options: object): Promise<{
      migrate(): Promise<void>;
      addJob(task: string, payload: object): Promise<unknown>;
      release(): Promise<void>;
    }>;
  };
  const utils = await makeWorkerUtils({ connectionString });
  await utils.migrate();
  const pool = new pg.Pool({ connectionString });
  return {
    name: how === "single" ? "graphile-worker" : "graphile-worker, local queue and batched completion",
    pids: [],
    enqueue: (count, mark) => inParallel(count, () => utils.addJob("noop", mark === null ? {} : { mark })),
    work: (concurrency) => startWorker("graphile.mjs", connectionString, String(concurrency), how),
    left: () => count(pool, "select count(*) from graphile_worker._private_jobs"),
    clear: async () => {
      await pool.query("delete from graphile_worker._private_jobs");
    },
    end: async () => {
      await utils.release();
      await pool.end();
    },
  };
}

async function boss(connectionString: string): Promise<Ending> {
  const { PgBoss } = (await import(createRequire(`${MODULES}/`).resolve("pg-boss"))) as {
    PgBoss: new (
      options: object,
    ) => {
      start(): Promise<unknown>;
      stop(options: object): Promise<void>;
      createQueue(name: string, options: object): Promise<void>;
      send(name: string, data: object): Promise<unknown>;
      on(event: "error", call: (error: Error) => void): void;
    };
  };
  const boss = new PgBoss({ connectionString, supervise: false, schedule: false });
  boss.on("error", () => {});
  await boss.start();
  await boss.createQueue("noop", { notify: true });
  const pool = new pg.Pool({ connectionString });
  return {
    name: "pg-boss, batches of 50",
    pids: [],
    enqueue: (count, mark) => inParallel(count, () => boss.send("noop", mark === null ? {} : { mark })),
    work: (concurrency) => startWorker("pg-boss.mjs", connectionString, String(concurrency)),
    left: () => count(pool, "select count(*) from pgboss.job where name = 'noop' and state < 'completed'"),
    clear: async () => {
      await pool.query("delete from pgboss.job where name = 'noop'");
    },
    end: async () => {
      await boss.stop({ graceful: false });
      await pool.end();
    },
  };
}

async function ours(directory: string, connectionString: string): Promise<Ending> {
  const hub = await startHub(join(directory, "hub"), ["--database", connectionString]);
  const pool = new pg.Pool({ connectionString });
  const file = join(directory, "JobService.toml");
  const template = (mark: string | null) => ({
    name: "noop",
    steps: [
      {
        name: "noop",
        component: "Bench",
        task: "Noop",
        queue: "\\BENCH",
        execution: "internal",
        ...(mark === null ? {} : { parameters: { mark } }),
      },
    ],
  });
  return {
    name: "lockstep service",
    pids: [hub.pid],
    enqueue: (jobs, mark) =>
      inParallel(jobs, async () => {
        const answer = await fetch(`${hub.url}/v1/jobs/processes`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ template: template(mark) }),
        });
        if (!answer.ok) throw new Error(await answer.text());
        await answer.arrayBuffer();
      }),
    work: async (concurrency) => {
      writeFileSync(
        file,
        `[JobProvider]
Hub = "${hub.url}"

[[JobServiceDestination]]
Queue = '\\BENCH'
InternalSlots = ${concurrency}

[Service]
Plugins = ["${join(PROGRAMS, "noop.internal.mjs")}"]
StateDirectory = "${join(directory, "state")}"

[FileLogWriter]
OutPutFile = "${join(directory, "service.log")}"

[HTTPStatus]
Enabled = false
`,
      );
      const [program, args] = lockstep("service", "run", "--config", file);
      const child = spawn(program, args, { stdio: ["ignore", "ignore", "inherit"] });
      return { pid: child.pid ?? 0, [Symbol.asyncDispose]: () => end(child) };
    },
    // A process ends with its step, in the same transaction.
    left: () => count(pool, "select count(*) from job_process where finished_at is null"),
    clear: async () => {
      await pool.query("delete from job_process");
    },
    end: async () => {
      await pool.end();
      await hub.stop();
    },
  };
}

async function measure(
  directory: string,
  contestants: readonly Ending[],
  database: readonly number[],
): Promise<Report> {
  const rates = new Map<string, Sample[]>();
  const latencies = new Map<string, number[]>();
  for (const workers of WORKERS)
    for (let round = 0; round < ROUNDS; round++)
      for (const contestant of contestants) {
        process.stderr.write(`  ${workers} workers, round ${round + 1}/${ROUNDS}: ${contestant.name}\n`);
        await contestant.clear();
        await contestant.enqueue(JOBS, null);
        await using worker = await contestant.work(workers);
        const key = `${contestant.name}, ${workers}`;
        const drained = await drain(contestant, [...database, ...contestant.pids, worker.pid]);
        const samples = rates.get(key) ?? [];
        samples.push({ ...drained, peakBytes: null });
        rates.set(key, samples);
        if (round === ROUNDS - 1) latencies.set(key, await latency(directory, contestant));
      }
  const perSecond = (name: string, workers: number) =>
    1000 / median((rates.get(`${name}, ${workers}`) ?? []).map((sample) => sample.wallMs));
  const measured: Measured[] = [...rates].map(([name, samples]) => ({
    name: `${name} at once: one job`,
    samples,
  }));
  const findings: Finding[] = WORKERS.flatMap((workers) => {
    const best = Math.max(...contestants.slice(0, -1).map(({ name }) => perSecond(name, workers)));
    const peerLatency = Math.min(
      ...contestants.slice(0, -1).map(({ name }) => median(latencies.get(`${name}, ${workers}`) ?? [])),
    );
    const own = contestants.at(-1)?.name ?? "";
    return [
      {
        what: `jobs a second at ${workers} at once, fastest peer against ours`,
        found: best / perSecond(own, workers),
        goal: 1,
        unit: " times",
      },
      {
        what: `from start to running at ${workers} at once, ours against the quickest peer`,
        found: median(latencies.get(`${own}, ${workers}`) ?? []) / peerLatency,
        goal: 1,
        unit: " times",
      },
    ];
  });
  const table = [...rates.keys()].map((key) => {
    const [name, workers] = [key.slice(0, key.lastIndexOf(",")), Number(key.slice(key.lastIndexOf(",") + 2))];
    return `| ${name} | ${workers} | ${Math.round(perSecond(name, workers)).toLocaleString("en")} | ${formatMs(median(latencies.get(key) ?? []))} |`;
  });
  return {
    title: "Jobs",
    text: [
      `${JOBS.toLocaleString("en")} jobs that do nothing, then ${LATENCY_JOBS} one after the other in an idle queue, on one PostgreSQL with fsync and synchronous commits for all. The processor time is that of worker, database and, for ours, hub.`,
      "",
      "What differs: a peer's worker speaks SQL to the database itself, and one process does it all; ours speaks HTTP to a hub, so each job passes two processes more. graphile-worker changes a job's row once and deletes it. pg-boss changes it twice and keeps it. Ours changes a step twice, keeps it with its result, adds a row for each try with who ran it and when, decides what follows and ends the process, and writes begin, parameters and end of each step into a log. graphile-worker without its local queue commits each job by itself; the others, ours too, do so in batches.",
      "",
      "| | at once | jobs a second | from start to running |",
      "| --- | --- | --- | --- |",
      ...table,
    ].join("\n"),
    measured,
    findings,
  };
}

/** For one job while many are worked off: counted from the first look that finds some done. */
async function drain(
  contestant: Contestant,
  pids: readonly number[],
): Promise<{ readonly wallMs: number; readonly cpuMs: number }> {
  let began: { at: number; left: number; cpuMs: number } | null = null;
  let last = { left: JOBS, at: performance.now() };
  for (;;) {
    const left = await contestant.left();
    const at = performance.now();
    if (left < last.left) last = { left, at };
    else if (at - last.at > STALLED_MS)
      throw new Error(`${contestant.name} does not go on: ${left} jobs left`);
    if (began === null && left < JOBS) began = { at, left, cpuMs: processorMs(pids) };
    if (left === 0 && began !== null) {
      const jobs = Math.max(1, began.left);
      return { wallMs: (at - began.at) / jobs, cpuMs: (processorMs(pids) - began.cpuMs) / jobs };
    }
    await new Promise((done) => setTimeout(done, LOOK_MS));
  }
}

/** Milliseconds from the call that starts a job until it runs, each in an idle queue. */
async function latency(directory: string, contestant: Contestant): Promise<number[]> {
  const found: number[] = [];
  for (let i = 0; i < LATENCY_JOBS; i++) {
    const mark = join(directory, "mark");
    rmSync(mark, { force: true });
    const began = performance.timeOrigin + performance.now();
    await contestant.enqueue(1, mark);
    while ((await contestant.left()) > 0) await new Promise((done) => setTimeout(done, 1));
    found.push(Number(readFileSync(mark, "utf8")) - began);
  }
  return found;
}

async function startWorker(program: string, ...args: string[]): Promise<Worker> {
  const child = spawn(process.execPath, [join(PROGRAMS, program), MODULES, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise<void>((working, failed) => {
    child.stdout.once("data", () => working());
    child.once("close", (status) => failed(new Error(`${program} ended with ${status}`)));
  });
  return { pid: child.pid ?? 0, [Symbol.asyncDispose]: () => end(child, "SIGKILL") };
}

async function end(child: ChildProcess, signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
  const ended = new Promise((done) => child.once("close", done));
  child.kill(signal);
  await ended;
}

async function inParallel(times: number, action: () => Promise<unknown>): Promise<void> {
  let left = times;
  const lane = async () => {
    while (left-- > 0) await action();
  };
  await Promise.all(Array.from({ length: Math.min(8, times) }, lane));
}

async function count(pool: pg.Pool, query: string): Promise<number> {
  const { rows } = await pool.query<{ count: string }>(query);
  return Number(rows[0]?.count);
}

/** Real job services, as processes of their own, on a real hub. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { TestContext } from "node:test";
import type { JobServer, JobTemplate, ProcessDetail } from "@lockstep/protocol";

/** The command as it stands in the checkout; to look at what ships: dist/bin/lockstep.mjs. */
const PROGRAM = resolve(
  import.meta.dirname,
  process.env.LOCKSTEP_TEST_PROGRAM ?? "../../packages/cli/bin/lockstep.mjs",
);

/** What a test asks of a hub, in-process or in a process of its own. */
export interface HubAddress {
  readonly url: string;
  readonly token: string;
}

/** One call of the hub's interface. Throws what it refuses. */
export async function call<T>(hub: HubAddress, method: string, path: string, body?: unknown): Promise<T> {
  const answer = await fetch(`${hub.url}${path}`, {
    method,
    headers: { authorization: `Bearer ${hub.token}`, "content-type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
  return (text === "" ? null : JSON.parse(text)) as T;
}

/** Starts a process of these steps. */
export async function startJob(
  hub: HubAddress,
  name: string,
  steps: JobTemplate["steps"],
  more: Partial<JobTemplate> = {},
): Promise<number> {
  const started = await call<{ process: { id: number } }>(hub, "POST", "/v1/jobs/processes", {
    template: { name, ...more, steps },
  });
  return started.process.id;
}

export function readJob(hub: HubAddress, id: number): Promise<ProcessDetail> {
  return call(hub, "GET", `/v1/jobs/processes/${id}`);
}

/** Waits for what a test says; the test's own time limit ends it. */
export async function until<T>(
  look: () => Promise<T | null | undefined | false> | T | null | undefined | false,
): Promise<T> {
  while (true) {
    const found = await look();
    if (found !== null && found !== undefined && found !== false) return found;
    await new Promise((wake) => setTimeout(wake, 25));
  }
}

/** The process when it has come to its end, or waits for a person. */
export function untilEnded(hub: HubAddress, id: number): Promise<ProcessDetail> {
  return until(async () => {
    const detail = await readJob(hub, id);
    return detail.process.state === "running" ? null : detail;
  });
}

export function servers(hub: HubAddress): Promise<readonly JobServer[]> {
  return call<{ servers: JobServer[] }>(hub, "GET", "/v1/jobs/servers").then((list) => list.servers);
}

export interface ServiceOptions {
  readonly queues: readonly string[];
  readonly machine?: string;
  /** Lines for [Service]. */
  readonly service?: string;
  /** Lines for each destination. */
  readonly destination?: string;
  /** Where its configuration lies; made if need be. */
  readonly directory?: string;
  readonly environment?: Readonly<Record<string, string>>;
}

export interface TestService {
  readonly directory: string;
  readonly state: string;
  readonly process: ChildProcess;
  /** Whatever it said on standard error. */
  stderr(): string;
  /** Resolves when it serves, rejects when it ends before. */
  readonly ready: Promise<void>;
  /** Resolves with its exit status. */
  readonly ended: Promise<number | null>;
  /** Ends it by SIGTERM. */
  stop(): Promise<number | null>;
  /** Ends supervisor, engine and workers as a power cut would. */
  kill(): Promise<void>;
  /** The engine's process, or null. */
  engine(): number | null;
  workers(): number[];
}

export function temporaryDirectory(t: Pick<TestContext, "after">): string {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-test-service-"));
  t.after(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5 }));
  return directory;
}

/** Writes a configuration. */
export function configure(hub: HubAddress, directory: string, options: ServiceOptions): string {
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, "hub-token"), hub.token, { mode: 0o600 });
  const destinations = options.queues.map(
    (queue) =>
      `[[JobServiceDestination]]\nQueue = ${JSON.stringify(queue)}\nInternalSlots = 4\nExternalSlots = 3\n${options.destination ?? ""}\n`,
  );
  const file = join(directory, "JobService.toml");
  writeFileSync(
    file,
    `[JobProvider]
Hub = "${hub.url}"
TokenFile = "hub-token"

${destinations.join("\n")}
[Service]
Machine = "${options.machine ?? "machine-1"}"
StateDirectory = "state"
${options.service ?? "DrainSeconds = 20"}

[FileLogWriter]
OutPutFile = "service.log"
LogSeverity = "Info"

[HTTPStatus]
Port = 0
`,
  );
  return file;
}

/** Starts a service and waits until it is ready; everything of it is gone when the test ends. */
export async function startService(
  t: Pick<TestContext, "after">,
  hub: HubAddress,
  options: ServiceOptions,
): Promise<TestService> {
  const directory = options.directory ?? temporaryDirectory(t);
  const file = configure(hub, directory, options);
  return await runService(t, directory, file, options.environment);
}

/** Starts a service from a configuration that is there already, and waits until it is ready. */
export async function runService(
  t: Pick<TestContext, "after">,
  directory: string,
  file: string,
  environment: Readonly<Record<string, string>> = {},
  program = PROGRAM,
): Promise<TestService> {
  const service = beginService(t, directory, file, environment, program);
  await service.ready;
  return service;
}

/** Starts a service, which may have an update to finish before it is ready. */
export function beginService(
  t: Pick<TestContext, "after">,
  directory: string,
  file: string,
  environment: Readonly<Record<string, string>> = {},
  program = PROGRAM,
): TestService {
  const { PATH = "", HOME = "" } = process.env;
  const child = spawn(process.execPath, [program, "service", "run", "--config", file], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH, HOME, ...environment },
  });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const ended = new Promise<number | null>((resolve) => child.once("exit", (status) => resolve(status)));
  const ready = new Promise<void>((resolve, reject) => {
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      if (text.startsWith("ready")) resolve();
    });
    void ended.then((status) =>
      reject(new Error(`the service ended with ${status}: ${stderr}\n${logOf(directory)}`)),
    );
  });
  const service: TestService = {
    directory,
    state: join(directory, "state"),
    process: child,
    ready,
    stderr: () => stderr,
    ended,
    stop: () => {
      child.kill("SIGTERM");
      return ended;
    },
    kill: async () => {
      const family = familyOf(child.pid ?? 0);
      // First the one that would start the others anew.
      killQuietly(child.pid ?? 0);
      for (const pid of family) killQuietly(pid);
      await ended;
      // After a power cut nobody is left that still dies, and holds a lock meanwhile.
      await until(() => !family.some(isAlive));
    },
    engine: () => childrenOf(child.pid ?? 0).find((pid) => commandOf(pid).includes(" engine ")) ?? null,
    workers: () => familyOf(child.pid ?? 0).filter((pid) => commandOf(pid).endsWith(" worker")),
  };
  t.after(async () => {
    if (child.exitCode === null && child.signalCode === null) await service.kill();
  });
  ready.catch(() => {});
  return service;
}

export function logOf(directory: string): string {
  try {
    return readFileSync(join(directory, "service.log"), "utf8");
  } catch {
    return "";
  }
}

export function killQuietly(pid: number, signal: NodeJS.Signals = "SIGKILL"): void {
  try {
    if (pid > 0) process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}

export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

export function childrenOf(pid: number): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((each) => Number.isInteger(each) && each > 0 && parentOf(each) === pid);
}

/** Everything below a process. */
export function familyOf(pid: number): number[] {
  return childrenOf(pid).flatMap((child) => [child, ...familyOf(child)]);
}

function parentOf(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
  } catch {
    return 0;
  }
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
  } catch {
    return "";
  }
}

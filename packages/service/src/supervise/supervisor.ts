import { spawn } from "node:child_process";
import { dirname, resolve, sep } from "node:path";
import { ServiceManager, systemClock } from "@lockstep/platform";
import { CLUSTER_ENVIRONMENT, exitStatus, LockstepError } from "@lockstep/protocol/wire";
import { configInvalid, readConfigFile } from "../config/load.ts";
import type { ServiceConfig } from "../config/types.ts";
import { createSystemLog } from "../log/system-log.ts";
import type { RunServiceOptions } from "../run-options.ts";
import { ClusterWord } from "./cluster-word.ts";
import { findInstallation, isUpdateUnfinished, type OwnInstallation } from "./installation.ts";
import { readUpdateRecord, UPDATE_STATUS, writeUpdateRecord } from "./state-files.ts";

/**
 * The small process that outlives the others: it starts the engine, starts it again when it dies, and runs the updater
 * while no engine runs.
 *
 * It takes part in nothing else, so it can hardly fail; and should it die all the same, at any point, the next start of
 * the service goes on from what is on disk: an update that stopped between its commit and its end is finished before any
 * program of the installation starts, and an update that is owed and was not tried is tried first.
 */
export interface SupervisorOptions extends RunServiceOptions {
  /** How this program starts itself: the words before `service engine` and `update`. */
  readonly program?: readonly string[];
}

/** What the engine says to its supervisor. */
export type FromEngine =
  | { readonly kind: "ready"; readonly url: string | null; readonly drainMs: number }
  | { readonly kind: "alive" }
  /** It has done everything and ends now, with this status. */
  | { readonly kind: "ended"; readonly status: number };

const ALIVE_MS = 5000;
/** An engine that said nothing for so long hangs: its lease is gone long since, and nobody serves its queues. */
const HANG_MS = 120_000;
/**
 * A process cannot even exit while one of its threads waits for a volume that hangs: an engine that has said its last
 * word is ended after this.
 */
const END_MS = 5000;
/** Before the service manager loses its patience, which is 30 s after DrainSeconds. */
const STOP_GRACE_MS = 20_000;

const BACK_OFF_MS = { first: 1000, max: 60_000 };
/** In the environment of a supervisor that goes on as its own new version. */
const ANNOUNCED = "LOCKSTEP_SERVICE_ANNOUNCED";
/** An engine that ran for so long has not failed at its start. */
const STEADY_MS = 60_000;
const MESSAGE_CHARACTERS_MAX = 2000;

/**
 * Runs the service until the signal comes. Resolves with the exit status.
 * Throws SERVICE_CONFIG_UNREADABLE, SERVICE_CONFIG_INVALID for the configuration as it is at the start.
 */
export async function runService(options: SupervisorOptions): Promise<number> {
  const file = resolve(options.configFile);
  // A fault shows here, before anything is started, and to whoever started it.
  const { config, faults } = await readConfigFile(file, options.environment);
  if (config === null) throw configInvalid(file, faults);
  const supervisor = new Supervisor(file, config, options);
  try {
    return await supervisor.run();
  } finally {
    supervisor.close();
  }
}

class Supervisor {
  readonly #file: string;
  readonly #stateDirectory: string;
  /** Of the engine that runs: it may have been started since with another configuration. */
  #drainMs: number;
  readonly #provider: ServiceConfig["provider"];
  readonly #options: SupervisorOptions;
  readonly #program: readonly string[];
  readonly #manager: ServiceManager;
  readonly #cluster: ClusterWord;
  #announced: boolean;

  constructor(file: string, config: ServiceConfig, options: SupervisorOptions) {
    this.#file = file;
    this.#stateDirectory = config.service.stateDirectory;
    this.#drainMs = config.service.drainMs;
    this.#provider = config.provider;
    this.#options = options;
    this.#program = options.program ?? ownProgram();
    this.#manager = new ServiceManager(options.environment);
    this.#cluster = new ClusterWord(options.environment);
    this.#announced = options.environment[ANNOUNCED] !== undefined;
    process.on("SIGHUP", ignore);
  }

  async run(): Promise<number> {
    const { signal } = this.#options;
    const stopping = () => {
      this.#manager.stopping();
      this.#cluster.say("stopping");
    };
    signal.addEventListener("abort", stopping, { once: true });
    // This loop turns: that is all that a watchdog can know. An engine that hangs loses its lease and is told by the hub.
    this.#manager.watch(() => true);
    let failures = 0;
    while (!signal.aborted) {
      if ((await this.#bringInOrder()) === "updated") this.#becomeNew();
      if (signal.aborted) break;
      const startedAt = systemClock.monotonic();
      this.#cluster.say("starting");
      const end = await this.#runEngine();
      // An engine that ends for an update is expected to.
      if (!signal.aborted) this.#cluster.say(end.status === UPDATE_STATUS ? "updating" : "starting");
      if (end.status === 0 && signal.aborted) return 0;
      if (end.status === UPDATE_STATUS) {
        failures = 0;
        continue;
      }
      // Whoever configured it has to look; a new start would fail in the same way.
      if (
        end.status === exitStatus("USAGE") ||
        (end.status === exitStatus("SERVICE_ALREADY_RUNNING") && !this.#announced)
      )
        return end.status;
      // One that had only just begun, and had nothing in hand, does not hear the signal: it dies of it.
      if (signal.aborted) return end.signal === "SIGTERM" ? 0 : (end.status ?? 1);
      failures = systemClock.monotonic() - startedAt > STEADY_MS ? 1 : failures + 1;
      const pause = Math.min(BACK_OFF_MS.first * 2 ** Math.min(failures - 1, 10), BACK_OFF_MS.max);
      this.#tell(`the service's engine ended (${describeEnd(end)}); it starts again in ${pause / 1000} s`);
      await systemClock.sleep(pause, signal);
    }
    return 0;
  }

  close(): void {
    process.off("SIGHUP", ignore);
    this.#manager.close();
  }

  /** No program of the installation may start from files of two revisions, and an update that is owed comes first. */
  async #bringInOrder(): Promise<"updated" | "as-before"> {
    const installation = findInstallation(this.#file);
    if (installation === null) return "as-before";
    let isUpdated = false;
    const record = readUpdateRecord(this.#stateDirectory);
    if (record !== null && record.outcome === null) {
      const outcome = await this.#update(installation);
      if (this.#options.signal.aborted && outcome.status !== 0) return "as-before";
      isUpdated = outcome.status === 0;
      writeUpdateRecord(this.#stateDirectory, { ...record, outcome });
    }
    for (let failures = 0; isUpdateUnfinished(installation) && !this.#options.signal.aborted; failures++) {
      const { status, message } = await this.#update(installation);
      if (status === 0 || !isUpdateUnfinished(installation)) break;
      this.#tell(`an interrupted update of ${installation.directory} cannot be finished: ${message}`);
      const pause = Math.min(BACK_OFF_MS.first * 2 ** Math.min(failures, 10), BACK_OFF_MS.max);
      await systemClock.sleep(pause, this.#options.signal);
    }
    return isUpdated && this.#isPartOf(installation) ? "updated" : "as-before";
  }

  /** Whether this very program was installed by what has just been updated. */
  #isPartOf({ directory }: OwnInstallation): boolean {
    const [, script = ""] = process.argv;
    return script.startsWith(`${directory}${sep}`);
  }

  /** Goes on as the new version of itself, as the same process: whoever watches it sees no end. */
  #becomeNew(): void {
    if (this.#options.signal.aborted || typeof process.execve !== "function") return;
    try {
      process.execve(process.execPath, [process.execPath, ...process.execArgv, ...process.argv.slice(1)], {
        ...definedOf(process.env),
        ...(this.#announced ? { [ANNOUNCED]: "1" } : {}),
      });
    } catch (error) {
      this.#tell(`the service's supervisor goes on as the former version: ${String(error)}`);
    }
  }

  #update({ directory }: OwnInstallation): Promise<{ readonly status: number; readonly message: string }> {
    const { hub, tokenFile, caFile } = this.#provider;
    const args = ["update", directory, "--quiet", "--hub", hub];
    if (tokenFile !== null) args.push("--token-file", tokenFile);
    if (caFile !== null) args.push("--ca-file", caFile);
    const [program = process.execPath, ...first] = this.#program;
    this.#cluster.say("updating");
    return new Promise((done) => {
      const child = spawn(program, [...first, ...args], {
        stdio: ["ignore", "ignore", "pipe"],
        env: childEnvironment(this.#options.environment),
        cwd: dirname(this.#file),
      });
      const stop = () => child.kill("SIGTERM");
      this.#options.signal.addEventListener("abort", stop, { once: true });
      let said = "";
      child.stderr.setEncoding("utf8").on("data", (text: string) => {
        said = (said + text).slice(-MESSAGE_CHARACTERS_MAX);
      });
      const finish = (status: number, message: string) => {
        this.#options.signal.removeEventListener("abort", stop);
        done({ status, message: message.trim() });
      };
      child.once("error", (error) => finish(1, `the updater could not be started: ${error.message}`));
      child.once("close", (status, name) =>
        finish(status ?? 1, said === "" ? `the updater ${describeEnd({ status, signal: name })}` : said),
      );
    });
  }

  #runEngine(): Promise<EngineEnd> {
    const { signal, say, environment } = this.#options;
    const [program = process.execPath, ...first] = this.#program;
    return new Promise((done) => {
      const child = spawn(program, [...first, "service", "engine", "--config", this.#file], {
        stdio: ["ignore", "inherit", "inherit", "ipc"],
        env: childEnvironment(environment),
      });
      let isReady = false;
      let told: number | null = null;
      let limit: NodeJS.Timeout | undefined;
      const stop = () => {
        child.kill("SIGTERM");
        if (told !== null) return;
        // It ends by itself long before, unless it hangs.
        limit = setTimeout(() => child.kill("SIGKILL"), this.#drainMs + STOP_GRACE_MS);
      };
      signal.addEventListener("abort", stop, { once: true });
      // Turns of our own, not time: when the whole machine stood still, the engine had none to speak in.
      let silentTurns = 0;
      const watch = setInterval(() => {
        silentTurns += 1;
        if (silentTurns * ALIVE_MS <= HANG_MS) return;
        this.#tell(`the service's engine has said nothing for ${HANG_MS / 1000} s and is ended`);
        child.kill("SIGKILL");
      }, ALIVE_MS);
      child.on("message", (message: FromEngine) => {
        silentTurns = 0;
        if (message.kind === "ended") {
          told = message.status;
          clearTimeout(limit);
          limit = setTimeout(() => child.kill("SIGKILL"), END_MS);
        }
        if (message.kind !== "ready" || isReady) return;
        isReady = true;
        this.#drainMs = message.drainMs;
        this.#manager.ready(message.url ?? "serving");
        if (!signal.aborted) this.#cluster.say("ready");
        if (!this.#announced) say(`ready ${message.url ?? ""}`.trim());
        this.#announced = true;
      });
      const finish = (end: EngineEnd) => {
        clearInterval(watch);
        clearTimeout(limit);
        signal.removeEventListener("abort", stop);
        done(end);
      };
      child.once("error", (error) => {
        this.#tell(`the service's engine could not be started: ${error.message}`);
        finish({ status: 1, signal: null });
      });
      child.once("exit", (status, name) =>
        finish(told === null ? { status, signal: name } : { status: told, signal: null }),
      );
      if (signal.aborted) stop();
    });
  }

  #tell(message: string): void {
    createSystemLog({ environment: this.#options.environment, stderr: process.stderr }).warning(message);
  }
}

/** The engine follows its configuration by itself; a hang-up must not end us. */
const ignore = () => {};

interface EngineEnd {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
}

const describeEnd = ({ status, signal }: EngineEnd) =>
  signal === null ? `ended with status ${status}` : `was ended by ${signal}`;

/** The words with which this very program was started, up to its own arguments. */
export function ownProgram(): readonly string[] {
  const [, script] = process.argv;
  return [process.execPath, ...process.execArgv, ...(script === undefined ? [] : [script])];
}

const definedOf = (environment: NodeJS.ProcessEnv): Record<string, string> =>
  Object.fromEntries(
    Object.entries(environment).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  );

/** Our words to the service manager are not for children. */
function childEnvironment(environment: Readonly<Record<string, string | undefined>>): NodeJS.ProcessEnv {
  const {
    [ANNOUNCED]: _announced,
    NOTIFY_SOCKET: _socket,
    WATCHDOG_USEC: _usec,
    WATCHDOG_PID: _pid,
    [CLUSTER_ENVIRONMENT.word]: _word,
    ...rest
  } = environment;
  return rest;
}

/** For the command that is the engine: serves until SIGTERM, and speaks to the supervisor above it. */
export async function runEngineProcess(options: {
  readonly configFile: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly version: string;
}): Promise<number> {
  if (process.send === undefined)
    throw new LockstepError("USAGE", "the engine is started by the job service alone", {
      hint: "Start the service: lockstep service run --config FILE.",
    });
  const stop = new AbortController();
  const drain = () => stop.abort();
  process
    .on("SIGTERM", drain)
    .on("SIGINT", drain)
    .on("disconnect", drain)
    .on("SIGHUP", () => {});
  const say = (message: FromEngine) => process.send?.(message, () => {});
  setInterval(() => say({ kind: "alive" }), ALIVE_MS).unref();
  try {
    const { runEngine } = await import("./engine.ts");
    const status = await runEngine({
      configFile: options.configFile,
      environment: options.environment,
      program: [...ownProgram(), "service"],
      version: options.version,
      signal: stop.signal,
      onReady: (url, drainMs) => say({ kind: "ready", url, drainMs }),
    });
    await new Promise<void>((said) => {
      process.send?.({ kind: "ended", status } satisfies FromEngine, () => said());
    });
    // What a step left running inside us must not keep us.
    process.exit(status);
  } catch (error) {
    // The channel would keep this process, which has nothing to serve.
    process.off("disconnect", drain);
    process.disconnect?.();
    throw error;
  }
}

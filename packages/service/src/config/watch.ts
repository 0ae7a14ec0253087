import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { type Clock, hostName, systemClock } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import type { ConfigState } from "../status/types.ts";
import { buildConfig } from "./build.ts";
import { configInvalid, type Environment, formatPlace, formatProblem, readConfigFile } from "./load.ts";
import { mergeValues } from "./merge.ts";
import type { ConfigValues } from "./parameters.ts";
import type { ConfigFault, ServiceConfig } from "./types.ts";

export interface ConfigWatchOptions {
  readonly file: string;
  readonly environment: Environment;
  /** Called with the configuration in force after the file has changed, and with the keys that wait for a restart. */
  readonly onChange: (config: ServiceConfig, awaitingRestart: readonly string[]) => void;
  /** Called when the changed file has faults; the former configuration stays in force. */
  readonly onRefused: (faults: readonly string[]) => void;
  readonly clock?: Clock;
  readonly intervalMs?: number;
}

/** The configuration of a running service, which follows its file. */
export interface ConfigWatch {
  /** In force now. */
  config(): ServiceConfig;
  /** Faults of the file as it was at the start that are no errors. */
  readonly warnings: readonly ConfigFault[];
  /** For the status page. */
  state(): ConfigState;
  stop(): Promise<void>;
}

const INTERVAL_MS = 2000;

/**
 * Reads the configuration and follows its file. The file is looked at every two seconds, by its times and size: that
 * works on every file system, also on shared ones, where notices of the system do not.
 *
 * Throws SERVICE_CONFIG_UNREADABLE, SERVICE_CONFIG_INVALID for the file as it is at the start.
 */
export async function watchServiceConfig(options: ConfigWatchOptions): Promise<ConfigWatch> {
  const file = resolve(options.file);
  const mark = await markOf(file);
  const { config, values, faults } = await readConfigFile(file, options.environment);
  if (config === null || values === null) throw configInvalid(file, faults);
  return new FileWatch({ ...options, file }, values, config, faults, mark);
}

class FileWatch implements ConfigWatch {
  readonly warnings: readonly ConfigFault[];
  readonly #options: ConfigWatchOptions;
  readonly #clock: Clock;
  readonly #stopped = new AbortController();
  readonly #watching: Promise<void>;
  #values: ConfigValues;
  #config: ServiceConfig;
  #mark: string;
  #loadedAtMs: number;
  #awaitingRestart: readonly string[] = [];
  #refused: readonly string[] = [];

  constructor(
    options: ConfigWatchOptions,
    values: ConfigValues,
    config: ServiceConfig,
    faults: readonly ConfigFault[],
    mark: string,
  ) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#values = values;
    this.#config = config;
    this.warnings = faults;
    this.#mark = mark;
    this.#loadedAtMs = this.#clock.now();
    this.#watching = this.#watch();
  }

  config(): ServiceConfig {
    return this.#config;
  }

  state(): ConfigState {
    return {
      file: this.#options.file,
      loadedAtMs: this.#loadedAtMs,
      awaitingRestart: this.#awaitingRestart,
      refused: this.#refused,
    };
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#watching;
  }

  async #watch(): Promise<void> {
    const { signal } = this.#stopped;
    let last = this.#mark;
    while (!signal.aborted) {
      await this.#clock.sleep(this.#options.intervalMs ?? INTERVAL_MS, signal);
      if (signal.aborted) return;
      const mark = await markOf(this.#options.file);
      // Somebody may be writing: what is read must have been the same twice.
      if (mark !== this.#mark && mark === last) {
        this.#mark = mark;
        await this.#read();
      }
      last = mark;
    }
  }

  async #read(): Promise<void> {
    const { file, environment, onChange, onRefused } = this.#options;
    try {
      const { config, values, faults } = await readConfigFile(file, environment);
      if (config === null || values === null) {
        const errors = faults.filter(({ severity }) => severity === "error");
        this.#refused = errors.map((fault) => `${formatPlace(file, fault)}: ${formatProblem(fault)}`);
        onRefused(this.#refused);
        return;
      }
      const merged = mergeValues(this.#values, values);
      this.#values = merged.values;
      this.#awaitingRestart = merged.awaitingRestart;
      this.#config = buildConfig(file, merged.values, hostName());
      this.#refused = [];
      this.#loadedAtMs = this.#clock.now();
      onChange(this.#config, this.#awaitingRestart);
    } catch (error) {
      if (!isLockstepError(error)) throw error;
      this.#refused = [`${error.message}: ${error.found ?? error.code}`];
      onRefused(this.#refused);
    }
  }
}

async function markOf(file: string): Promise<string> {
  try {
    const { mtimeNs, size, ino } = await stat(file, { bigint: true });
    return `${mtimeNs}:${size}:${ino}`;
  } catch {
    return "none";
  }
}

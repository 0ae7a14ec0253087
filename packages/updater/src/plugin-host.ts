import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { pathToFileURL } from "node:url";
import {
  isUpdatePlugin,
  LockstepError,
  parseUpdateArchive,
  UPDATE_DESCRIPTION_PART,
} from "@lockstep/protocol/wire";
import type { InstallationPaths } from "./layout.ts";
import {
  type Confinement,
  confinedEnvironment,
  findConfinement,
  inConfinement,
} from "./plugin-confinement.ts";
import type { UpdateLog } from "./update-log.ts";

/**
 * Update plug-ins (S23): programs that modules contribute to the update, one file `*.update.mjs` each, out of Update.zip.
 *
 * A plug-in exports any of four functions. `prepare` runs first and may migrate the installation's choice of roles and
 * packages. `beforeSwitch` runs when everything new is staged and nothing has changed; here a service is stopped.
 * `afterSwitch` runs when the files are switched, and again, with another `outcome`, when they were taken back or were
 * never switched after all: whoever stopped something in `beforeSwitch` starts it there. `probe` says whether the new
 * files hold. A step that throws, answers false or takes too long stops the update before the switch, or takes it back
 * after it. Each step may be called more than once.
 *
 * Each step runs in a process of its own with a clean environment: a handful of system variables, nothing of ours, no
 * credentials, and behind walls where the system has some (plugin-confinement.ts); where it has none, update.log says so
 * beside each step. What it prints goes to update.log. A process that takes too long is killed with all its children.
 */
export type PluginStep = "prepare" | "beforeSwitch" | "afterSwitch" | "probe";
export type SwitchOutcome = "switched" | "rolled-back" | "not-switched";

export interface PluginContext {
  readonly from: number | null;
  readonly to: number;
  readonly roles: readonly string[];
  readonly packages: readonly string[];
}

/** What `prepare` may answer: the choice as it shall be from now on. */
export interface Migration {
  readonly roles?: readonly string[];
  readonly packages?: readonly string[];
}

export const PLUGIN_TIMEOUT_MS = 120_000;
const OUTPUT_CHARACTERS_MAX = 4000;
/** How long output is waited for when the process has ended. */
const LAST_OUTPUT_MS = 200;
/** What programs need to run at all; everything else of our environment stays here. */
const ENVIRONMENT_KEPT = [
  "PATH",
  "HOME",
  "LANG",
  "LC_ALL",
  "TZ",
  "TMPDIR",
  "TEMP",
  "TMP",
  "USER",
  "LOGNAME",
  "SystemRoot",
  "ComSpec",
  "PATHEXT",
  "windir",
  "XDG_RUNTIME_DIR",
  "DBUS_SESSION_BUS_ADDRESS",
];

interface StepAnswer {
  readonly kind: "done" | "absent" | "failed";
  readonly value?: unknown;
  readonly message?: string;
}

export class PluginHost {
  readonly #paths: InstallationPaths;
  readonly #directory: string;
  readonly #log: UpdateLog;
  readonly #timeoutMs: number;
  /** Paths in the archive, in order. */
  readonly plugins: readonly string[];
  #confinement: Promise<Confinement> | null = null;

  private constructor(
    paths: InstallationPaths,
    directory: string,
    plugins: readonly string[],
    log: UpdateLog,
    timeoutMs: number,
  ) {
    this.#paths = paths;
    this.#directory = directory;
    this.plugins = plugins;
    this.#log = log;
    this.#timeoutMs = timeoutMs;
  }

  /** The plug-ins of an unpacked archive; null when it is not there (any more). */
  static open(
    paths: InstallationPaths,
    directory: string,
    log: UpdateLog,
    timeoutMs: number = PLUGIN_TIMEOUT_MS,
  ): PluginHost | null {
    const description = join(directory, UPDATE_DESCRIPTION_PART);
    if (!existsSync(description)) return null;
    const { parts } = parseUpdateArchive(readFileSync(description, "utf8"));
    const plugins = parts.map((part) => part.path).filter(isUpdatePlugin);
    return new PluginHost(paths, directory, plugins, log, timeoutMs);
  }

  /** Runs `prepare` of all. Returns what the last ones that said something want. Throws PLUGIN_FAILED. */
  async prepare(context: PluginContext): Promise<Migration> {
    let roles = context.roles;
    let packages = context.packages;
    for (const plugin of this.plugins) {
      const answer = await this.#demand(plugin, "prepare", { ...context, roles, packages });
      const migration = readMigration(plugin, answer);
      roles = migration.roles ?? roles;
      packages = migration.packages ?? packages;
    }
    return { roles, packages };
  }

  /**
   * Runs `beforeSwitch` of all. When one fails, those that ran before are told that nothing was switched, and
   * PLUGIN_FAILED is thrown.
   */
  async beforeSwitch(context: PluginContext): Promise<void> {
    for (const [index, plugin] of this.plugins.entries()) {
      try {
        await this.#demand(plugin, "beforeSwitch", context);
      } catch (error) {
        await this.afterSwitchQuietly(context, "not-switched", this.plugins.slice(0, index + 1));
        throw error;
      }
    }
  }

  /** Runs `afterSwitch`, then `probe` of all. Throws PLUGIN_FAILED, PROBE_FAILED. */
  async afterSwitch(context: PluginContext, outcome: SwitchOutcome): Promise<void> {
    for (const plugin of this.plugins) await this.#demand(plugin, "afterSwitch", { ...context, outcome });
    for (const plugin of this.plugins) await this.#demand(plugin, "probe", context);
  }

  /** Tells all that the files are the former ones. What fails here is noted and stops nobody. */
  async afterSwitchQuietly(
    context: PluginContext,
    outcome: SwitchOutcome,
    plugins: readonly string[] = this.plugins,
  ): Promise<void> {
    for (const plugin of plugins) {
      try {
        await this.#demand(plugin, "afterSwitch", { ...context, outcome });
      } catch {
        // It stands in update.log.
      }
    }
  }

  async #demand(plugin: string, step: PluginStep, context: object): Promise<unknown> {
    this.#confinement ??= findConfinement(this.#paths, this.#directory, process.env);
    const confinement = await this.#confinement;
    const { answer, output } = await this.#run(plugin, step, context, confinement);
    if (answer.kind === "absent") return undefined;
    const refused = answer.kind === "done" && step !== "prepare" && answer.value === false;
    const problem =
      answer.kind === "failed" ? (answer.message ?? "it failed") : refused ? "it answered no" : null;
    this.#log.note("plugin", plugin, problem === null ? "ok" : "failed", problem, {
      step,
      confined: confinement.kind === "confined" ? true : `no: ${confinement.reason}`,
      output: output === "" ? undefined : output,
    });
    if (problem === null) return answer.value;
    throw new LockstepError(
      step === "probe" ? "PROBE_FAILED" : "PLUGIN_FAILED",
      `the update plug-in ${basename(plugin)} failed in ${step}: ${problem}`,
      {
        expected: "a step that succeeds",
        found: problem,
        hint: "The installation is at its former revision. What the plug-in printed stands in update.log; its vendor can say more.",
      },
    );
  }

  async #run(
    plugin: string,
    step: PluginStep,
    context: object,
    confinement: Confinement,
  ): Promise<{ answer: StepAnswer; output: string }> {
    const environment = cleanEnvironment(process.env);
    const request = (root: string, directory: string) => ({
      file: join(directory, plugin),
      step,
      context: { ...context, step, installation: root },
      timeoutMs: this.#timeoutMs,
    });
    if (confinement.kind === "confined") {
      const { prefix, places } = confinement;
      const confined = { prefix, cwd: "/", environment: confinedEnvironment(environment) };
      return await inConfinement(this.#paths, () =>
        runStep({ ...request(places.installation, places.archive), ...confined }),
      );
    }
    if (confinement.refused) {
      const message = `it may run confined alone, which is not possible here: ${confinement.reason}`;
      return { answer: { kind: "failed", message }, output: "" };
    }
    const { root } = this.#paths;
    return await runStep({ ...request(root, this.#directory), prefix: [], cwd: root, environment });
  }
}

function readMigration(plugin: string, answer: unknown): Migration {
  if (answer === undefined || answer === null || answer === true) return {};
  const isNames = (value: unknown) =>
    value === undefined || (Array.isArray(value) && value.every((name) => typeof name === "string"));
  const { roles, packages } = answer as { roles?: unknown; packages?: unknown };
  if (typeof answer !== "object" || !isNames(roles) || !isNames(packages))
    throw new LockstepError(
      "PLUGIN_FAILED",
      `the update plug-in ${basename(plugin)} gave an unusable answer`,
      {
        expected: "{ roles, packages } as lists of names, or nothing",
        found: JSON.stringify(answer)?.slice(0, 200) ?? typeof answer,
        hint: "Nothing was changed. Its vendor can correct it.",
      },
    );
  return answer as Migration;
}

interface StepRequest {
  readonly file: string;
  readonly step: PluginStep;
  readonly context: object;
  /** What it is started by: program and arguments that end with running what follows. */
  readonly prefix: readonly string[];
  readonly cwd: string;
  readonly environment: NodeJS.ProcessEnv;
  readonly timeoutMs: number;
}

/** Runs one step in a process of its own. Never throws: what goes wrong is the answer. */
async function runStep(request: StepRequest): Promise<{ answer: StepAnswer; output: string }> {
  // As text, because the updater ships as one file and a plug-in must not see what is loaded in it.
  const source = `(${serveStep.toString()})()`;
  const [program = process.execPath, ...args] = [
    ...request.prefix,
    ...[process.execPath, "--input-type=module", "--eval", source],
  ];
  let child: ChildProcess;
  try {
    child = spawn(program, args, {
      cwd: request.cwd,
      env: request.environment,
      stdio: ["ignore", "pipe", "pipe", "ipc"],
      // A group of its own, so that its children can be ended with it.
      detached: process.platform !== "win32",
    });
  } catch (error) {
    return { answer: notStarted(error), output: "" };
  }
  let output = "";
  const collect = (text: string) => {
    output = (output + text).slice(-OUTPUT_CHARACTERS_MAX);
  };
  child.stdout?.setEncoding("utf8").on("data", collect);
  child.stderr?.setEncoding("utf8").on("data", collect);
  let timer: NodeJS.Timeout | undefined;
  const answer = await new Promise<StepAnswer>((resolve) => {
    let said: StepAnswer | null = null;
    timer = setTimeout(() => {
      said = { kind: "failed", message: `it took longer than ${request.timeoutMs / 1000} s` };
      endGroup(child.pid);
    }, request.timeoutMs);
    child.on("message", (message) => {
      said ??= message as StepAnswer;
    });
    child.once("error", (error) => resolve(notStarted(error)));
    child.once("exit", (code, signal) => {
      const answer: StepAnswer = said ?? {
        kind: "failed",
        message: `it ended without an answer (${signal ?? `status ${code}`})`,
      };
      // A service that the step started may hold its output open for ever.
      const lastOutput = setTimeout(resolve, LAST_OUTPUT_MS, answer);
      child.once("close", () => {
        clearTimeout(lastOutput);
        resolve(answer);
      });
    });
    // Without a channel it was not started, and "error" says why.
    if (child.channel != null)
      child.send(
        { url: pathToFileURL(request.file).href, step: request.step, context: request.context },
        () => {
          // A process that is gone already says so by its end.
        },
      );
  });
  clearTimeout(timer);
  child.stdout?.destroy();
  child.stderr?.destroy();
  return { answer, output: output.trim() };
}

function notStarted(error: unknown): StepAnswer {
  return {
    kind: "failed",
    message: `it could not be started: ${error instanceof Error ? error.message : String(error)}`,
  };
}

/** Runs in the process of a step, from its text alone. */
function serveStep(): void {
  process.once("message", async ({ url, step, context }: { url: string; step: string; context: object }) => {
    // The answer is the end of the step: what it left running in its process ends with it.
    const answer = (message: object) => process.send?.(message, () => process.exit(0));
    try {
      const plugin = (await import(url)) as Record<string, unknown>;
      const run = plugin[step];
      if (typeof run !== "function") answer({ kind: "absent" });
      else answer({ kind: "done", value: await run(context) });
    } catch (error) {
      answer({ kind: "failed", message: String(error instanceof Error ? error.message : error) });
    }
  });
}

/** The environment of a plug-in. */
export function cleanEnvironment(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(
    ENVIRONMENT_KEPT.flatMap((name) => (environment[name] === undefined ? [] : [[name, environment[name]]])),
  );
}

/** Ends a process with its whole group, where it has one of its own. */
export function endGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(process.platform === "win32" ? pid : -pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}

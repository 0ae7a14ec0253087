import { stat, writeFile } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import { LockstepError } from "@lockstep/protocol/wire";
import { SERVICE_VARIABLE, WORKER_VARIABLE } from "../worker/marked-processes.ts";
import { extractPattern, patternProblem } from "./extract-pattern.ts";
import { type ProgramEnd, runProgram } from "./program.ts";
import { defineTask, permanentError } from "./task.ts";
import type { Component, ParameterValues, TaskContext, TaskResult } from "./types.ts";

/**
 * Programs and scripts. A program gets its arguments as a list, and no shell ever reads them, so a value of a process
 * can be no command. It gets an environment of its own instead of the service's, which may hold the hub's token.
 */
const INHERITED =
  process.platform === "win32"
    ? [
        "PATH",
        "PATHEXT",
        "SystemRoot",
        "windir",
        "ComSpec",
        "TEMP",
        "TMP",
        "USERPROFILE",
        "ProgramFiles",
        "ProgramData",
      ]
    : ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ"];
const OUTPUT_BYTES_DEFAULT = 64 * 1024;
const OUTPUT_BYTES_MAX = 4 * 1024 * 1024;
/** How much of what a failed program said last goes into the message of its step. */
const MESSAGE_CHARACTERS = 2_000;

const SHARED = {
  arguments: { type: "texts", default: [], description: "Its arguments, each one as it is." },
  directory: {
    type: "text",
    check: absolute,
    description: "Where it runs; an absolute path. Without it: the step's private directory.",
  },
  environment: {
    type: "map",
    default: {},
    check: environmentProblem,
    description: "Variables for it, beside the few that every program needs.",
  },
  passEnvironment: {
    type: "texts",
    default: [],
    check: passProblem,
    description: "Names of variables of the service that it gets as well.",
  },
  input: { type: "text", description: "What it reads on standard input. Without it: nothing." },
  expectedExitCodes: {
    type: "list",
    default: [0],
    check: exitCodeProblem,
    description: "Exit codes that are a success.",
  },
  permanentExitCodes: {
    type: "list",
    default: [],
    check: exitCodeProblem,
    description: "Exit codes after which another try does not help.",
  },
  result: {
    type: "text",
    choices: ["none", "text", "json", "pattern"],
    default: "none",
    description:
      "What its standard output gives to later steps: nothing; the text as `stdout`; the members of a JSON object; the named groups of `pattern`.",
  },
  pattern: {
    type: "text",
    check: (value: unknown) => patternProblem(String(value)),
    description: "With `result: pattern`: a regular expression with named groups, such as `id=(?<id>\\d+)`.",
  },
  outputBytes: {
    type: "integer",
    minimum: 0,
    maximum: OUTPUT_BYTES_MAX,
    default: OUTPUT_BYTES_DEFAULT,
    description: "How much of standard output and of standard error is kept each: the beginning and the end.",
  },
} as const;

type Shared = ParameterValues<typeof SHARED>;

export const component: Component = {
  name: "Command",
  tasks: {
    Run: defineTask({
      execution: "either",
      description: "Runs a program with a list of arguments, without a shell.",
      parameters: {
        program: {
          type: "text",
          required: true,
          check: (value) => (value === "" ? "must not be empty" : null),
          description: "A path, or a name that is looked up in PATH.",
        },
        ...SHARED,
      },
      run: (context) => execute(context, context.parameters.program, context.parameters.arguments),
    }),
    Script: defineTask({
      execution: "either",
      description: "Runs a script by a shell that the step names.",
      parameters: {
        shell: {
          type: "text",
          required: true,
          choices: ["sh", "bash", "pwsh", "node"],
          description: "What reads the script. `node` takes it as an ES module.",
        },
        script: {
          type: "text",
          required: true,
          description:
            "The text of the script. It is written into a file of the step's private directory; values belong into `arguments` or `environment`, not into the text.",
        },
        ...SHARED,
      },
      run: async (context) => {
        const { shell, script } = context.parameters;
        const [program, before, name] = SHELLS[shell];
        const file = join(context.directory, name);
        await writeFile(file, script, { mode: 0o600, flag: "wx" });
        return await execute(context, program, [...before, file, ...context.parameters.arguments]);
      },
    }),
  },
};

/** Program, what stands before the file, and the file's name. */
const SHELLS: Readonly<
  Record<"sh" | "bash" | "pwsh" | "node", readonly [string, readonly string[], string]>
> = {
  sh: ["sh", [], "script.sh"],
  bash: ["bash", ["--noprofile", "--norc"], "script.sh"],
  pwsh: ["pwsh", ["-NoProfile", "-NonInteractive", "-File"], "script.ps1"],
  node: [process.execPath, [], "script.mjs"],
};

async function execute(
  context: TaskContext<Shared>,
  program: string,
  args: readonly string[],
): Promise<TaskResult> {
  const { parameters, log, mask, signal } = context;
  if (parameters.result === "pattern" && parameters.pattern === undefined)
    return permanentError("result: pattern needs the parameter pattern");
  const directory = parameters.directory ?? context.directory;
  if (!(await isDirectory(directory)))
    return permanentError(`the directory ${directory} does not exist, or is none`);
  const end = await run(context, program, args, directory);
  if ("kind" in end) return end;
  const [stdout, stderr] = [end.stdout.text(mask), end.stderr.text(mask)];
  if (stdout.trim() !== "") log.info(`standard output:\n${stdout.trimEnd()}`);
  if (stderr.trim() !== "") log.warn(`standard error:\n${stderr.trimEnd()}`);
  signal.throwIfAborted();
  const how = end.status === null ? `was ended by ${end.signal}` : `ended with status ${end.status}`;
  if (end.status === null || !parameters.expectedExitCodes.includes(end.status)) {
    const said = end.stderr.ending(MESSAGE_CHARACTERS, mask) || end.stdout.ending(MESSAGE_CHARACTERS, mask);
    return {
      kind: "error",
      message: `${program} ${how}, expected ${parameters.expectedExitCodes.join(" or ")}${said === "" ? "" : `: ${said}`}`,
      permanent: parameters.permanentExitCodes.includes(end.status),
      output: { exitCode: end.status },
    };
  }
  const found = readResult(parameters, end);
  return typeof found === "string"
    ? { kind: "error", message: `${program} ${how}, but ${found}`, output: { exitCode: end.status } }
    : { kind: "success", message: how, output: { ...found, exitCode: end.status } };
}

async function run(
  { parameters, step, service, environment, signal, directory: own }: TaskContext<Shared>,
  program: string,
  args: readonly string[],
  directory: string,
): Promise<ProgramEnd | TaskResult> {
  try {
    return await runProgram({
      program,
      arguments: args,
      directory,
      environment: {
        ...inherited([...INHERITED, ...parameters.passEnvironment]),
        ...(process.platform === "win32" ? {} : { TMPDIR: own }),
        ...environment,
        ...parameters.environment,
        LOCKSTEP_IDEMPOTENCY_KEY: step.idempotencyKey,
        LOCKSTEP_STEP: String(step.id),
        LOCKSTEP_QUEUE: service.queue,
        LOCKSTEP_DIRECTORY: own,
        // The marks by which the service finds what came from it, wherever it went.
        ...inherited([WORKER_VARIABLE, SERVICE_VARIABLE]),
      },
      input: parameters.input ?? null,
      signal,
      outputBytesMax: parameters.outputBytes,
    });
  } catch (error) {
    if (error instanceof LockstepError && error.code === "PROGRAM_NOT_STARTED")
      return permanentError(`${error.code}: ${error.message}`);
    throw error;
  }
}

function inherited(names: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    names.flatMap((name) => {
      const value = process.env[name];
      return value === undefined ? [] : [[name, value]];
    }),
  );
}

/** The output parameters, or why there are none. */
function readResult(parameters: Shared, { stdout }: ProgramEnd): Record<string, unknown> | string {
  if (parameters.result === "none") return {};
  const text = stdout.whole();
  if (text === null)
    return `its output of ${stdout.totalBytes} bytes is larger than outputBytes (${parameters.outputBytes})`;
  if (parameters.result === "text") return { stdout: text.replace(/\r?\n$/, "") };
  if (parameters.result === "pattern") return extractPattern(parameters.pattern ?? "", text);
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? { ...value }
      : "its output is JSON, but not an object";
  } catch {
    return "its output is not JSON";
  }
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch {
    return false;
  }
}

function absolute(value: unknown): string | null {
  return isAbsolute(String(value)) ? null : "must be an absolute path";
}

function environmentProblem(value: unknown): string | null {
  const entries = Object.entries(value as Record<string, string>);
  const bad = entries.find(([name, text]) => name === "" || /[=\0]/.test(name) || text.includes("\0"));
  if (bad !== undefined) return "must hold names without = and NUL";
  const own = entries.find(([name]) => /^LOCKSTEP_/i.test(name));
  return own === undefined
    ? null
    : `must not set ${own[0]}; names that begin with LOCKSTEP_ are the service's`;
}

function passProblem(value: unknown): string | null {
  const own = (value as readonly string[]).find((name) => /^LOCKSTEP_/i.test(name));
  return own === undefined ? null : `must not name ${own}; what begins with LOCKSTEP_ stays in the service`;
}

function exitCodeProblem(value: unknown): string | null {
  return (value as readonly unknown[]).every((code) => Number.isInteger(code))
    ? null
    : "must be a list of whole numbers";
}

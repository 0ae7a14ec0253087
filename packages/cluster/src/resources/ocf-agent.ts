import { join } from "node:path";
import { BARE_ENVIRONMENT, type BoundedOptions, type CommandEnd, runBounded } from "./bounded-command.ts";
import { advisedMs, type OcfMetadata, parseOcfMetadata } from "./ocf-metadata.ts";
import type { OcfSettings } from "./ocf-settings.ts";

export type OcfActionName = "start" | "stop" | "monitor" | "validate-all" | "meta-data";

/** What the exit codes of an agent mean, by the standard. */
const CODES: Readonly<Record<number, string>> = {
  0: "it runs",
  1: "generic error",
  2: "a parameter is wrong",
  3: "the agent does not know this action",
  4: "no permission",
  5: "what it needs is not installed here",
  6: "it is configured wrong",
  7: "it does not run",
  8: "it runs, promoted",
  9: "it was promoted and has failed",
  190: "it runs, and will fail soon",
  191: "it runs promoted, and will fail soon",
};

export interface OcfOutcome {
  readonly code: number | null;
  readonly hasTimedOut: boolean;
  readonly output: string;
  /** In one line: the action, what the code means, and what the agent said. */
  readonly text: string;
}

export interface OcfRunOptions extends Pick<BoundedOptions, "busy" | "calledOff"> {
  readonly checkLevel?: number;
}

const METADATA_MS = 20_000;
const ACTION_MS = 20_000;

/** One agent with its parameters, under one name. Every call ends within its time. */
export class OcfAgent {
  readonly path: string;
  readonly #settings: OcfSettings;
  readonly #instance: string;

  constructor(settings: OcfSettings, instance: string) {
    this.#settings = settings;
    this.#instance = instance;
    this.path = join(settings.root, "resource.d", settings.provider, settings.type);
  }

  /** What an action sees: nothing of the daemon's own surroundings. */
  environment(limitMs: number, checkLevel = 0): Readonly<Record<string, string>> {
    const { root, provider, type, parameters } = this.#settings;
    return {
      ...BARE_ENVIRONMENT,
      OCF_ROOT: root,
      OCF_RA_VERSION_MAJOR: "1",
      OCF_RA_VERSION_MINOR: "1",
      OCF_RESOURCE_INSTANCE: this.#instance,
      OCF_RESOURCE_PROVIDER: provider,
      OCF_RESOURCE_TYPE: type,
      OCF_CHECK_LEVEL: String(checkLevel),
      OCF_RESKEY_CRM_meta_timeout: String(limitMs),
      ...Object.fromEntries([...parameters].map(([name, value]) => [`OCF_RESKEY_${name}`, value])),
    };
  }

  limitMs(action: OcfActionName, metadata: OcfMetadata | null, depth = 0): number {
    const { startMs, stopMs, monitorMs } = this.#settings;
    const own =
      action === "start" ? startMs : action === "stop" ? stopMs : action === "monitor" ? monitorMs : null;
    return own ?? advisedMs(metadata, action, depth) ?? ACTION_MS;
  }

  async run(
    action: OcfActionName,
    limitMs: number,
    { checkLevel = 0, ...options }: OcfRunOptions = {},
  ): Promise<OcfOutcome> {
    const end = await runBounded(this.path, [action], {
      limitMs,
      environment: this.environment(limitMs, checkLevel),
      ...options,
    });
    return {
      code: end.status,
      hasTimedOut: end.hasTimedOut,
      output: end.output,
      text: describe(action, end, limitMs),
    };
  }

  /** Null: it does not describe itself; `problem` says why. */
  async metadata(): Promise<{ readonly metadata: OcfMetadata | null; readonly problem: string }> {
    const { output, code, text } = await this.run("meta-data", METADATA_MS);
    const metadata = code === 0 ? parseOcfMetadata(output) : null;
    const problem = code === 0 ? "meta-data printed no description of a resource agent" : text;
    return { metadata, problem: metadata === null ? `${this.path}: ${problem}` : "" };
  }
}

function describe(
  action: string,
  { status, hasTimedOut, output, errorOutput }: CommandEnd,
  limitMs: number,
): string {
  if (hasTimedOut)
    return `${action} did not come back within ${limitMs} ms and was killed with all it had started`;
  const meaning =
    status === null ? "it was ended" : (CODES[status] ?? "a code that the standard does not have");
  // A description of itself is no news.
  const said = action === "meta-data" ? errorOutput : `${output}\n${errorOutput}`;
  const text = said
    .trim()
    .replace(/\s*\n\s*/g, "; ")
    .slice(-SAID_LENGTH_MAX);
  return `${action} ended with ${status ?? "a signal"} (${meaning})${text === "" ? "" : `: ${text}`}`;
}

const SAID_LENGTH_MAX = 2_000;

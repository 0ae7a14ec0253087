import type { ResourceDefinition } from "@lockstep/core";
import { OcfAgent, type OcfOutcome } from "./ocf-agent.ts";
import { deepestMonitor, findParameterFaults, type OcfMetadata } from "./ocf-metadata.ts";
import { type OcfSettings, readOcfSettings } from "./ocf-settings.ts";
import type { Resource, ResourceContext, UndoCommand } from "./resource.ts";
import { refuseFaults, resourceFailed } from "./setting-reader.ts";
import { untilGone } from "./until-gone.ts";

/**
 * Anything that somebody has written an OCF resource agent for. The agent is asked as Pacemaker would ask it, with every
 * action in a process group that is killed at the end of its time.
 *
 * An agent's word is checked by its own monitor: it runs after `start`, and does not after `stop`. Of a promotable agent
 * both roles count as running; promotion itself is not done.
 */
const RUNS: readonly (number | null)[] = [0, 8, 190, 191];
const RUNS_BADLY: readonly (number | null)[] = [190, 191];
/** Does not run; or cannot, because there is nothing here that could. */
const RUNS_NOT: readonly (number | null)[] = [7, 5];

/** Throws RESOURCE_SETTINGS. */
export function openOcf(context: ResourceContext): Resource {
  const { settings, faults } = readOcfSettings(context.definition.settings);
  refuseFaults(context.definition, faults);
  return new OcfResource(context, settings);
}

/**
 * What is wrong with the settings of an `ocf` resource as the agent on this machine sees them: `faults` by its own
 * description of its parameters, `refusal` what it found in `validate-all`; null: nothing. For the moment of definition and
 * for checks; takes as long as the agent does, and starts nothing.
 */
export async function askOcf(
  settings: ResourceDefinition["settings"],
): Promise<{ readonly faults: readonly string[]; readonly refusal: string | null }> {
  const { settings: read, faults } = readOcfSettings(settings);
  if (faults.length > 0) return { faults, refusal: null };
  const agent = new OcfAgent(read, "lockstep-examined");
  const { metadata, problem } = await agent.metadata();
  if (metadata === null) return { faults: [`agent: ${problem}`], refusal: null };
  const parameterFaults = findParameterFaults(metadata, read.parameters);
  if (parameterFaults.length > 0 || !metadata.actions.some(({ name }) => name === "validate-all"))
    return { faults: parameterFaults, refusal: null };
  const { code, text } = await agent.run("validate-all", agent.limitMs("validate-all", metadata));
  return { faults: [], refusal: code === 0 ? null : `parameters: ${text}` };
}

class OcfResource implements Resource {
  readonly undo: readonly UndoCommand[];
  readonly isExclusive = true;
  readonly #context: ResourceContext;
  readonly #settings: OcfSettings;
  readonly #agent: OcfAgent;
  /** Asked for at once, so that a move does not wait for it. */
  #description: ReturnType<OcfAgent["metadata"]>;
  #isWarned = false;

  constructor(context: ResourceContext, settings: OcfSettings) {
    this.#context = context;
    this.#settings = settings;
    this.#agent = new OcfAgent(settings, `${context.virtualServer}-${context.definition.name}`);
    this.#description = this.#agent.metadata();
    const environment = Object.entries(this.#agent.environment(this.#agent.limitMs("stop", null)));
    this.undo = [
      [
        "/usr/bin/env",
        "-i",
        ...environment.map(([name, value]) => `${name}=${value}`),
        this.#agent.path,
        "stop",
      ],
    ];
  }

  async online(busy: () => void, calledOff: AbortSignal): Promise<void> {
    const { metadata, problem } = await this.#describe();
    if (metadata === null) throw this.#failed(problem);
    const faults = findParameterFaults(metadata, this.#settings.parameters);
    if (faults.length > 0) throw this.#failed(faults.join("; "));
    if (this.#context.token() === null) throw this.#failed("the lease ended before it was started");
    const start = await this.#agent.run("start", this.#agent.limitMs("start", metadata), { busy, calledOff });
    if (start.code !== 0) throw this.#failed(start.text);
    const found = await this.#monitor(metadata, 0);
    if (!RUNS.includes(found.code)) throw this.#failed(`start succeeded, but ${found.text}`);
  }

  async offline(busy: () => void): Promise<void> {
    const problem = await this.#stop(busy);
    if (problem !== null) throw this.#failed(problem);
  }

  async check(isThorough: boolean): Promise<string | null> {
    const { metadata } = await this.#describe();
    const level = isThorough ? (this.#settings.checkLevel ?? deepestMonitor(metadata)) : 0;
    const found = await this.#monitor(metadata, level);
    if (!RUNS.includes(found.code)) return found.text;
    if (RUNS_BADLY.includes(found.code) && !this.#isWarned) this.#context.note("degraded", found.text);
    this.#isWarned = RUNS_BADLY.includes(found.code);
    return null;
  }

  async terminate(): Promise<void> {
    await untilGone(
      async () => {
        const { metadata } = await this.#describe();
        // Where the agent is missing nothing of it can run.
        if (metadata === null) return null;
        const found = await this.#monitor(metadata, 0);
        return RUNS_NOT.includes(found.code) ? null : await this.#stop(() => {});
      },
      (problem) => this.#context.note("not stopped", problem),
    );
  }

  /** Asks anew where there was no answer: the agent may have been installed meanwhile. */
  async #describe() {
    const known = await this.#description;
    if (known.metadata === null) this.#description = this.#agent.metadata();
    return await this.#description;
  }

  /** Null: it has stopped. */
  async #stop(busy: () => void): Promise<string | null> {
    const { metadata } = await this.#describe();
    const stop = await this.#agent.run("stop", this.#agent.limitMs("stop", metadata), { busy });
    if (stop.code !== 0 && !RUNS_NOT.includes(stop.code)) return stop.text;
    const found = await this.#monitor(metadata, 0);
    return RUNS_NOT.includes(found.code) ? null : `stop succeeded, but ${found.text}`;
  }

  #monitor(metadata: OcfMetadata | null, checkLevel: number): Promise<OcfOutcome> {
    const limitMs = this.#agent.limitMs("monitor", metadata, checkLevel);
    return this.#agent.run("monitor", limitMs, { checkLevel });
  }

  #failed(problem: string) {
    return resourceFailed(this.#context.definition, problem);
  }
}

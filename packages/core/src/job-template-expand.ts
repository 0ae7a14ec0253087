import {
  INSIDE_ONLY,
  NOT_STORABLE,
  type TemplateDefinition,
  type TemplateFault,
  type TemplateStepDefinition,
} from "./job-template.ts";
import {
  forEachText,
  isStorable,
  isTooDeep,
  PARAMETER_DEPTH_MAX,
  type Parameters,
  parseText,
  REFERENCED_CHARACTERS_MAX,
  ReferenceRoom,
  resolveParameters,
  resolvePlainText,
} from "./job-template-text.ts";

/**
 * From a template and the values of its parameters to the steps of a process: the parameters put in, every default
 * written out, successors as places in the list, and for each step how many predecessors it has to wait for.
 */
export interface ExpandedStep {
  readonly name: string;
  readonly component: string;
  readonly task: string;
  readonly queue: string;
  readonly execution: "internal" | "external";
  /** Texts that still name outputs: resolveOutputs() makes them final when the step becomes ready. */
  readonly parameters: Parameters;
  /** Names of the parameters and outputs that must not be shown. */
  readonly hidden: readonly string[];
  /** Places in the list of steps. */
  readonly onSuccess: readonly number[];
  readonly onError: readonly number[];
  /** Ways that lead here. 0: the step begins at once. */
  readonly pending: number;
  readonly priority: number;
  readonly retries: number;
  readonly retryDelaySeconds: number;
  readonly backOff: boolean;
  readonly delaySeconds: number;
  readonly ignoreErrors: boolean;
  readonly freezeOnError: boolean;
  readonly onCrash: "rerun" | "freeze";
  readonly crashesMax: number;
  readonly timeLimitSeconds: number | null;
  readonly exclusiveObject: string | null;
}

export interface ExpandedProcess {
  readonly priority: number;
  /** With the defaults; what has no value is null. */
  readonly parameters: Parameters;
  readonly hidden: readonly string[];
  readonly steps: readonly ExpandedStep[];
}

export const PRIORITY_USUAL = 8;
const CRASHES_MAX_USUAL = 5;
const QUEUE_LENGTH_MAX = 255;
const OBJECT_LENGTH_MAX = 500;
/** What references put into all steps of a process. */
const PROCESS_CHARACTERS_MAX = 32 * 1024 * 1024;
const TOO_LONG = `references put more than ${PROCESS_CHARACTERS_MAX} characters into the steps`;

/** Components of ours that never run foreign code: these steps run in the service itself unless a template says else. */
const INTERNAL_COMPONENTS = new Set([...INSIDE_ONLY, "Http", "Mail", "Sql"]);

/**
 * Expands a template that checkTemplate found nothing wrong with. Returns every fault of the given values instead where
 * there is one. `priority`: of whoever starts it; steps with a priority of their own keep it.
 */
export function expandTemplate(
  template: TemplateDefinition,
  given: Parameters,
  priority?: number,
): ExpandedProcess | { readonly faults: readonly TemplateFault[] } {
  const faults: TemplateFault[] = [];
  const parameters = fillParameters(template, given, faults);
  const declared = Object.entries(template.parameters ?? {});
  const hidden = declared.filter(([, parameter]) => parameter.hidden === true).map(([name]) => name);
  const usual = priority ?? template.priority ?? PRIORITY_USUAL;
  const places = new Map(template.steps.map(({ name }, index) => [name, index]));
  const hiddenOutputs = findHiddenOutputs(template.steps);
  const pending = new Int32Array(template.steps.length);
  const lead = (names: readonly string[] | undefined) =>
    (names ?? []).map((name) => {
      const place = places.get(name) ?? 0;
      pending[place] = (pending[place] ?? 0) + 1;
      return place;
    });
  const links = template.steps.map((step) => ({
    onSuccess: lead(step.onSuccess),
    onError: lead(step.onError),
  }));
  const all = new ReferenceRoom(PROCESS_CHARACTERS_MAX);
  const steps = template.steps.map((step, index): ExpandedStep => {
    const room = new ReferenceRoom(REFERENCED_CHARACTERS_MAX, all);
    const queue = resolvePlainText(step.queue, parameters, room);
    const isQueue = queue !== "" && queue.length <= QUEUE_LENGTH_MAX && !/\p{Cc}/u.test(queue);
    if (!isQueue)
      faults.push({
        at: ["steps", index, "queue"],
        problem: `${JSON.stringify(queue.slice(0, 80))} is no queue: 1 to ${QUEUE_LENGTH_MAX} characters, no control characters`,
      });
    const object = step.exclusiveObject && resolvePlainText(step.exclusiveObject, parameters, room);
    if (object !== undefined && object.length > OBJECT_LENGTH_MAX)
      faults.push({
        at: ["steps", index, "exclusiveObject"],
        problem: `is ${object.length} characters long, at most ${OBJECT_LENGTH_MAX}`,
      });
    const resolved = resolveParameters(step.parameters ?? {}, parameters, room) as Parameters;
    if (all.isExceeded) {
      if (!faults.some(({ problem }) => problem === TOO_LONG))
        faults.push({ at: ["steps"], problem: TOO_LONG });
    } else if (room.isExceeded)
      faults.push({
        at: ["steps", index],
        problem: `its references put in more than ${REFERENCED_CHARACTERS_MAX} characters`,
      });
    return {
      name: step.name,
      component: step.component,
      task: step.task,
      queue,
      execution: step.execution ?? (INTERNAL_COMPONENTS.has(step.component) ? "internal" : "external"),
      parameters: resolved,
      hidden: findHidden(step, hidden, hiddenOutputs),
      onSuccess: links[index]?.onSuccess ?? [],
      onError: links[index]?.onError ?? [],
      pending: pending[index] ?? 0,
      priority: step.priority ?? usual,
      retries: step.retries ?? 0,
      retryDelaySeconds: step.retryDelaySeconds ?? 0,
      backOff: step.backOff ?? false,
      delaySeconds: step.delaySeconds ?? 0,
      ignoreErrors: step.ignoreErrors ?? false,
      freezeOnError: step.freezeOnError ?? false,
      onCrash: step.onCrash ?? "rerun",
      crashesMax: step.crashes ?? CRASHES_MAX_USUAL,
      timeLimitSeconds: step.timeLimitSeconds ?? null,
      // An empty object would make strangers wait for each other.
      exclusiveObject: object === undefined || object === "" ? null : object,
    };
  });
  return faults.length > 0 ? { faults } : { priority: usual, parameters, hidden, steps };
}

function fillParameters(
  template: TemplateDefinition,
  given: Parameters,
  faults: TemplateFault[],
): Parameters {
  const declared = template.parameters ?? {};
  const names = Object.keys(declared);
  for (const name of Object.keys(given)) {
    const at = ["parameters", name];
    if (!Object.hasOwn(declared, name)) {
      const known = names.length === 0 ? "the template has none" : `it has ${names.join(", ")}`;
      faults.push({ at, problem: `the template has no such parameter; ${known}` });
    } else if (isTooDeep(given[name]))
      faults.push({ at, problem: `is nested deeper than ${PARAMETER_DEPTH_MAX} levels` });
    else
      forEachText(given[name], at, (text, where) => {
        if (!isStorable(text)) faults.push({ at: where, problem: NOT_STORABLE });
      });
  }
  const filled: Record<string, unknown> = {};
  for (const [name, { required, default: usual }] of Object.entries(declared)) {
    const value = Object.hasOwn(given, name) ? given[name] : usual;
    if (value === undefined && required === true)
      faults.push({ at: ["parameters", name], problem: "is required and has no value" });
    filled[name] = value ?? null;
  }
  return filled;
}

/** `step.output` of every output that its step declares hidden. */
function findHiddenOutputs(steps: readonly TemplateStepDefinition[]): ReadonlySet<string> {
  return new Set(steps.flatMap(({ name, hidden }) => (hidden ?? []).map((output) => `${name}.${output}`)));
}

/** What a step declares hidden, and every parameter into which something hidden goes. */
function findHidden(
  step: TemplateStepDefinition,
  parameters: readonly string[],
  outputs: ReadonlySet<string>,
): string[] {
  const hidden = new Set(step.hidden ?? []);
  for (const [name, value] of Object.entries(step.parameters ?? {}))
    forEachText(value, [], (text) => {
      for (const part of parseText(text))
        if (
          (part.kind === "parameter" && parameters.includes(part.name)) ||
          (part.kind === "output" && outputs.has(`${part.step}.${part.output}`))
        )
          hidden.add(name);
    });
  return [...hidden];
}

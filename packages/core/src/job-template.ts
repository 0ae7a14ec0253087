import {
  forEachText,
  isStorable,
  isTooDeep,
  PARAMETER_DEPTH_MAX,
  PARAMETER_NAME,
  parseText,
} from "./job-template-text.ts";
import type { KeyPath } from "./module.ts";
import { suggest } from "./suggest.ts";

/**
 * A template is a process before it is started: steps, and which follow which. Whether it can ever run as meant is
 * decided here, before anything is stored, and with all faults at once: a wrong name in the last of twenty steps must
 * not be found at three in the morning.
 *
 * The steps that no other step names begin at once. A step with several predecessors waits until each of them has ended
 * or was skipped.
 */
export interface TemplateStepDefinition {
  readonly name: string;
  readonly component: string;
  readonly task: string;
  readonly queue: string;
  readonly parameters?: Readonly<Record<string, unknown>>;
  /** Names of parameters, and of outputs that later steps use. */
  readonly hidden?: readonly string[];
  readonly execution?: "internal" | "external";
  readonly onSuccess?: readonly string[];
  readonly onError?: readonly string[];
  readonly priority?: number;
  readonly retries?: number;
  readonly retryDelaySeconds?: number;
  readonly backOff?: boolean;
  readonly delaySeconds?: number;
  readonly ignoreErrors?: boolean;
  readonly freezeOnError?: boolean;
  readonly onCrash?: "rerun" | "freeze";
  readonly crashes?: number;
  readonly timeLimitSeconds?: number;
  readonly exclusiveObject?: string;
}

export interface TemplateParameter {
  readonly required?: boolean;
  readonly default?: unknown;
  readonly hidden?: boolean;
  readonly description?: string;
}

export interface TemplateDefinition {
  readonly name: string;
  readonly description?: string;
  readonly parameters?: Readonly<Record<string, TemplateParameter>>;
  readonly priority?: number;
  readonly limit?: number;
  readonly steps: readonly TemplateStepDefinition[];
}

export interface TemplateFault {
  readonly at: KeyPath;
  readonly problem: string;
}

/** More ways between steps than this are no process that anybody has thought of. */
const EDGES_MAX = 100_000;

/** Everything that is wrong with a template whose form is right. */
export function checkTemplate(template: TemplateDefinition): TemplateFault[] {
  const faults: TemplateFault[] = [];
  const parameters = template.parameters ?? {};
  for (const [name, parameter] of Object.entries(parameters)) {
    const at = ["parameters", name];
    if (!PARAMETER_NAME.test(name))
      faults.push({ at, problem: `${quote(name)} is no name: letters, digits and _, no digit first` });
    if (parameter.required === true && parameter.default !== undefined)
      faults.push({ at: [...at, "required"], problem: "a parameter with a default is never missing" });
    if (isTooDeep(parameter.default)) faults.push({ at: [...at, "default"], problem: TOO_DEEP });
  }
  const graph = linkSteps(template.steps, faults);
  template.steps.forEach((step, index) => {
    checkStep(step, ["steps", index], faults);
  });
  if (faults.every(({ problem }) => problem !== TOO_DEEP))
    forEachText(template, [], (text, at) => {
      if (!isStorable(text)) faults.push({ at, problem: NOT_STORABLE });
    });
  const ways = findWays(template.steps, graph, faults);
  checkReferences(template, graph, ways, faults);
  return faults;
}

/** Components whose tasks ask the service itself, or the hub through it. */
export const INSIDE_ONLY: readonly string[] = ["AutoUpdate", "JobCheck", "Wait"];

export const NOT_STORABLE = "holds a character that no text can hold: 0, or half of a surrogate pair";
const TOO_DEEP = `is nested deeper than ${PARAMETER_DEPTH_MAX} levels`;

function checkStep(step: TemplateStepDefinition, at: KeyPath, faults: TemplateFault[]): void {
  if (step.ignoreErrors === true) {
    if ((step.onError ?? []).length > 0)
      faults.push({
        at: [...at, "onError"],
        problem: "is never followed: with ignoreErrors an error is a success",
      });
    if (step.freezeOnError === true)
      faults.push({
        at: [...at, "freezeOnError"],
        problem: "never happens: with ignoreErrors an error is a success",
      });
  }
  if (step.execution === "external" && INSIDE_ONLY.includes(step.component))
    faults.push({
      at: [...at, "execution"],
      problem: `must be "internal" for ${step.component}: a worker process cannot ask the service`,
    });
  for (const key of ["retryDelaySeconds", "backOff"] as const)
    if (step[key] !== undefined && (step.retries ?? 0) === 0)
      faults.push({ at: [...at, key], problem: "says how to wait between tries, but there are no retries" });
  if (isTooDeep(step.parameters)) faults.push({ at: [...at, "parameters"], problem: TOO_DEEP });
}

/** Who follows whom, by index. A name that is twice stands for its first step. */
interface StepGraph {
  readonly byName: ReadonlyMap<string, number>;
  readonly next: readonly (readonly number[])[];
  readonly previous: readonly (readonly number[])[];
}

function linkSteps(steps: readonly TemplateStepDefinition[], faults: TemplateFault[]): StepGraph {
  const byName = new Map<string, number>();
  steps.forEach(({ name }, index) => {
    const first = byName.get(name);
    if (first === undefined) byName.set(name, index);
    else
      faults.push({
        at: ["steps", index, "name"],
        problem: `${quote(name)} is also the name of step ${first + 1}`,
      });
  });
  const next: number[][] = steps.map(() => []);
  const previous: number[][] = steps.map(() => []);
  let edges = 0;
  steps.forEach((step, index) => {
    for (const key of ["onSuccess", "onError"] as const) {
      const told = new Set<string>();
      (step[key] ?? []).forEach((name, position) => {
        const at = ["steps", index, key, position];
        const target = byName.get(name);
        if (target === undefined)
          faults.push({ at, problem: `there is no step ${quote(name)}${near(name, byName.keys())}` });
        else if (told.has(name)) faults.push({ at, problem: `${quote(name)} is named twice` });
        else if (++edges <= EDGES_MAX) {
          next[index]?.push(target);
          previous[target]?.push(index);
        }
        told.add(name);
      });
    }
  });
  if (edges > EDGES_MAX)
    faults.push({
      at: ["steps"],
      problem: `${edges} successors are more than ${EDGES_MAX}; put a step between`,
    });
  return { byName, next, previous };
}

/** For each step, which steps come before it, as bits; null where no order exists. */
type Ways = readonly Uint32Array[] | null;

/** Finds circles, and what can only be reached through one. */
function findWays(steps: readonly TemplateStepDefinition[], graph: StepGraph, faults: TemplateFault[]): Ways {
  const pending = graph.previous.map((list) => list.length);
  const order = pending.flatMap((count, index) => (count === 0 ? [index] : []));
  for (let at = 0; at < order.length; at++)
    for (const target of graph.next[order[at] ?? 0] ?? []) {
      const left = (pending[target] ?? 0) - 1;
      pending[target] = left;
      if (left === 0) order.push(target);
    }
  if (order.length === steps.length) return countWays(steps.length, graph, order);
  const stuck = new Set(pending.flatMap((count, index) => (count > 0 ? [index] : [])));
  const told = new Set<number>();
  for (const start of stuck) {
    if (told.has(start)) continue;
    const circle = findCircle(start, stuck, graph, told);
    if (circle === null) continue;
    const names = [...circle, circle[0] ?? 0].map((index) => steps[index]?.name ?? "");
    faults.push({
      at: ["steps", circle[0] ?? 0],
      problem: `the steps ${summarize(names, " -> ")} wait for each other`,
    });
    for (const index of circle) told.add(index);
  }
  for (const index of stuck)
    if (!told.has(index))
      faults.push({
        at: ["steps", index],
        problem: `${quote(steps[index]?.name ?? "")} is never reached: it waits for steps that wait for each other`,
      });
  return null;
}

/**
 * A circle that lies before `start`, in the order in which its steps follow one another, the first of the template
 * first; null where it was told.
 */
function findCircle(
  start: number,
  stuck: ReadonlySet<number>,
  graph: StepGraph,
  told: ReadonlySet<number>,
): number[] | null {
  const seen = new Map<number, number>();
  const path: number[] = [];
  let at: number | undefined = start;
  while (at !== undefined && !seen.has(at)) {
    if (told.has(at)) return null;
    seen.set(at, path.length);
    path.push(at);
    // Whoever cannot begin waits for someone who cannot, so going back never ends but in a circle.
    at = graph.previous[at]?.find((index) => stuck.has(index));
  }
  if (at === undefined) return null;
  const circle = path.slice(seen.get(at)).reverse();
  const first = circle.indexOf(Math.min(...circle));
  return [...circle.slice(first), ...circle.slice(0, first)];
}

function countWays(count: number, graph: StepGraph, order: readonly number[]): Uint32Array[] {
  const words = Math.ceil(count / 32);
  const before = Array.from({ length: count }, () => new Uint32Array(words));
  for (const index of order) {
    const own = before[index];
    if (own === undefined) continue;
    for (const from of graph.previous[index] ?? []) {
      const theirs = before[from];
      for (let word = 0; word < words; word++) own[word] = (own[word] ?? 0) | (theirs?.[word] ?? 0);
      own[from >>> 5] = (own[from >>> 5] ?? 0) | (1 << (from & 31));
    }
  }
  return before;
}

function checkReferences(
  template: TemplateDefinition,
  graph: StepGraph,
  ways: Ways,
  faults: TemplateFault[],
): void {
  const declared = template.parameters ?? {};
  const used = new Map<string, Set<string>>();
  const use = (text: string, at: KeyPath, index: number, plain: boolean) => {
    for (const part of parseText(text)) {
      if (part.kind === "fault") faults.push({ at, problem: part.problem });
      else if (part.kind === "parameter") {
        const parameter = Object.hasOwn(declared, part.name) ? declared[part.name] : undefined;
        if (parameter === undefined)
          faults.push({
            at,
            problem: `\${${part.name}}: the template has no such parameter${near(part.name, Object.keys(declared))}; write $\${ for the characters`,
          });
        else if (plain && parameter.hidden === true)
          faults.push({
            at,
            problem: `\${${part.name}} is hidden and may not stand in a text that is shown`,
          });
      } else if (part.kind === "output") {
        const reference = `\${${part.step}.${part.output}}`;
        const from = graph.byName.get(part.step);
        if (plain) faults.push({ at, problem: `${reference}: outputs are only for parameters` });
        else if (from === undefined)
          faults.push({
            at,
            problem: `${reference}: there is no step ${quote(part.step)}${near(part.step, graph.byName.keys())}`,
          });
        else {
          const outputs = used.get(part.step) ?? new Set();
          used.set(part.step, outputs.add(part.output));
          if (ways !== null && !hasBit(ways[index], from))
            faults.push({ at, problem: `${reference}: ${quote(part.step)} does not come before this step` });
        }
      }
    }
  };
  template.steps.forEach((step, index) => {
    const at = ["steps", index];
    use(step.queue, [...at, "queue"], index, true);
    if (step.exclusiveObject !== undefined)
      use(step.exclusiveObject, [...at, "exclusiveObject"], index, true);
    if (!isTooDeep(step.parameters))
      forEachText(step.parameters, [...at, "parameters"], (text, where) => use(text, where, index, false));
  });
  template.steps.forEach((step, index) => {
    (step.hidden ?? []).forEach((name, position) => {
      if (Object.hasOwn(step.parameters ?? {}, name) || used.get(step.name)?.has(name) === true) return;
      faults.push({
        at: ["steps", index, "hidden", position],
        problem: `${quote(name)} is neither a parameter of this step nor an output that a later step uses${near(name, Object.keys(step.parameters ?? {}))}`,
      });
    });
  });
}

function hasBit(bits: Uint32Array | undefined, index: number): boolean {
  return (((bits?.[index >>> 5] ?? 0) >>> (index & 31)) & 1) === 1;
}

function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}

const NAMES_SHOWN = 8;

function summarize(names: readonly string[], separator: string): string {
  const shown = names.length <= NAMES_SHOWN ? names : [...names.slice(0, NAMES_SHOWN - 1), "…"];
  return shown.join(separator);
}

function near(name: string, known: Iterable<string>): string {
  const meant = suggest(name, [...known]);
  return meant === null ? "" : `; did you mean ${quote(meant)}?`;
}

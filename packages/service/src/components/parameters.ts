import { type Fault, LockstepError } from "@lockstep/protocol/wire";
import type { ParameterDeclaration, ParameterTable, ParameterType } from "./types.ts";

const VALUE_CHARACTERS_MAX = 80;

/**
 * Checks the parameters of a step against the table of its task and fills in the defaults. A parameter that is null
 * counts as not given, because a text of a template that stands for nothing arrives so. Texts become integers and
 * booleans where they say one, because a part of a text of a template is always a text.
 *
 * Throws JOB_PARAMETERS_INVALID with every fault at once. A value stands in a fault only where neither the step nor
 * the table calls it hidden.
 */
export function checkParameters(
  table: ParameterTable,
  given: Readonly<Record<string, unknown>>,
  step: { readonly component: string; readonly task: string; readonly hidden: readonly string[] },
): Readonly<Record<string, unknown>> {
  const faults: Fault[] = [];
  const values: Record<string, unknown> = {};
  for (const [name, declaration] of Object.entries(table)) {
    const value = Object.hasOwn(given, name) ? given[name] : undefined;
    if (value === undefined || (value === null && declaration.type !== "json")) {
      if (declaration.required === true) faults.push({ where: name, problem: "is missing" });
      values[name] = declaration.default;
      continue;
    }
    const read = readValue(declaration, value);
    if ("problem" in read) {
      const shown =
        declaration.hidden === true || step.hidden.includes(name) ? "" : `, not ${excerpt(value)}`;
      faults.push({ where: name, problem: `${read.problem}${shown}` });
    } else values[name] = read.value;
  }
  for (const name of Object.keys(given))
    if (!Object.hasOwn(table, name))
      faults.push({ where: name, problem: `is not a parameter of ${step.component}.${step.task}` });
  if (faults.length === 0) return values;
  throw new LockstepError(
    "JOB_PARAMETERS_INVALID",
    `the parameters of ${step.component}.${step.task} have ${faults.length === 1 ? "a fault" : `${faults.length} faults`}: ${faults.map(({ where, problem }) => `${where} ${problem}`).join("; ")}`,
    {
      expected: Object.entries(table)
        .map(([name, { required, type }]) => `${name}${required === true ? "" : "?"}: ${type}`)
        .join(", "),
      found: Object.keys(given).join(", ") || "none",
      faults,
      hint: "Correct the step in its template; docs/reference/components.md lists what each task takes.",
    },
  );
}

/** The names of all parameters that must not show: what the step says and what the table says. */
export function hiddenNames(table: ParameterTable, hidden: readonly string[]): string[] {
  const declared = Object.keys(table).filter((name) => table[name]?.hidden === true);
  return [...new Set([...hidden, ...declared])];
}

type Read = { readonly value: unknown } | { readonly problem: string };

function readValue(declaration: ParameterDeclaration, value: unknown): Read {
  const read = READERS[declaration.type](value);
  if ("problem" in read) return read;
  const { choices, minimum, maximum, check } = declaration;
  if (choices !== undefined && !choices.some((choice) => choice === read.value))
    return { problem: `must be one of ${choices.join(", ")}` };
  if (typeof read.value === "number") {
    if (minimum !== undefined && read.value < minimum) return { problem: `must be at least ${minimum}` };
    if (maximum !== undefined && read.value > maximum) return { problem: `must be at most ${maximum}` };
  }
  const problem = check?.(read.value) ?? null;
  return problem === null ? read : { problem };
}

const isText = (value: unknown): value is string => typeof value === "string";
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const READERS: Readonly<Record<ParameterType, (value: unknown) => Read>> = {
  text: (value) => {
    if (isText(value)) return { value };
    // Numbers of a process arrive as they are where they make up a whole text.
    return typeof value === "number" || typeof value === "boolean"
      ? { value: String(value) }
      : { problem: "must be a text" };
  },
  integer: (value) => {
    const number = isText(value) && /^-?\d{1,16}$/.test(value) ? Number(value) : value;
    return Number.isSafeInteger(number) ? { value: number } : { problem: "must be a whole number" };
  },
  boolean: (value) => {
    if (typeof value === "boolean") return { value };
    return value === "true" || value === "false"
      ? { value: value === "true" }
      : { problem: "must be true or false" };
  },
  texts: (value) =>
    Array.isArray(value) && value.every(isText) ? { value } : { problem: "must be a list of texts" },
  map: (value) =>
    isObject(value) && Object.values(value).every(isText)
      ? { value }
      : { problem: "must be an object of texts" },
  list: (value) => (Array.isArray(value) ? { value } : { problem: "must be a list" }),
  json: (value) => ({ value }),
};

function excerpt(value: unknown): string {
  const text = JSON.stringify(value) ?? typeof value;
  return text.length > VALUE_CHARACTERS_MAX ? `${text.slice(0, VALUE_CHARACTERS_MAX)}…` : text;
}

import { checkTemplate, type KeyPath, suggest } from "@lockstep/core";
import { type TSchema, Type } from "typebox";
import { Compile } from "typebox/compile";
import { type JobTemplate, TemplateSchema, TemplateStepSchema } from "./api-jobs.ts";
import { closed } from "./api-values.ts";
import { type Fault, LockstepError } from "./errors.ts";
import { readToml, type TomlLines } from "./toml-lines.ts";

/**
 * Templates of processes as files (docs/reference/job-template.md): TOML, or JSON with the same members, which is also
 * what the HTTP interface takes. Whatever is wrong is told at once, with its line where the file is TOML.
 */
export function parseTemplateFile(text: string, fileName: string): JobTemplate {
  const isJson = /^\s*\{/.test(text) || fileName.endsWith(".json") || isJsonText(text);
  const { document, lines } = isJson
    ? { document: parseJson(text, fileName), lines: null }
    : parseToml(text, fileName);
  const faults = findTemplateFaults(document);
  if (faults.length === 0) return document as JobTemplate;
  const placed = faults
    .map((fault) => ({ ...fault, line: lines?.lineOf(fault.at) ?? 0 }))
    .sort((a, b) => a.line - b.line);
  throw templateInvalid(
    `the template ${fileName}`,
    placed.map(({ line, at, problem }) => ({
      where: line === 0 ? fileName : `${fileName}:${line}`,
      problem: `${formatPlace(at, document)}${problem}`,
    })),
  );
}

/** Holds a template that came by HTTP against form and sense. Throws JOB_TEMPLATE_INVALID with every fault. */
export function checkTemplateDocument(document: unknown, what: string): JobTemplate {
  const faults = findTemplateFaults(document);
  if (faults.length === 0) return document as JobTemplate;
  throw templateInvalid(
    what,
    faults.map(({ at, problem }) => ({
      where: formatPlace(at, document).replace(/: $/, "") || "template",
      problem,
    })),
  );
}

interface PlacedFault {
  readonly at: KeyPath;
  readonly problem: string;
}

/** Wrong form hides what else is wrong, so sense is looked for only where the form is right. */
function findTemplateFaults(document: unknown): readonly PlacedFault[] {
  const form = findFormFaults(document);
  return form.length > 0 ? form : checkTemplate(document as JobTemplate);
}

/** The checker tells a few faults a value and then stops, so each step is held against its schema by itself. */
const head = Compile(
  Type.Object(
    { ...TemplateSchema.properties, steps: Type.Array(Type.Unknown(), { minItems: 1, maxItems: 10_000 }) },
    closed,
  ),
);
const step = Compile(TemplateStepSchema);
const FAULTS_MAX = 200;

function findFormFaults(document: unknown): PlacedFault[] {
  const faults = new Map<string, PlacedFault>();
  const steps = valueAt(document, ["steps"]);
  const parts = [
    { check: head, value: document, at: [] },
    ...(Array.isArray(steps) ? steps : []).map((value, index) => ({
      check: step,
      value,
      at: ["steps", index],
    })),
  ];
  for (const { check, value, at } of parts) {
    if (faults.size >= FAULTS_MAX) break;
    if (check.Check(value)) continue;
    for (const error of check.Errors(value)) {
      const path = error.instancePath
        .split("/")
        .slice(1)
        .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
      const inside = path.map((part, index) => (isList(value, path.slice(0, index)) ? Number(part) : part));
      for (const fault of explain(error, [...at, ...inside])) {
        const key = JSON.stringify(fault.at);
        // Of the ways in which a choice can fail, the choice itself is told.
        if (!faults.has(key) || error.keyword === "anyOf") faults.set(key, fault);
      }
    }
  }
  return [...faults.values()];
}

/** Whether what stands at this place is a list, so that the next part of the path counts. */
function isList(document: unknown, path: readonly string[]): boolean {
  return Array.isArray(valueAt(document, path));
}

function valueAt(document: unknown, path: readonly (string | number)[]): unknown {
  let value: unknown = document;
  for (const part of path) {
    if (typeof value !== "object" || value === null) return undefined;
    value = Object.hasOwn(value, part) ? (value as Record<string | number, unknown>)[part] : undefined;
  }
  return value;
}

interface SchemaError {
  readonly keyword: string;
  readonly message: string;
  readonly params: object;
}

function explain({ keyword, message, params }: SchemaError, at: KeyPath): PlacedFault[] {
  // The value of an unknown key is told as well, and that names the key.
  if (keyword === "additionalProperties") return [];
  if (keyword === "boolean") {
    const known = Object.keys((at[0] === "steps" ? TemplateStepSchema : TemplateSchema).properties);
    const problem = at[0] === "parameters" ? NOT_A_PARAMETER : hint(String(at.at(-1)), known);
    return [{ at, problem: `is not a known key${problem}` }];
  }
  if (keyword === "required" && "requiredProperties" in params && Array.isArray(params.requiredProperties))
    return params.requiredProperties.map((name: string) => ({ at: [...at, name], problem: "is missing" }));
  if (keyword === "const" || keyword === "anyOf") {
    const choice = choicesOf(at);
    return [{ at, problem: choice === null ? message : `must be ${choice}` }];
  }
  return [{ at, problem: message }];
}

/** The texts among which one is to be chosen at a place of a step. */
function choicesOf(at: KeyPath): string | null {
  const key = at.at(-1);
  const schema: TSchema | undefined =
    typeof key === "string" && Object.hasOwn(TemplateStepSchema.properties, key)
      ? (TemplateStepSchema.properties as Record<string, TSchema>)[key]
      : undefined;
  if (schema === undefined || !("anyOf" in schema) || !Array.isArray(schema.anyOf)) return null;
  return schema.anyOf.map((each: { const?: unknown }) => JSON.stringify(each.const)).join(" or ");
}

const NOT_A_PARAMETER =
  "; a name is letters, digits and _, and it has required, default, hidden and description";

function hint(name: string, known: readonly string[]): string {
  const meant = suggest(name, known);
  return meant === null ? `; known here: ${known.join(", ")}` : `; did you mean ${meant}?`;
}

/** `steps[2] "Copy".onSuccess[1]: `, lists counted from 1 as people count, steps with their names. */
function formatPlace(at: KeyPath, document: unknown): string {
  if (at.length === 0) return "";
  const parts = at.map((part, index) => {
    if (typeof part !== "number") return `${index === 0 ? "" : "."}${part}`;
    const name = index === 1 && at[0] === "steps" ? valueAt(document, ["steps", part, "name"]) : null;
    return `[${part + 1}]${typeof name === "string" && at.length > 2 ? ` ${JSON.stringify(name.slice(0, 80))}` : ""}`;
  });
  return `${parts.join("")}: `;
}

function templateInvalid(what: string, faults: readonly Fault[], cause?: unknown): LockstepError {
  const count = faults.length === 1 ? "one fault" : `${faults.length} faults`;
  return new LockstepError("JOB_TEMPLATE_INVALID", `${what} has ${count}`, {
    faults,
    cause,
    hint: "Nothing was stored or started. docs/reference/job-template.md describes each key.",
  });
}

/** A single value, which no TOML is. */
function isJsonText(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function parseJson(text: string, fileName: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    const problem = cause instanceof Error ? cause.message : String(cause);
    throw templateInvalid(`the template ${fileName}`, [{ where: fileName, problem }], cause);
  }
}

function parseToml(text: string, fileName: string): { document: unknown; lines: TomlLines } {
  const read = readToml(text);
  if (read.kind === "document") return { document: plain(read.value), lines: read.lines };
  const where = `${fileName}:${read.line}:${read.column}`;
  throw templateInvalid(`the template ${fileName}`, [{ where, problem: read.problem }], read.cause);
}

/** TOML has dates, which JSON has not; they travel as the text in which they were written. */
function plain(value: unknown): unknown {
  if (value instanceof Date) return value.toJSON();
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, plain(each)]));
}

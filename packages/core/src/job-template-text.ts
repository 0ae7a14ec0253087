/**
 * Texts with references: `${parameter}` of the process and `${step.output}` of an earlier step.
 *
 * A text is resolved in two goes: parameters when the process starts, outputs when the step becomes ready. What was put
 * in the first time must not be read as a reference the second time, or whoever chooses a parameter's value could ask
 * for any output. So a text is always taken apart into its parts and, where it has to wait, written down again with the
 * literal parts escaped.
 *
 * `$${` stands for the two characters `${`: a run of dollar signs before a brace counts in pairs, each pair is one dollar
 * sign, and an odd one out begins a reference. A value that is a reference and nothing else takes the value as it is,
 * number or object; inside a longer text, what is no text is written as JSON, and nothing (null) as nothing.
 */
export type TextPart =
  | { readonly kind: "literal"; readonly text: string }
  | { readonly kind: "parameter"; readonly name: string }
  | { readonly kind: "output"; readonly step: string; readonly output: string }
  /** Begins like a reference and is none. */
  | { readonly kind: "fault"; readonly problem: string };

export type Parameters = Readonly<Record<string, unknown>>;

/** JSON deeper than this is refused where it comes in, so that whatever walks it may recur. */
export const PARAMETER_DEPTH_MAX = 32;

/**
 * What references put into one step may not be longer than this in all. A short text can name a long value a thousand
 * times, and what no message can carry would keep its whole queue from getting anything.
 */
export const REFERENCED_CHARACTERS_MAX = 4 * 1024 * 1024;

/** Counts what references put in. Once there is no room left it puts in nothing more. */
export class ReferenceRoom {
  readonly #around: ReferenceRoom | null;
  #left: number;

  /** `around`: a room that this one is a part of. */
  constructor(characters: number, around: ReferenceRoom | null = null) {
    this.#left = characters;
    this.#around = around;
  }

  get isExceeded(): boolean {
    return this.#left < 0 || this.#around?.isExceeded === true;
  }

  /** The value itself, or nothing where it is too long. */
  take(value: unknown): unknown {
    if (!this.isExceeded) this.#count(asText(value).length);
    return this.isExceeded ? null : value;
  }

  #count(characters: number): void {
    this.#left -= characters;
    if (this.#around !== null) this.#around.#count(characters);
  }
}

/** The form of the names of parameters and outputs. */
export const PARAMETER_NAME = /^[A-Za-z_][A-Za-z0-9_]{0,99}$/;
const DOLLARS = /\$+\{/g;

/** Takes a text apart. Adjacent literal parts are one. */
export function parseText(text: string): TextPart[] {
  const parts: TextPart[] = [];
  let literal = "";
  let at = 0;
  for (const match of text.matchAll(DOLLARS)) {
    if (match.index < at) continue; // inside a reference that was taken already
    const dollars = match[0].length - 1;
    literal += text.slice(at, match.index) + "$".repeat(Math.floor(dollars / 2));
    at = match.index + match[0].length;
    if (dollars % 2 === 0) {
      literal += "{";
      continue;
    }
    if (literal !== "") parts.push({ kind: "literal", text: literal });
    literal = "";
    const end = text.indexOf("}", at);
    if (end < 0) {
      parts.push({ kind: "fault", problem: "a reference ${ is not closed; write $${ for the characters" });
      at = text.length;
      break;
    }
    parts.push(parseReference(text.slice(at, end)));
    at = end + 1;
  }
  literal += text.slice(at);
  if (literal !== "") parts.push({ kind: "literal", text: literal });
  return parts;
}

function parseReference(inner: string): TextPart {
  if (PARAMETER_NAME.test(inner)) return { kind: "parameter", name: inner };
  const dot = inner.lastIndexOf(".");
  const step = inner.slice(0, dot);
  const output = inner.slice(dot + 1);
  if (dot > 0 && PARAMETER_NAME.test(output)) return { kind: "output", step, output };
  const problem = `\${${inner}} is no reference; write \${parameter}, \${step.output}, or $\${ for the characters`;
  return { kind: "fault", problem };
}

/** Writes parts so that parseText reads the same parts again. */
export function formatText(parts: readonly TextPart[]): string {
  let text = "";
  parts.forEach((part, index) => {
    if (part.kind === "parameter") text += `\${${part.name}}`;
    else if (part.kind === "output") text += `\${${part.step}.${part.output}}`;
    else if (part.kind === "literal") {
      const followed = index + 1 < parts.length;
      text += part.text.replaceAll(DOLLARS, (run) => `${"$".repeat(2 * (run.length - 1))}{`);
      if (followed) text = text.replace(/\$+$/, (run) => run + run);
    }
  });
  return text;
}

/** What a reference stands for: `{ value }`, or null where it must stay for later. */
type Resolve = (part: Extract<TextPart, { kind: "parameter" | "output" }>) => { value: unknown } | null;

/**
 * Resolves every text of a JSON value. With `final` the texts are as their readers see them; without, they are texts to
 * be resolved once more.
 */
function resolveValue(value: unknown, resolve: Resolve, final: boolean): unknown {
  if (typeof value === "string") return resolveText(value, resolve, final);
  if (Array.isArray(value)) return value.map((each) => resolveValue(each, resolve, final));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => [key, resolveValue(each, resolve, final)]),
  );
}

function resolveText(text: string, resolve: Resolve, final: boolean): unknown {
  const parts = parseText(text);
  const [only] = parts;
  const isWhole = parts.length === 1 && only !== undefined && isReference(only);
  // Once: `resolve` counts.
  const whole = isWhole ? resolve(only) : null;
  if (whole !== null && typeof whole.value !== "string")
    return final ? whole.value : escapeValue(whole.value);
  const resolved: TextPart[] = [];
  for (const part of parts) {
    const found = !isReference(part) ? null : isWhole ? whole : resolve(part);
    const next: TextPart = found === null ? part : { kind: "literal", text: asText(found.value) };
    const last = resolved.at(-1);
    if (last?.kind === "literal" && next.kind === "literal")
      resolved[resolved.length - 1] = { kind: "literal", text: last.text + next.text };
    else resolved.push(next);
  }
  if (!final) return formatText(resolved);
  return resolved.map((part) => (part.kind === "literal" ? part.text : "")).join("");
}

/** A value whose texts hold no references, as a value to be resolved. */
function escapeValue(value: unknown): unknown {
  if (typeof value === "string") return value === "" ? "" : formatText([{ kind: "literal", text: value }]);
  if (Array.isArray(value)) return value.map(escapeValue);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, escapeValue(each)]));
}

function isReference(part: TextPart): part is Extract<TextPart, { kind: "parameter" | "output" }> {
  return part.kind === "parameter" || part.kind === "output";
}

/** Nothing is an empty text. */
function asText(value: unknown): string {
  if (value === null) return "";
  return typeof value === "string" ? value : (JSON.stringify(value) ?? "");
}

/** Puts in the parameters of the process. References to outputs stay, everything else is escaped. */
export function resolveParameters(
  value: unknown,
  parameters: Parameters,
  room: ReferenceRoom = new ReferenceRoom(REFERENCED_CHARACTERS_MAX),
): unknown {
  return resolveValue(
    value,
    (part) =>
      part.kind === "parameter"
        ? { value: room.take(Object.hasOwn(parameters, part.name) ? parameters[part.name] : null) }
        : null,
    false,
  );
}

/** A text in which only parameters of the process can stand, resolved for good. */
export function resolvePlainText(
  text: string,
  parameters: Parameters,
  room: ReferenceRoom = new ReferenceRoom(REFERENCED_CHARACTERS_MAX),
): string {
  const value = resolveText(
    text,
    (part) =>
      part.kind === "parameter" && Object.hasOwn(parameters, part.name)
        ? { value: room.take(parameters[part.name]) }
        : null,
    true,
  );
  return asText(value);
}

export type ResolvedOutputs =
  | { readonly kind: "resolved"; readonly parameters: Parameters }
  /** References for which there is no output, such as `Fetch.path`. The step cannot begin. */
  | { readonly kind: "missing"; readonly references: readonly string[] }
  /** Longer than REFERENCED_CHARACTERS_MAX with what its references put in. The step cannot begin. */
  | { readonly kind: "too-long" };

/**
 * The parameters of a step that becomes ready, as its component gets them. To be called for every step then, also for
 * one that names no output: until then its texts are escaped.
 * `outputs`: of the process's finished steps, by name; at least of those that referencedSteps names.
 */
export function resolveOutputs(
  parameters: Parameters,
  outputs: ReadonlyMap<string, Parameters>,
): ResolvedOutputs {
  const missing = new Set<string>();
  const room = new ReferenceRoom(REFERENCED_CHARACTERS_MAX);
  const resolved = resolveValue(
    parameters,
    (part) => {
      if (part.kind !== "output") return null;
      const output = outputs.get(part.step);
      if (output !== undefined && Object.hasOwn(output, part.output))
        return { value: room.take(output[part.output]) };
      missing.add(`${part.step}.${part.output}`);
      return { value: null };
    },
    true,
  );
  if (room.isExceeded) return { kind: "too-long" };
  return missing.size > 0
    ? { kind: "missing", references: [...missing] }
    : { kind: "resolved", parameters: resolved as Parameters };
}

/** Whether any text of a JSON value holds a `$`: else `resolveOutputs` changes nothing in it. */
export function mayRefer(value: unknown): boolean {
  if (typeof value === "string") return value.includes("$");
  if (typeof value !== "object" || value === null) return false;
  for (const each of Array.isArray(value) ? value : Object.values(value)) if (mayRefer(each)) return true;
  return false;
}

/** How many characters the texts of a JSON value have. */
export function countCharacters(value: unknown): number {
  if (typeof value === "string") return value.length;
  if (typeof value !== "object" || value === null) return 0;
  let count = 0;
  for (const each of Array.isArray(value) ? value : Object.values(value)) count += countCharacters(each);
  return count;
}

/** Names of the steps whose outputs these parameters name. */
export function referencedSteps(parameters: Parameters): string[] {
  const steps = new Set<string>();
  forEachText(parameters, [], (text) => {
    for (const part of parseText(text)) if (part.kind === "output") steps.add(part.step);
  });
  return [...steps];
}

/** Calls for every text in a JSON value, with where it stands. */
export function forEachText(
  value: unknown,
  at: readonly (string | number)[],
  use: (text: string, at: readonly (string | number)[]) => void,
): void {
  if (typeof value === "string") use(value, at);
  else if (Array.isArray(value))
    for (const [index, each] of value.entries()) forEachText(each, [...at, index], use);
  else if (typeof value === "object" && value !== null)
    for (const [key, each] of Object.entries(value)) forEachText(each, [...at, key], use);
}

/** What no database takes in a text: the character 0, and halves of surrogate pairs. */
export function isStorable(text: string): boolean {
  return !text.includes("\u0000") && text.isWellFormed();
}

/** Whether a JSON value is nested deeper than PARAMETER_DEPTH_MAX. Looks no further than that. */
export function isTooDeep(value: unknown, depth = 0): boolean {
  if (typeof value !== "object" || value === null) return false;
  if (depth >= PARAMETER_DEPTH_MAX) return true;
  return Object.values(value).some((each) => isTooDeep(each, depth + 1));
}

/** So much of outputs is shown with the parameters of one step. No single output is longer. */
const SHOWN_CHARACTERS_MAX = 512 * 1024;

/**
 * Parameters for people: outputs that are there put in, the other references as they stand in the template, and those for
 * which there is no room.
 */
export function showParameters(parameters: Parameters, outputs: ReadonlyMap<string, Parameters>): Parameters {
  const room = new ReferenceRoom(SHOWN_CHARACTERS_MAX);
  return resolveValue(
    parameters,
    (part) => {
      if (part.kind === "parameter") return { value: `\${${part.name}}` };
      const output = outputs.get(part.step);
      const value =
        output !== undefined && Object.hasOwn(output, part.output)
          ? room.take(output[part.output])
          : undefined;
      return value === undefined || room.isExceeded
        ? { value: `\${${part.step}.${part.output}}` }
        : { value };
    },
    true,
  ) as Parameters;
}

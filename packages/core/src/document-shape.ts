/**
 * Reading a document of ours whose text somebody else stored: closed objects, every fault named with its place, never
 * half a value. What a document may hold is said once, as a value of readers; the types of the readers are held to the
 * type of the document by the compiler.
 */
export interface DocumentFault {
  /** `resources[1].policy.pendingMs`; empty: the document as a whole. */
  readonly at: string;
  readonly problem: string;
}

export type ParsedDocument<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly faults: readonly DocumentFault[] };

/** A kind of document: how it is written and read. Equal values give equal text. */
export interface DocumentKind<T> {
  readonly format: (value: T) => string;
  readonly parse: (text: string) => ParsedDocument<T>;
}

/** Takes a value apart and notes what is wrong with it. Undefined: it noted something. */
export type Reader<T> = (
  value: unknown,
  at: string,
  note: (at: string, problem: string) => void,
) => T | undefined;

/** A kind of document whose text begins by naming itself, so that another version is told, not misread. */
export function documentKind<T>(format: string, read: Reader<T>): DocumentKind<T> {
  return {
    format: (value) => formatSorted({ ...value, format }),
    parse: (text) => {
      let root: unknown;
      try {
        root = JSON.parse(text);
      } catch (error) {
        return broken(error instanceof Error ? `is not JSON: ${error.message}` : "is not JSON");
      }
      if (!isObject(root)) return broken("is no JSON object");
      const { format: found, ...rest } = root;
      if (found !== format) return broken(`expected ${format}, found ${String(found).slice(0, 60)}`);
      const faults: DocumentFault[] = [];
      const value = read(rest, "", (at, problem) => faults.push({ at, problem }));
      return value === undefined || faults.length > 0 ? { ok: false, faults } : { ok: true, value };
    },
  };
}

const broken = (problem: string) => ({ ok: false, faults: [{ at: "", problem }] }) as const;

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** JSON with the members of each object in order, so that equal values give equal text. */
export function formatSorted(value: unknown): string {
  return JSON.stringify(value, (_, each: unknown) =>
    isObject(each)
      ? Object.fromEntries(Object.entries(each).toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
      : each,
  );
}

/** A text that fulfils the pattern; `what` says it in words. */
export const textLike =
  (pattern: RegExp, what: string): Reader<string> =>
  (value, at, note) => {
    if (typeof value === "string" && pattern.test(value)) return value;
    note(at, `must be ${what}, found ${show(value)}`);
    return undefined;
  };

/** Any text of at most so many UTF-16 units. */
export const textUpTo =
  (lengthMax: number): Reader<string> =>
  (value, at, note) => {
    if (typeof value === "string" && value.length <= lengthMax) return value;
    note(
      at,
      typeof value === "string"
        ? `is longer than ${lengthMax} characters`
        : `must be a text, found ${show(value)}`,
    );
    return undefined;
  };

export const number =
  (min: number, max: number): Reader<number> =>
  (value, at, note) => {
    if (typeof value === "number" && value >= min && value <= max) return value;
    note(at, `must be a number from ${min} to ${max}, found ${show(value)}`);
    return undefined;
  };

export const whole =
  (min = 0, max = Number.MAX_SAFE_INTEGER): Reader<number> =>
  (value, at, note) => {
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= min && value <= max)
      return value;
    const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
    note(at, `must be a whole number ${range}, found ${show(value)}`);
    return undefined;
  };

export const flag: Reader<boolean> = (value, at, note) => {
  if (typeof value === "boolean") return value;
  note(at, `must be true or false, found ${show(value)}`);
  return undefined;
};

export const oneOf =
  <T extends string>(choices: readonly T[]): Reader<T> =>
  (value, at, note) => {
    const choice = choices.find((each) => each === value);
    if (choice === undefined) note(at, `must be one of ${choices.join(", ")}, found ${show(value)}`);
    return choice;
  };

export const orNull =
  <T>(read: Reader<T>): Reader<T | null> =>
  (value, at, note) =>
    value === null ? null : read(value, at, note);

export const listOf =
  <T>(read: Reader<T>, countMax: number): Reader<readonly T[]> =>
  (value, at, note) => {
    if (!Array.isArray(value)) {
      note(at, `must be a list, found ${show(value)}`);
      return undefined;
    }
    if (value.length > countMax) {
      note(at, `has ${value.length} entries, at most ${countMax} are allowed`);
      return undefined;
    }
    const items = value.map((each: unknown, index) => read(each, `${at}[${index}]`, note));
    return items.every((item) => item !== undefined) ? items : undefined;
  };

/** An object whose member names are data. */
export const recordOf =
  <T>(read: Reader<T>, countMax: number): Reader<Readonly<Record<string, T>>> =>
  (value, at, note) => {
    if (!isObject(value)) {
      note(at, `must be an object, found ${show(value)}`);
      return undefined;
    }
    const entries = Object.entries(value);
    if (entries.length > countMax) {
      note(at, `has ${entries.length} members, at most ${countMax} are allowed`);
      return undefined;
    }
    const members: [string, T][] = [];
    for (const [name, each] of entries) {
      const member = read(each, join(at, name), note);
      if (member !== undefined) members.push([name, member]);
    }
    return members.length === entries.length ? Object.fromEntries(members) : undefined;
  };

/** An object with these members and no others. What is missing is as in `defaults`, or a fault. */
export const closed =
  <T extends object>(
    fields: { readonly [K in keyof T]-?: Reader<T[K]> },
    defaults: Partial<T> = {},
  ): Reader<T> =>
  (value, at, note) => {
    if (!isObject(value)) {
      note(at, `must be an object, found ${show(value)}`);
      return undefined;
    }
    for (const name of Object.keys(value))
      if (!Object.hasOwn(fields, name)) note(join(at, name), "is not known here");
    const result: Partial<T> = { ...defaults };
    let isWhole = true;
    for (const name of Object.keys(fields) as (keyof T & string)[]) {
      if (!Object.hasOwn(value, name)) {
        if (name in defaults) continue;
        note(join(at, name), "is missing");
        isWhole = false;
        continue;
      }
      const member = fields[name](value[name], join(at, name), note);
      if (member === undefined) isWhole = false;
      else result[name] = member;
    }
    return isWhole ? (result as T) : undefined;
  };

const join = (at: string, name: string) => (at === "" ? name : `${at}.${name}`);

const SHOWN = 60;

function show(value: unknown): string {
  const text = value === undefined ? "nothing" : (JSON.stringify(value) ?? typeof value);
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
}

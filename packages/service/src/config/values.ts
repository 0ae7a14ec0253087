import { type KeyPath, suggest } from "@lockstep/core";
import {
  type ConfigValues,
  type Parameter,
  type ParameterType,
  parametersOf,
  TABLE_NAMES,
  TABLES,
  type TableName,
} from "./parameters.ts";
import { isRecord } from "./record.ts";
import type { ConfigFaultSeverity } from "./types.ts";

/** A fault whose place in the text is not known yet. */
export interface ValueFault {
  readonly severity: ConfigFaultSeverity;
  readonly at: KeyPath;
  readonly problem: string;
}

/**
 * Takes the parameters out of a parsed document by the table of parameters, and collects every fault instead of
 * stopping at the first. The values are complete in any case (a faulty one is its default), so that later checks can
 * find more; whether they may be used is decided by the faults.
 */
export function readValues(document: unknown): { values: ConfigValues; faults: ValueFault[] } {
  const reader = new ValueReader();
  const root = isRecord(document) ? document : {};
  for (const key of Object.keys(root))
    if (!Object.hasOwn(TABLES, key))
      reader.fault(
        [key],
        isRecord(root[key]) || Array.isArray(root[key]) ? unknownTable(key) : unknownRoot(key),
      );
  const values = Object.fromEntries(
    TABLE_NAMES.map((name) => [
      name,
      TABLES[name].many ? reader.tables(name, root[name]) : reader.single(name, root[name]),
    ]),
  );
  // The reader has made exactly what the table says.
  return { values: values as unknown as ConfigValues, faults: reader.faults };
}

function unknownTable(name: string): string {
  const near = suggest(name, TABLE_NAMES);
  return `is no table of this file; ${near === null ? `there are ${TABLE_NAMES.join(", ")}` : `did you mean [${near}]?`}`;
}

function unknownRoot(key: string): string {
  const table = TABLE_NAMES.find((name) => Object.hasOwn(TABLES[name].parameters, key));
  return table === undefined ? unknownTable(key) : `belongs into the table [${table}]`;
}

class ValueReader {
  readonly faults: ValueFault[] = [];

  fault(at: KeyPath, problem: string, severity: ConfigFaultSeverity = "error"): void {
    this.faults.push({ severity, at, problem });
  }

  single(name: TableName, value: unknown): Record<string, unknown> {
    if (value === undefined) {
      if (TABLES[name].required)
        this.fault([], `there is no [${name}]: ${REQUIRED_BECAUSE[name] ?? "it is needed"}`);
      return this.#table(name, {}, [name], true);
    }
    if (isRecord(value)) return this.#table(name, value, [name], false);
    this.fault(
      [name],
      Array.isArray(value) ? `there may be one only; write [${name}]` : `must be a table; write [${name}]`,
    );
    return this.#table(name, {}, [name], true);
  }

  tables(name: TableName, value: unknown): Record<string, unknown>[] {
    if (value === undefined) return [];
    if (!Array.isArray(value)) {
      this.fault([name], `must be a list of tables; write [[${name}]]`);
      return [];
    }
    return value.map((each, index) => {
      if (isRecord(each)) return this.#table(name, each, [name, index], false);
      this.fault([name, index], "must be a table");
      return this.#table(name, {}, [name, index], true);
    });
  }

  #table(
    name: TableName,
    table: Readonly<Record<string, unknown>>,
    at: KeyPath,
    missing: boolean,
  ): Record<string, unknown> {
    const keys = parametersOf(name).map(([key]) => key);
    for (const key of Object.keys(table))
      if (!keys.includes(key)) this.fault([...at, key], unknownKey(name, key, keys));
    return Object.fromEntries(
      parametersOf(name).map(([key, parameter]) => {
        const value = table[key];
        if (value !== undefined) return [key, this.#value(parameter, value, [...at, key])];
        if (parameter.required === true && !missing)
          this.fault([...at, key], "is missing, and there is no default");
        return [key, parameter.default ?? (parameter.required === true ? "" : null)];
      }),
    );
  }

  #value(parameter: Parameter, value: unknown, at: KeyPath): unknown {
    const read = READERS[parameter.type](value, parameter);
    if (!isProblem(read)) return read.value;
    for (const { key, problem } of read.problems) this.fault([...at, ...key], problem);
    return parameter.default ?? (parameter.required === true ? "" : null);
  }
}

const REQUIRED_BECAUSE: Partial<Record<TableName, string>> = {
  JobProvider: "the service would not know its hub",
  FileLogWriter: "nobody would learn what it does",
};

const LOOKS_SECRET = /pass(word|wd|phrase)?$|^pwd$|secret|token|credential|(api|private)_?key/i;

function unknownKey(table: TableName, key: string, keys: readonly string[]): string {
  if (LOOKS_SECRET.test(key) && suggest(key, keys, 1) === null)
    return table === "HTTPAuthentication" || table === "JobProvider"
      ? `secrets never stand in this file; put it into a file of its own and name that by ${table === "JobProvider" ? "TokenFile" : "PasswordFile"}`
      : "secrets never stand in this file";
  const near = suggest(key, keys);
  if (near !== null) return `is not a parameter of [${table}]; did you mean ${near}?`;
  const home = TABLE_NAMES.find((name) => Object.hasOwn(TABLES[name].parameters, key));
  return home === undefined
    ? `is not a parameter of [${table}]; known here: ${keys.join(", ")}`
    : `is not a parameter of [${table}]; it belongs into [${home}]`;
}

type Read = { readonly value: unknown } | { readonly problems: readonly { key: KeyPath; problem: string }[] };
const isProblem = (read: Read): read is Extract<Read, { problems: unknown }> => "problems" in read;
const problem = (text: string, key: KeyPath = []): Read => ({ problems: [{ key, problem: text }] });

const READERS: Record<ParameterType, (value: unknown, parameter: Parameter) => Read> = {
  text: readText,
  path: (value) => (isText(value) && !value.includes("\0") ? { value } : problem("must be a path in quotes")),
  url: readUrl,
  paths: (value) =>
    Array.isArray(value) && value.every(isText) ? { value } : problem("must be a list of paths in quotes"),
  integer: (value, parameter) =>
    Number.isSafeInteger(value)
      ? readNumber(value, parameter)
      : problem(`must be a whole number${rangeText(parameter)}`),
  number: readNumber,
  boolean: (value) =>
    typeof value === "boolean" ? { value } : problem("must be true or false, without quotes"),
  choice: (value, { choices = [] }) =>
    typeof value === "string" && choices.includes(value)
      ? { value }
      : problem(`must be one of ${choices.map((each) => JSON.stringify(each)).join(", ")}`),
  variables: readVariables,
};

const isText = (value: unknown): value is string => typeof value === "string" && value.trim() !== "";

function readText(value: unknown, { min = 0, max = 2000 }: Parameter): Read {
  if (typeof value !== "string") return problem("must be a text in quotes");
  if (value.trim().length < min) return problem("is empty");
  if (value.length > max) return problem(`is longer than ${max} characters`);
  return /\p{Cc}/u.test(value) ? problem("holds a control character") : { value };
}

function readNumber(value: unknown, parameter: Parameter): Read {
  const { min = 0, max = Number.MAX_SAFE_INTEGER } = parameter;
  if (typeof value !== "number" || !Number.isFinite(value))
    return problem(`must be a number${rangeText(parameter)}`);
  return value < min || value > max ? problem(`is ${value}, must be${rangeText(parameter)}`) : { value };
}

const rangeText = ({ min, max, unit }: Parameter) =>
  ` from ${min ?? 0} to ${max ?? "any"}${unit === undefined ? "" : ` (${unit})`}`;

function readUrl(value: unknown): Read {
  const url = typeof value === "string" ? URL.parse(value) : null;
  if (url === null || !/^https?:$/.test(url.protocol))
    return problem('must be an address such as "https://hub.example:8700"');
  if (url.username !== "" || url.password !== "")
    return problem("holds a user or password; secrets never stand in this file");
  return { value: url.href.replace(/\/$/, "") };
}

/** A name that speaks of a secret means one; the file is meant to be shown around. */
const SECRET_VARIABLE = /(^|_)(PASS(WORD|WD)?|SECRET|TOKEN|CREDENTIALS?|API_?KEY|PRIVATE_?KEY)$/i;

function readVariables(value: unknown): Read {
  if (!isRecord(value)) return problem('must be a table of texts, such as { LANG = "C.UTF-8" }');
  const problems = Object.entries(value).flatMap(([name, each]) => {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
      return [{ key: [name], problem: "is no name of an environment variable" }];
    if (typeof each !== "string" || each.includes("\0"))
      return [{ key: [name], problem: "must be a text in quotes" }];
    if (SECRET_VARIABLE.test(name))
      return [
        {
          key: [name],
          problem: "secrets never stand in this file; set it in the environment of the service",
        },
      ];
    return [];
  });
  return problems.length === 0 ? { value } : { problems };
}

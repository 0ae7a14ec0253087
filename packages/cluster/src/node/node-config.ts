import { readFile } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { isNodeName, type KeyPath, suggest } from "@lockstep/core";
import { hostName } from "@lockstep/platform";
import { readToml } from "@lockstep/protocol/toml-lines";
import { type Fault, LockstepError } from "@lockstep/protocol/wire";
import type { CoordinationConfig } from "../coordination/open.ts";
import {
  type ConfigKey,
  type ConfigTable,
  NODE_CONFIG_ROOT,
  NODE_CONFIG_TABLES,
} from "./node-config-table.ts";

/** What a node's daemon needs to know before it can ask the cluster; paths are absolute. */
export interface NodeConfig {
  readonly file: string;
  readonly name: string;
  /** `host:port`. */
  readonly address: string;
  readonly data: string;
  readonly pushedConfig: "accept" | "report";
  readonly coordination: CoordinationConfig;
  readonly keyFile: string;
  readonly guard: { readonly watchdog: string | null; readonly priority: number | null };
}

type Value = string | number | readonly string[] | null;
type Note = (at: KeyPath, problem: string) => void;

/** A file of this size is no configuration of ours. */
const BYTES_MAX = 1024 * 1024;

/** Reads the configuration file of a node. Throws NODE_CONFIG with every fault at once, each with its line. */
export async function loadNodeConfig(path: string): Promise<NodeConfig> {
  const file = resolve(path);
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    throw new LockstepError("NODE_CONFIG", `the node configuration ${path} cannot be read`, {
      found: cause instanceof Error ? cause.message : String(cause),
      hint: "Name the file with --config or LOCKSTEP_NODE_CONFIG; docs/reference/node-config.md describes it.",
      cause,
    });
  }
  return parseNodeConfig(text, file);
}

/** As loadNodeConfig, from a text. Relative paths count from the directory of `file`. */
export function parseNodeConfig(text: string, file: string): NodeConfig {
  if (text.length > BYTES_MAX) throw invalid(file, [{ where: basename(file), problem: "is far too long" }]);
  const read = readToml(text);
  if (read.kind === "fault")
    throw invalid(file, [{ where: `${basename(file)}:${read.line}:${read.column}`, problem: read.problem }]);
  const found: { at: KeyPath; problem: string }[] = [];
  const config = build(read.value, file, (at, problem) => found.push({ at, problem }));
  if (found.length === 0) return config;
  const faults = found.map(({ at, problem }) => ({ ...read.lines.placeOf(at), at, problem }));
  throw invalid(
    file,
    faults
      .sort((a, b) => a.line - b.line || a.column - b.column)
      .map(({ line, column, at, problem }) => ({
        where: `${basename(file)}:${line}:${column}`,
        problem: `${at.join(".") || "the file"}: ${problem}`,
      })),
  );
}

function invalid(file: string, faults: readonly Fault[]): LockstepError {
  const count = faults.length === 1 ? "one fault" : `${faults.length} faults`;
  return new LockstepError("NODE_CONFIG", `the node configuration ${file} has ${count}`, {
    faults,
    hint: "Correct the lines named; docs/reference/node-config.md describes each key.",
  });
}

function build(document: unknown, file: string, note: Note): NodeConfig {
  const root = isTable(document) ? document : {};
  const tables = Object.keys(NODE_CONFIG_TABLES) as (keyof typeof NODE_CONFIG_TABLES)[];
  const rootValues = Object.fromEntries(
    Object.entries(root).filter(([key]) => !tables.some((table) => table === key)),
  );
  const directory = dirname(file);
  const top = readTable(NODE_CONFIG_ROOT, rootValues, [], directory, note, tables);
  const [coordination, key, guard] = (["coordination", "key", "guard"] as const).map((name) => {
    const value = root[name] ?? {};
    if (!isTable(value)) note([name], `must be a table; write [${name}]`);
    return readTable(NODE_CONFIG_TABLES[name], isTable(value) ? value : {}, [name], directory, note);
  });
  const name = text(top.name) ?? hostName();
  if (top.name === null && !isNodeName(name))
    note([], `name is missing, and this machine's ${name} cannot be the name of a node`);
  return {
    file,
    name,
    address: text(top.address) ?? "",
    data: text(top.data) ?? "",
    pushedConfig: top.pushedConfig === "report" ? "report" : "accept",
    coordination: buildCoordination(coordination ?? {}, note),
    keyFile: text(key?.file) ?? "",
    guard: { watchdog: text(guard?.watchdog), priority: whole(guard?.priority) },
  };
}

function buildCoordination(values: Readonly<Record<string, Value>>, note: Note): CoordinationConfig {
  const at = (key: string) => ["coordination", key];
  const isEtcd = values.store !== "postgres";
  const foreign = isEtcd
    ? ["url", "urlFile"]
    : ["endpoints", "caFile", "certFile", "keyFile", "user", "passwordFile"];
  for (const key of foreign)
    if (values[key] != null) note(at(key), `does not belong to store = "${isEtcd ? "etcd" : "postgres"}"`);
  const given = (key: string) => {
    const value = text(values[key]);
    return value === null ? {} : { [key]: value };
  };
  const common = { callMs: whole(values.callMs) ?? 0, prefix: text(values.prefix) ?? "" };
  if (!isEtcd) {
    if (values.url != null && values.urlFile != null) note(at("urlFile"), "is given beside url");
    if (values.url == null && values.urlFile == null) note(["coordination"], "names neither url nor urlFile");
    const url = URL.parse(text(values.url) ?? "");
    if (url !== null && url.password !== "")
      note(
        at("url"),
        "holds a password; secrets never stand in this file: put it into a file and name that by urlFile",
      );
    return {
      store: "postgres",
      watchMs: whole(values.watchMs) ?? 0,
      ...common,
      ...given("url"),
      ...given("urlFile"),
    };
  }
  const endpoints = Array.isArray(values.endpoints) ? (values.endpoints as readonly string[]) : [];
  if (endpoints.length === 0) note(["coordination"], "names no endpoints");
  if ((values.certFile == null) !== (values.keyFile == null))
    note(at(values.certFile == null ? "keyFile" : "certFile"), "needs the other one of certFile and keyFile");
  if ((values.user == null) !== (values.passwordFile == null))
    note(at(values.user == null ? "passwordFile" : "user"), "needs the other one of user and passwordFile");
  return {
    store: "etcd",
    endpoints,
    ...common,
    ...given("caFile"),
    ...given("certFile"),
    ...given("keyFile"),
    ...given("user"),
    ...given("passwordFile"),
  };
}

function readTable(
  table: ConfigTable,
  values: Readonly<Record<string, unknown>>,
  at: readonly string[],
  directory: string,
  note: Note,
  also: readonly string[] = [],
): Readonly<Record<string, Value>> {
  const known = Object.keys(table);
  for (const key of Object.keys(values)) {
    if (Object.hasOwn(table, key)) continue;
    const near = suggest(key, [...known, ...also]);
    const place = at.length === 0 ? "this file" : `[${at.join(".")}]`;
    note(
      [...at, key],
      `is not known in ${place}${near === null ? `; there are ${[...known, ...also].join(", ")}` : `; did you mean ${near}?`}`,
    );
  }
  return Object.fromEntries(
    Object.entries(table).map(([key, rule]) => {
      const value = values[key];
      if (value === undefined) {
        if (rule.default === undefined) note([...at, key], "is missing, and there is no default");
        return [key, rule.default ?? null];
      }
      const problem = problemOf(rule, value);
      if (problem !== null) note([...at, key], problem);
      // What is wrong counts as given, so that nobody is told that it is missing too.
      return [
        key,
        rule.type === "path" && typeof value === "string" ? resolve(directory, value) : (value as Value),
      ];
    }),
  );
}

function problemOf(
  { type, choices = [], min = 0, max = 1_000, unit = "" }: ConfigKey,
  value: unknown,
): string | null {
  switch (type) {
    case "name":
      return typeof value === "string" && isNodeName(value)
        ? null
        : "must be a name of letters, digits, dots, hyphens and underscores";
    case "address":
      return typeof value === "string" && isAddress(value)
        ? null
        : 'must be an address such as "10.0.0.1:7420"';
    case "path":
      return isText(value, 4_096) ? null : "must be a path in quotes";
    case "text":
      return isText(value, max) ? null : `must be a text in quotes of at most ${max} characters`;
    case "choice":
      return choices.some((each) => each === value)
        ? null
        : `must be one of ${choices.map((each) => JSON.stringify(each)).join(", ")}`;
    case "whole":
      return Number.isSafeInteger(value) && Number(value) >= min && Number(value) <= max
        ? null
        : `must be a whole number from ${min} to ${max}${unit === "" ? "" : ` (${unit})`}`;
    case "addresses":
      return Array.isArray(value) && value.length > 0 && value.every(isEndpoint)
        ? null
        : 'must be a list of addresses such as ["http://10.0.0.1:2379"], without user and password';
  }
}

const isText = (value: unknown, max: number) =>
  typeof value === "string" && value.trim() !== "" && value.length <= max && !/\p{Cc}/u.test(value);

function isAddress(value: string): boolean {
  const port = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})$/.exec(value)?.[1];
  return port !== undefined && Number(port) <= 65_535;
}

function isEndpoint(value: unknown): boolean {
  const url = typeof value === "string" ? URL.parse(value) : null;
  return url !== null && /^https?:$/.test(url.protocol) && url.username === "" && url.password === "";
}

const isTable = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
const text = (value: Value | undefined) => (typeof value === "string" ? value : null);
const whole = (value: Value | undefined) => (typeof value === "number" ? value : null);

import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import type { KeyPath } from "@lockstep/core";
import { hostName } from "@lockstep/platform";
import { readToml } from "@lockstep/protocol/toml-lines";
import { LockstepError, readClusterOrigin } from "@lockstep/protocol/wire";
import { buildConfig } from "./build.ts";
import { checkAcross } from "./checks.ts";
import type { ConfigValues } from "./parameters.ts";
import { findSurroundingFaults } from "./surroundings.ts";
import type { ConfigFault, LoadedConfig, ServiceConfig } from "./types.ts";
import { readValues, type ValueFault } from "./values.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/** A file of this size is no configuration of ours. */
const BYTES_MAX = 1024 * 1024;

/** What a text says, without a look at the machine around it. */
export interface ParsedConfig {
  /** Null: not even TOML. */
  readonly values: ConfigValues | null;
  readonly faults: ConfigFault[];
  readonly place: (faults: readonly ValueFault[]) => ConfigFault[];
}

/** Reads the text of a configuration: TOML, known keys, values in range, and what must fit together. */
export function parseServiceConfig(text: string): ParsedConfig {
  const read = readToml(text);
  if (read.kind === "fault") {
    const { line, column, problem } = read;
    return { values: null, faults: [{ severity: "error", line, column, key: "", problem }], place: () => [] };
  }
  const { value: document, lines } = read;
  const place = (faults: readonly ValueFault[]) =>
    faults
      .map(({ severity, at, problem }) => ({ severity, ...lines.placeOf(at), key: formatKey(at), problem }))
      .sort((a, b) => a.line - b.line || a.column - b.column);
  const { values, faults } = readValues(document);
  return { values, faults: place([...faults, ...checkAcross(values, document)]), place };
}

/**
 * Reads the configuration file and looks whether the files and environment variables that it names are there. Returns
 * every fault at once; `config` is null where one of them is an error.
 *
 * Throws SERVICE_CONFIG_UNREADABLE when the file itself cannot be read.
 */
export async function loadServiceConfig(path: string, environment: Environment): Promise<LoadedConfig> {
  const file = resolve(path);
  const loaded = await readConfigFile(file, environment);
  return { config: loaded.config, faults: loaded.faults };
}

export interface LoadedValues extends LoadedConfig {
  readonly values: ConfigValues | null;
}

/** As loadServiceConfig, with the values as they stand in the file beside the finished configuration. */
export async function readConfigFile(file: string, environment: Environment): Promise<LoadedValues> {
  const { values, faults, place } = parseServiceConfig(await readText(file));
  if (values === null) return { config: null, values, faults };
  // Inside a virtual server the host name is the virtual one; the machine is the node.
  const config = buildConfig(file, values, readClusterOrigin(environment)?.node ?? hostName());
  const all = [...faults, ...place(await findSurroundingFaults(config, values, environment))].sort(
    (a, b) => a.line - b.line || a.column - b.column,
  );
  return { config: all.some(({ severity }) => severity === "error") ? null : config, values, faults: all };
}

/**
 * As loadServiceConfig, for those who cannot go on without. Throws SERVICE_CONFIG_INVALID with every fault that is an
 * error, SERVICE_CONFIG_UNREADABLE.
 */
export async function requireServiceConfig(path: string, environment: Environment): Promise<ServiceConfig> {
  const { config, faults } = await loadServiceConfig(path, environment);
  if (config === null) throw configInvalid(path, faults);
  return config;
}

/**
 * The configuration for those who only look at the service that runs, which goes on when the file was spoilt under it:
 * `faulty` tells whether it was. Throws SERVICE_CONFIG_INVALID where the file is not even TOML or where a fault is in one
 * of `needed`, such as `FileLogWriter.OutPutFile`; SERVICE_CONFIG_UNREADABLE.
 */
export async function findServiceConfig(
  path: string,
  environment: Environment,
  needed: readonly string[],
): Promise<{ readonly config: ServiceConfig; readonly faulty: boolean }> {
  const file = resolve(path);
  const { config, values, faults } = await readConfigFile(file, environment);
  if (config !== null) return { config, faulty: false };
  if (values === null || faults.some(({ severity, key }) => severity === "error" && needed.includes(key)))
    throw configInvalid(path, faults);
  return { config: buildConfig(file, values, hostName()), faulty: true };
}

/** The faults that are errors as one error. */
export function configInvalid(path: string, faults: readonly ConfigFault[]): LockstepError {
  const errors = faults.filter(({ severity }) => severity === "error");
  const count = errors.length === 1 ? "one fault" : `${errors.length} faults`;
  return new LockstepError("SERVICE_CONFIG_INVALID", `the service configuration ${path} has ${count}`, {
    faults: errors.map((fault) => ({ where: formatPlace(path, fault), problem: formatProblem(fault) })),
    hint: "Correct the lines named; docs/reference/service-config.md describes each parameter.",
  });
}

/** `JobService.toml:12:3` */
export function formatPlace(path: string, fault: ConfigFault): string {
  return `${basename(path)}:${fault.line}:${fault.column}`;
}

/** `FileLogWriter.OutPutFile: is missing, …` */
export function formatProblem(fault: ConfigFault): string {
  return fault.key === "" ? fault.problem : `${fault.key}: ${fault.problem}`;
}

async function readText(file: string): Promise<string> {
  try {
    const bytes = await readRegular(file);
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    const found = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);
    throw new LockstepError("SERVICE_CONFIG_UNREADABLE", `the service configuration ${file} cannot be read`, {
      expected: "a text in UTF-8",
      found: found === "ENOENT" ? `nothing in ${dirname(file)}` : found,
      cause,
      hint: "Name the file by --config; lockstep service config show prints one with every parameter.",
    });
  }
}

/** A pipe or a device might never say anything, or never stop; opening a pipe would already wait for its other end. */
async function readRegular(file: string): Promise<Buffer> {
  const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const found = await handle.stat();
    if (!found.isFile()) throw new Error("it is no regular file");
    if (found.size > BYTES_MAX)
      throw new Error(`it has ${found.size} bytes, at most ${BYTES_MAX} make sense`);
    return await handle.readFile();
  } finally {
    await handle.close();
  }
}

/** Lists counted from 1, as people count. */
function formatKey(at: KeyPath): string {
  return at
    .map((part, index) => (typeof part === "number" ? `[${part + 1}]` : `${index === 0 ? "" : "."}${part}`))
    .join("");
}

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  type AssignRule,
  assignTargets,
  type FileRule,
  fileAttributes,
  formatTarget,
  isModuleId,
  isVersion,
  type ModuleDescription,
  parseAssignRule,
} from "@lockstep/core";
import type { LoadFile, LoadKind, LoadRequest } from "@lockstep/protocol/wire";
import { usage } from "../options.ts";

/** What the command line says of a load. */
export interface LoadArguments {
  readonly module?: string;
  readonly version?: string;
  readonly kind?: string;
  readonly assign?: readonly string[];
  /** A file, or `none`. */
  readonly moduleFile?: string;
}

/** What a load says of a file beside its content. What is absent stays as the repository has it; so do targets of null. */
type LoadAttributes = Pick<LoadFile, "targets" | "version" | "backup"> & Partial<Pick<LoadFile, "mode">>;

/** What is loaded, apart from its files. */
export interface LoadDescription {
  readonly module: LoadRequest["module"];
  readonly kind: LoadKind;
  readonly declared: LoadRequest["declared"];
  /** A file at the root of the directory that describes the module and is not part of it. */
  readonly omit: string | null;
  /** What description and command line say of one file. */
  readonly attributes: (path: string) => LoadAttributes;
}

const MODULE_FILE_NAME = "module.toml";
const KINDS: readonly LoadKind[] = ["version", "service-pack", "hotfix", "custom"];
/** Customers' own files live in this module and survive the versions of all others. */
const CUSTOM_MODULE = "CCC";

/**
 * Joins the module description beside the files, where there is one, with the command line: what is given there must
 * agree on id and version, `--assign` outranks the description. Throws USAGE and MODULE_FILE_INVALID.
 */
export async function describeLoad(directory: string, given: LoadArguments): Promise<LoadDescription> {
  const rules = (given.assign ?? []).map(readRule);
  const file = moduleFile(directory, given.moduleFile);
  const description = file === null ? null : await readDescription(file);
  const id =
    agree("--module", given.module, description?.id) ?? (given.kind === "custom" ? CUSTOM_MODULE : undefined);
  const version =
    agree("--version", given.version, description?.version) ?? (id === CUSTOM_MODULE ? "1" : undefined);
  if (id === undefined || version === undefined)
    throw usage(
      "the module and its version are missing",
      "--module ID --version V",
      undefined,
      missingHint(),
    );
  if (!isModuleId(id))
    throw usage("--module takes the id of a module", "letters, digits, _ . + - inside", id);
  if (!isVersion(version)) throw usage("--version takes a version", "such as 7.1.3", version);
  const kind = readKind(given.kind ?? (id === CUSTOM_MODULE ? "custom" : "version"));
  return {
    module: {
      id,
      version,
      name: description?.name ?? null,
      requires: [...(description?.requires ?? [])],
    },
    kind,
    declared: description === null ? null : toDeclared(description),
    omit: file !== null && file === join(directory, MODULE_FILE_NAME) ? MODULE_FILE_NAME : null,
    attributes: (path) => attributesOf(path, description?.files ?? null, rules, kind),
  };
}

function attributesOf(
  path: string,
  described: readonly FileRule[] | null,
  rules: readonly AssignRule[],
  kind: LoadKind,
): LoadAttributes {
  const attributes = fileAttributes(described ?? [], path);
  const targets = assignTargets(rules, path) ?? attributes.targets;
  // A version says anew what is to be said of each of its files; the other kinds leave alone what they do not mention.
  const isVersion = kind === "version";
  const saysTargets = isVersion && (described !== null || rules.length > 0);
  const saysRest = isVersion && described !== null;
  return {
    targets: targets?.map(formatTarget) ?? (saysTargets ? [] : null),
    ...(attributes.mode === null ? {} : { mode: attributes.mode }),
    ...(attributes.version === null && !saysRest ? {} : { version: attributes.version }),
    ...(attributes.backup === null && !saysRest ? {} : { backup: attributes.backup ?? false }),
  };
}

function readRule(text: string): AssignRule {
  const rule = parseAssignRule(text);
  if (!("problem" in rule)) return rule;
  throw usage(
    `--assign ${JSON.stringify(text)}: ${rule.problem}`,
    "'GLOB=ROLE', such as 'bin/**=Server/JobServer'",
    text,
  );
}

function readKind(text: string): LoadKind {
  const kind = KINDS.find((known) => known === text);
  if (kind === undefined) throw usage("--kind takes the kind of the load", KINDS.join(", "), text);
  return kind;
}

function moduleFile(directory: string, given: string | undefined): string | null {
  if (given === "none") return null;
  const file = given ?? join(directory, MODULE_FILE_NAME);
  return given !== undefined || existsSync(file) ? file : null;
}

async function readDescription(file: string): Promise<ModuleDescription> {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    throw usage(`the module description ${file} cannot be read`, undefined, (cause as Error).message);
  }
  // Its TOML parser is loaded only where there is something to parse.
  const { parseModuleFile } = await import("@lockstep/protocol/module-file");
  return parseModuleFile(text, file);
}

function agree(option: string, given: string | undefined, described: string | undefined): string | undefined {
  if (given !== undefined && described !== undefined && given !== described)
    throw usage(
      `${option} contradicts the module description`,
      described,
      given,
      "Correct one of them, or leave the description aside by --module-file none.",
    );
  return given ?? described;
}

function missingHint(): string {
  return `Give both, or describe the module in a file ${MODULE_FILE_NAME} beside its files.`;
}

function toDeclared(description: ModuleDescription): LoadRequest["declared"] {
  return {
    roles: description.roles.map((role) => ({
      path: role.path,
      description: role.description,
      selectable: role.selectable,
      packages: role.packages.map((related) => ({ ...related })),
    })),
    packages: description.packages.map((declared) => ({
      name: declared.id,
      description: declared.description,
      selectable: declared.selectable,
      requires: [...declared.requires],
    })),
  };
}

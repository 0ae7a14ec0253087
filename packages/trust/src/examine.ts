import { type Key, Metadata, MetadataKind, type Root, type Targets } from "@tufjs/models";
import { refused } from "./failure.ts";
import { isRecord, type Json, readStrictJson } from "./strict-json.ts";

/**
 * What a metadata document must be before the verifier sees it, and what the verifier leaves open.
 *
 * The library checks signatures, versions and times. It leaves to others: how a text may be written (strict-json.ts), that
 * a threshold is a number of at least one (A17), that two ids of one key are one key (A16), and that a document does not
 * cost more to verify than it is worth. Those checks stand here, so that what the library is given is harmless.
 */
const SIGNATURES_MAX = 64;
const KEYS_MAX = 512;
const ROLES_MAX = 512;
const NAME_LENGTH_MAX = 512;

export type Kind = "root" | "timestamp" | "snapshot" | "targets";

/** Reads and examines a document; `document` names it in errors. Throws TRUST_REFUSED. */
export function examine(bytes: Uint8Array, kind: Kind, document: string): void {
  const read = readStrictJson(bytes);
  if ("problem" in read) throw refused(document, read.problem);
  const problem = findProblem(read.value, kind);
  if (problem !== null) throw refused(document, problem);
}

function findProblem(value: Json, kind: Kind): string | null {
  if (!isRecord(value) || !isRecord(value.signed)) return "it has no signed part";
  const { signed, signatures } = value;
  if (!Array.isArray(signatures) || signatures.length > SIGNATURES_MAX)
    return `signatures: a list of at most ${SIGNATURES_MAX}`;
  if (signed._type !== kind) return `_type: expected ${kind}`;
  if (!isCount(signed.version)) return "version: a whole number of at least 1";
  // The library takes whatever the platform reads as a date; two platforms need not agree on anything else.
  if (
    typeof signed.expires !== "string" ||
    !/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z$/.test(signed.expires)
  )
    return "expires: a time in UTC";
  if (kind === "root") return findRootProblem(signed);
  if (kind === "targets") return findTargetsProblem(signed);
  return findMetaProblem(signed.meta);
}

function findRootProblem(signed: { readonly [member: string]: Json }): string | null {
  const keys = findKeysProblem(signed.keys);
  if (keys !== null) return keys;
  if (!isRecord(signed.roles)) return "roles: an object";
  for (const [name, role] of Object.entries(signed.roles)) {
    const problem = findRoleProblem(role);
    if (problem !== null) return `roles.${name}.${problem}`;
  }
  return null;
}

function findTargetsProblem(signed: { readonly [member: string]: Json }): string | null {
  const { targets, delegations } = signed;
  if (!isRecord(targets)) return "targets: an object";
  for (const [path, target] of Object.entries(targets))
    if (!isRecord(target) || !isLength(target.length)) return `targets: the length of ${path.slice(0, 80)}`;
  if (delegations === undefined) return null;
  if (!isRecord(delegations)) return "delegations: an object";
  const keys = findKeysProblem(delegations.keys);
  if (keys !== null) return keys;
  const { roles, succinct_roles } = delegations;
  if (succinct_roles !== undefined) return findRoleProblem(succinct_roles);
  if (!Array.isArray(roles) || roles.length > ROLES_MAX) return `delegations.roles: at most ${ROLES_MAX}`;
  const names = new Set<string>();
  for (const role of roles) {
    const problem = findRoleProblem(role);
    if (problem !== null) return `delegations.roles: ${problem}`;
    const name = isRecord(role) ? role.name : null;
    if (typeof name !== "string" || name.length === 0 || name.length > NAME_LENGTH_MAX)
      return "delegations.roles: name";
    // A role of a second entry would be verified by whichever entry a reader happens to take.
    if (names.has(name)) return `delegations.roles: ${name.slice(0, 80)} comes twice`;
    names.add(name);
  }
  return null;
}

function findMetaProblem(meta: Json | undefined): string | null {
  if (!isRecord(meta)) return "meta: an object";
  for (const [name, file] of Object.entries(meta)) {
    if (!isRecord(file) || !isCount(file.version)) return `meta: the version of ${name.slice(0, 80)}`;
    if (file.length !== undefined && !isLength(file.length))
      return `meta: the length of ${name.slice(0, 80)}`;
  }
  return null;
}

function findKeysProblem(keys: Json | undefined): string | null {
  return isRecord(keys) && Object.keys(keys).length <= KEYS_MAX ? null : `keys: at most ${KEYS_MAX}`;
}

function findRoleProblem(role: Json | undefined): string | null {
  if (!isRecord(role)) return "an object is expected";
  if (!isCount(role.threshold)) return "threshold: a whole number of at least 1";
  if (!Array.isArray(role.keyids) || role.keyids.length > KEYS_MAX) return `keyids: at most ${KEYS_MAX}`;
  return null;
}

function isCount(value: Json | undefined): value is number {
  return typeof value === "number" && value >= 1;
}

function isLength(value: Json | undefined): value is number {
  return typeof value === "number" && value >= 0;
}

/**
 * Demands that a document is signed by enough *different* keys (A16): an id is a name, and a key can be given two. Call
 * it with a document that the library accepted or will. Throws TRUST_REFUSED.
 */
export function demandDistinctKeys(
  delegator: Metadata<Root | Targets>,
  role: string,
  bytes: Uint8Array,
  kind: Kind,
): void {
  const { different, needed } = count(delegator, role, parse(bytes, kind));
  if (different < needed) throw refused(role, `signed by ${different} different keys, ${needed} are needed`);
}

/** How many different keys of a role signed a document of that role, and whether these are enough. */
export function countSignatures(
  delegator: Metadata<Root | Targets>,
  role: Kind,
  bytes: Uint8Array,
): { readonly signatures: number; readonly needed: number; readonly enough: boolean } {
  const { different, needed } = count(delegator, role, parse(bytes, role));
  return { signatures: different, needed, enough: different >= needed };
}

function count(
  delegator: Metadata<Root | Targets>,
  role: string,
  document: Metadata<Root | Targets>,
): { readonly different: number; readonly needed: number } {
  const { keys, ids, threshold } = keysOf(delegator, role);
  const different = new Set<string>();
  for (const id of ids) {
    const key = keys[id];
    const text = key?.keyVal.public;
    if (key === undefined || text === undefined) continue;
    try {
      key.verifySignature(document);
      different.add(text.replaceAll(/\s/g, "").toLowerCase());
    } catch {
      // Not by this key.
    }
  }
  return { different: different.size, needed: threshold };
}

interface RoleKeys {
  readonly keys: Readonly<Record<string, Key>>;
  readonly ids: readonly string[];
  readonly threshold: number;
}

function keysOf(delegator: Metadata<Root | Targets>, role: string): RoleKeys {
  const { signed } = delegator;
  if (signed.type === MetadataKind.Root && "roles" in signed) {
    const found = signed.roles[role];
    return { keys: signed.keys, ids: found?.keyIDs ?? [], threshold: found?.threshold ?? 1 };
  }
  const delegations = "delegations" in signed ? signed.delegations : undefined;
  const found = delegations?.roles?.[role] ?? delegations?.succinctRoles;
  return { keys: delegations?.keys ?? {}, ids: found?.keyIDs ?? [], threshold: found?.threshold ?? 1 };
}

function parse(bytes: Uint8Array, kind: Kind): Metadata<Root | Targets> {
  const data = JSON.parse(Buffer.from(bytes).toString("utf8"));
  return Metadata.fromJSON(KINDS[kind] as MetadataKind.Root, data);
}

const KINDS: Readonly<Record<Kind, MetadataKind>> = {
  root: MetadataKind.Root,
  timestamp: MetadataKind.Timestamp,
  snapshot: MetadataKind.Snapshot,
  targets: MetadataKind.Targets,
};

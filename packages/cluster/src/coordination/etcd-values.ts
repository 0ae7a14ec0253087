import { LockstepError } from "@lockstep/protocol/wire";

/**
 * How etcd's JSON gateway writes its values: keys and values in base64, 64-bit numbers as text, and what is zero, false or
 * empty left out.
 */
export interface KeyValue {
  readonly key: string;
  readonly value: string;
  readonly modRevision: number;
}

export const encode = (text: string) => Buffer.from(text, "utf8").toString("base64");
const decode = (text: unknown) =>
  typeof text === "string" ? Buffer.from(text, "base64").toString("utf8") : "";

/** A request of a transaction. */
export const put = (key: string, value: string) => ({
  request_put: { key: encode(key), value: encode(value) },
});

/** A condition of a transaction: the key was last changed at this revision; 0: there is none. */
export const isAt = (key: string, revision: number) => ({
  key: encode(key),
  target: "MOD",
  result: "EQUAL",
  mod_revision: String(revision),
});

/** Every key that begins with the prefix, which is not empty. */
export function rangeOf(prefix: string): { readonly key: string; readonly range_end: string } {
  const end = Buffer.from(prefix, "utf8");
  // The last byte of UTF-8 is never 255.
  const last = end.length - 1;
  end[last] = (end[last] ?? 0) + 1;
  return { key: encode(prefix), range_end: end.toString("base64") };
}

export function member(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

export function list(value: unknown, name: string): readonly unknown[] {
  const found = member(value, name);
  return Array.isArray(found) ? found : [];
}

export const hasSucceeded = (answer: unknown) => member(answer, "succeeded") === true;
export const firstResponse = (answer: unknown, kind: string) => member(list(answer, "responses")[0], kind);

/** The revision of the store at which it answered. Throws COORDINATION_ANSWER_INVALID. */
export function revisionOf(answer: unknown): number {
  const revision = Number(member(member(answer, "header"), "revision"));
  if (Number.isSafeInteger(revision) && revision > 0) return revision;
  throw new LockstepError("COORDINATION_ANSWER_INVALID", "etcd answered without a revision", {
    found: JSON.stringify(answer)?.slice(0, 200) ?? "nothing",
  });
}

/** The term of the leader that the answering member knows; 0 where the answer names none. */
export const termOf = (answer: unknown): number =>
  Number(member(member(answer, "header"), "raft_term") ?? 0) || 0;

export const keyValue = (kv: unknown): KeyValue => ({
  key: decode(member(kv, "key")),
  value: decode(member(kv, "value")),
  modRevision: Number(member(kv, "mod_revision") ?? 0),
});

export const keyValues = (range: unknown): KeyValue[] => list(range, "kvs").map(keyValue);

import type { LeaseRecord } from "@lockstep/core";
import { LockstepError } from "@lockstep/protocol/wire";

/** The record of a lease as text: `lockstep-lease/1` and its members, so that another version is told, not misread. */
const FORMAT = "lockstep-lease/1";

export function formatRecord({ node, instance, token, write, next }: LeaseRecord): string {
  return JSON.stringify({ format: FORMAT, node, instance, token, write, next });
}

/** `where`: what to name in the error. Throws COORDINATION_ANSWER_INVALID. */
export function parseRecord(text: string, where: string): LeaseRecord {
  const record = readJson(text);
  if (record !== null) {
    const { format, node, instance, token, write, next } = record;
    if (
      format === FORMAT &&
      isNameOrNull(node) &&
      typeof instance === "string" &&
      isCount(token) &&
      isCount(write) &&
      isNameOrNull(next)
    )
      return { node, instance, token, write, next };
  }
  throw new LockstepError("COORDINATION_ANSWER_INVALID", `${where} holds no record of a lease`, {
    expected: FORMAT,
    found: text.slice(0, 100),
    hint: "Nobody but the nodes of this cluster may write there; all must be of versions that understand each other.",
  });
}

function readJson(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}

const isNameOrNull = (value: unknown): value is string | null => value === null || typeof value === "string";
const isCount = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0;

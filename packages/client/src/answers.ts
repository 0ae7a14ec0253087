import { isSha256, parseTarget } from "@lockstep/core";
import type { RevisionDocument, Semaphore } from "@lockstep/protocol/wire";

/**
 * What an installation acts upon is checked by hand, member by member: these answers decide what is written to a
 * customer's disk, and a schema library would take longer to load than the whole check takes.
 * Each function returns the value, or the place of the first fault.
 */
export type Checked<T> = { readonly value: T } | { readonly fault: string };

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === "string");
}

/** GET /v1/revision. */
export function checkSemaphore(value: unknown): Checked<Semaphore> {
  if (!isObject(value)) return { fault: "it is no object" };
  const { revision, autoUpdate, pollSeconds } = value;
  if (!isCount(revision)) return { fault: "revision" };
  if (typeof autoUpdate !== "boolean") return { fault: "autoUpdate" };
  if (!isCount(pollSeconds) || pollSeconds < 1) return { fault: "pollSeconds" };
  // Whatever else a newer hub tells stays in: the members above are those that decide.
  return { value: value as Semaphore };
}

/** GET /v1/revisions/{number}. */
export function checkRevision(value: unknown, number: number): Checked<RevisionDocument> {
  if (!isObject(value)) return { fault: "it is no object" };
  if (value.number !== number)
    return { fault: `number: expected ${number}, found ${JSON.stringify(value.number)}` };
  if (!isSha256(value.digest)) return { fault: "digest" };
  if (!isCount(value.createdAt)) return { fault: "createdAt" };
  if (!Array.isArray(value.manifests)) return { fault: "manifests" };
  for (const [index, ref] of value.manifests.entries()) {
    const good =
      isObject(ref) &&
      typeof ref.target === "string" &&
      parseTarget(ref.target) !== null &&
      isSha256(ref.sha256) &&
      isCount(ref.size) &&
      isCount(ref.files) &&
      isCount(ref.bytes);
    if (!good) return { fault: `manifests[${index}]` };
  }
  const archive = value.updateArchive;
  if (archive !== null && !(isObject(archive) && isSha256(archive.sha256) && isCount(archive.size)))
    return { fault: "updateArchive" };
  if (!isObject(value.packageClosure) || !Object.values(value.packageClosure).every(isTexts))
    return { fault: "packageClosure" };
  if (!isTexts(value.selectableRoles)) return { fault: "selectableRoles" };
  if (!isTexts(value.selectablePackages)) return { fault: "selectablePackages" };
  return { value: value as unknown as RevisionDocument };
}

/** Whether an answer is an object with at least the named members: enough for what is only shown. */
export function checkMembers<T>(value: unknown, members: readonly string[]): Checked<T> {
  if (!isObject(value)) return { fault: "it is no object" };
  const missing = members.find((member) => !(member in value));
  return missing === undefined ? { value: value as T } : { fault: `${missing} is missing` };
}

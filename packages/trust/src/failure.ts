import { isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import type { Snapshot, Timestamp } from "@tufjs/models";
import { BadVersionError, ExpiredMetadataError } from "tuf-js/dist/error.js";
import type { TrustedMetadataStore } from "tuf-js/dist/store.js";
import { isRecord, type Json, readStrictJson } from "./strict-json.ts";

/** What was trusted and what came, when something was refused. */
export interface Refusal {
  /** The document that came; it was examined. */
  readonly bytes: Uint8Array;
  /** What is trusted after the refusal. */
  readonly trusted: TrustedMetadataStore;
  /** What was trusted before. */
  readonly former: { readonly timestamp: Timestamp | null; readonly snapshot: Snapshot | null };
  readonly time: TrustTime;
}

/** Milliseconds since 1970. */
export interface TrustTime {
  /** What decides about expiry: the clock, or the newest time at which something was trusted here. */
  readonly referenceMs: number;
  readonly clockMs: number;
}

/**
 * What the verifier says, as errors of ours. Three things are told apart because three different people act on them:
 * something is out of date (somebody must sign again), something is older than what was trusted before (the hub was set
 * back, or somebody replays), and everything else (somebody else signed, or nobody). Both values come from the documents, not
 * from the library's words.
 */
export function trustFailure(
  error: unknown,
  document: string,
  refusal: Refusal | null = null,
): LockstepError {
  if (isLockstepError(error)) return error;
  const said = error instanceof Error ? error.message : String(error);
  if (error instanceof ExpiredMetadataError && refusal !== null)
    return expired(whatExpired(refusal, document), refusal.time, error);
  if (error instanceof BadVersionError) {
    const { expected, found } = (refusal === null ? null : versionsOf(refusal, document)) ?? {
      expected: "a version that is not lower",
      found: said,
    };
    return new LockstepError("TRUST_ROLLED_BACK", `${document} is older than what was trusted before`, {
      expected,
      found,
      hint: "Nothing was taken. Was the hub restored from a backup? Then, at the hub: lockstep keys recover. Otherwise somebody replays old metadata: find out who stands between.",
      cause: error,
    });
  }
  return refused(document, said, error);
}

/** A signature that is out of date, with its end, the time here, and who can renew it. */
export function expired(
  { role, expires }: { readonly role: string; readonly expires: string },
  { referenceMs, clockMs }: TrustTime,
  cause?: unknown,
): LockstepError {
  const now =
    clockMs >= referenceMs
      ? `${utc(clockMs)}, by this machine's clock`
      : `${utc(referenceMs)}, when something was trusted here (this machine's clock: ${utc(clockMs)})`;
  return new LockstepError("TRUST_EXPIRED", `the signature of ${role}.json is out of date`, {
    expected: `one that is good at ${now}`,
    found: `it was good until ${expires}`,
    hint: `Nothing new is taken, and what is installed goes on. Is this machine's clock right? Then ${RENEWAL[role] ?? RENEWAL.timestamp}`,
    ...(cause === undefined ? {} : { cause }),
  });
}

const ONLINE =
  "the hub does not renew it, or somebody holds newer ones back: lockstep hub status says which.";
const RENEWAL: Readonly<Record<string, string>> = {
  root: "the owner of the root keys renews it: lockstep keys rotate root --keys DIR.",
  targets: "the owner of the root keys renews it: lockstep keys rotate targets --keys DIR.",
  snapshot: ONLINE,
  timestamp: ONLINE,
};

/** Metadata that is not acceptable, whatever the reason. */
export function refused(document: string, found: string, cause?: unknown): LockstepError {
  return new LockstepError("TRUST_REFUSED", `${document} is not signed as it must be`, {
    expected: "metadata that the pinned root vouches for",
    found,
    hint: "Nothing was taken. Somebody between here and the release keys altered it, or the hub was set up anew.",
    ...(cause === undefined ? {} : { cause }),
  });
}

/** The first in the order of the workflow that is out of date; what came may not have got so far as to be trusted. */
function whatExpired({ trusted, time, bytes }: Refusal, document: string) {
  const now = new Date(time.referenceMs);
  for (const metadata of [trusted.root, trusted.timestamp, trusted.snapshot])
    if (metadata?.signed.isExpired(now) === true)
      return { role: String(metadata.signed.type), expires: metadata.signed.expires };
  const { expires } = signedPart(bytes);
  return { role: roleOf(document), expires: String(expires) };
}

/** Which version was demanded and which one came. */
function versionsOf(
  { trusted, former, bytes }: Refusal,
  document: string,
): { readonly expected: string; readonly found: string } | null {
  const { _type: type, version, meta } = signedPart(bytes);
  if (type === "root")
    return { expected: `version ${trusted.root.signed.version + 1}`, found: `version ${version}` };
  if (type === "timestamp") {
    const { timestamp } = former;
    if (timestamp === null) return null;
    if (Number(version) < timestamp.version) return lower("version", timestamp.version, version);
    return lower("the snapshot's version", timestamp.snapshotMeta.version, versionIn(meta, "snapshot.json"));
  }
  if (type === "snapshot") {
    const named = trusted.timestamp?.signed.snapshotMeta.version;
    if (named !== undefined && version !== named)
      return { expected: `version ${named}, as the timestamp names it`, found: `version ${version}` };
    for (const [name, { version: seen }] of Object.entries(former.snapshot?.meta ?? {})) {
      const now = versionIn(meta, name);
      if (Number(now) < seen) return lower(`the version of ${name}`, seen, now);
    }
    return null;
  }
  const named = trusted.snapshot?.signed.meta[`${roleOf(document)}.json`]?.version;
  return named === undefined
    ? null
    : { expected: `version ${named}, as the snapshot names it`, found: `version ${version}` };
}

/** `targets` of `3.targets.json`. */
function roleOf(document: string): string {
  return document.replaceAll(/^\d+\.|\.json$/g, "");
}

function lower(what: string, seen: number, found: unknown) {
  return { expected: `${what} at least ${seen}`, found: String(found) };
}

function versionIn(meta: Json | undefined, name: string): Json | undefined {
  const file = isRecord(meta) ? meta[name] : undefined;
  return isRecord(file) ? file.version : undefined;
}

function signedPart(bytes: Uint8Array): { readonly [member: string]: Json } {
  const read = readStrictJson(bytes);
  const value = "value" in read ? read.value : null;
  return isRecord(value) && isRecord(value.signed) ? value.signed : {};
}

function utc(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}

import { systemClock } from "@lockstep/platform";
import { type ErrorBody, isLockstepError, LockstepError, toErrorBody } from "@lockstep/protocol/wire";
import { KEY_ROLES, type KeyRole } from "@lockstep/trust";
import { connectHub } from "./hub-access.ts";
import { locate, readInstalledRevision, readInstallHead } from "./installation.ts";
import type { SessionOptions } from "./session.ts";
import { readKnownSigned } from "./signed-known.ts";
import { trustStore } from "./trust.ts";
import { type ShownTrust, showTrust } from "./trust-show.ts";
import { lookAtSignatures } from "./update.ts";

/** A document as it is trusted after the look. */
export interface CheckedDocument {
  readonly role: KeyRole;
  readonly version: number;
  /** Until when it is good, in milliseconds since 1970. */
  readonly expiresAt: number;
  readonly expired: boolean;
  readonly threshold: number;
  readonly keys: readonly string[];
}

/** What an installation found when it looked at the signatures now. */
export interface CheckedTrust extends ShownTrust {
  readonly hub: string;
  /** Version of the root that was trusted before the look. */
  readonly formerRoot: number;
  readonly documents: readonly CheckedDocument[];
  /** What the hub announces to it. */
  readonly announced: number;
  /** What is installed, and under which digest it was signed; null: not known. */
  readonly installed: { readonly revision: number | null; readonly digest: string | null };
  /** What is wrong, as an error; null: nothing. */
  readonly problem: ErrorBody["error"] | null;
}

const WRONG = /^(TRUST|ORDER|DOWNGRADE)_/;

/**
 * Looks at what is signed now, whether or not something new is announced. What is accepted is kept (a new root, a new epoch of the
 * log of releases), what is wrong is an alarm in update.log and at the hub, as with an update, and comes back as `problem`. Throws
 * TRUST_ROOT_MISSING, TRUST_DAMAGED, INSTALLATION_LOCKED and its kin, and what a hub call throws.
 */
export async function checkTrust(directory: string, options: SessionOptions): Promise<CheckedTrust> {
  const paths = locate(directory);
  const head = readInstallHead(paths);
  const before = await showTrust(directory);
  const client = await connectHub(head.hub, options.access, paths);
  let problem: CheckedTrust["problem"] = null;
  let announced: number;
  try {
    const answer = await client.semaphore(null, { signal: options.signal, installation: head.id });
    announced = answer.kind === "equal" ? answer.revision : answer.semaphore.revision;
  } finally {
    await client.close();
  }
  try {
    if (announced === 0) throw nothingSigned();
    await lookAtSignatures(directory, announced, options);
  } catch (error) {
    if (!isLockstepError(error) || !WRONG.test(error.code)) throw error;
    problem = toErrorBody(error).error;
  }
  const after = await showTrust(directory);
  const { revision, digest } = readKnownSigned(paths, readInstalledRevision(paths)?.revision ?? null);
  return {
    ...after,
    hub: client.url,
    formerRoot: before.root.version,
    documents: readDocuments(directory, after, (options.clock ?? systemClock).now()),
    announced,
    installed: { revision, digest },
    problem,
  };
}

function nothingSigned(): LockstepError {
  return new LockstepError("TRUST_UNAVAILABLE", "the hub has no software revision any more", {
    expected: "a software revision of 1 or higher",
    found: 0,
    hint: "Was its database emptied or replaced? The installation goes on with what it has.",
  });
}

function readDocuments(directory: string, { root }: ShownTrust, nowMs: number): CheckedDocument[] {
  const store = trustStore(locate(directory));
  return KEY_ROLES.flatMap((role) => {
    const bytes = store.read(role);
    const named = root.roles.find((each) => each.role === role);
    if (bytes === null || named === undefined) return [];
    // What is kept was verified before it was written.
    const { signed } = JSON.parse(Buffer.from(bytes).toString("utf8")) as {
      signed: { version: number; expires: string };
    };
    const expiresAt = Date.parse(signed.expires);
    const { threshold, keys } = named;
    return [{ role, version: signed.version, expiresAt, expired: expiresAt <= nowMs, threshold, keys }];
  });
}

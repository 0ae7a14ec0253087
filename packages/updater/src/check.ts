import type { HubClient } from "@lockstep/client";
import { systemClock } from "@lockstep/platform";
import { judgeMark, type Semaphore } from "@lockstep/protocol/wire";
import { connectHub, type HubAccess } from "./hub-access.ts";
import {
  type InstallHead,
  isUnfinished,
  locate,
  readInstalledRevision,
  readInstallHead,
} from "./installation.ts";
import type { InstallationPaths } from "./layout.ts";
import type { Subject } from "./orders.ts";
import { readKnownSigned } from "./signed-known.ts";

/**
 * Is there anything to do? (S25, behaviour 11)
 *
 * One request with the installed revision as its condition. Equal: nothing of the product is opened and nothing is
 * written, so this file and what it imports stay small; everything else of the updater is loaded only when it is needed:
 * also what verifies signatures, when the hub says that the number stands for another content than the one that is here.
 */
export interface CheckOptions {
  readonly access: HubAccess;
  readonly signal?: AbortSignal | undefined;
}

export type CheckResult =
  | { readonly kind: "in-step"; readonly revision: number; readonly head: InstallHead }
  | {
      readonly kind: "behind";
      /** Null: the revision file was missing or damaged, which counts as out of date (behaviour 10). */
      readonly installed: number | null;
      readonly semaphore: Semaphore;
      readonly head: InstallHead;
    };

/**
 * Compares the installed revision with the semaphore. Finishes an interrupted update first, if there is one.
 * Throws INSTALLATION_NOT_FOUND, INSTALLATION_STATE_INVALID, TRUST_REVISION_DIFFERS and the other TRUST_* codes where the number
 * is the same and not what it stands for, and what a hub call throws.
 */
export async function check(directory: string, options: CheckOptions): Promise<CheckResult> {
  const paths = locate(directory);
  if (isUnfinished(paths)) {
    const { recoverFirst } = await import("./recovery.ts");
    await recoverFirst(paths, { environment: options.access.environment });
  }
  return await checkLocated(paths, options);
}

/** The same without recovery, for callers that have done it. */
export async function checkLocated(paths: InstallationPaths, options: CheckOptions): Promise<CheckResult> {
  const head = readInstallHead(paths);
  const installed = readInstalledRevision(paths)?.revision ?? null;
  const client = await connectHub(head.hub, options.access, paths);
  try {
    const answer = await client.semaphore(installed, {
      signal: options.signal,
      installation: head.id,
    });
    if (answer.kind === "different") return { kind: "behind", installed, semaphore: answer.semaphore, head };
    if (judgeMark(answer.signed, readKnownSigned(paths, installed)) === "revision-differs")
      await lookWithoutKeeping(client, paths, { installation: head.id, installed }, options.signal);
    return { kind: "in-step", revision: answer.revision, head };
  } finally {
    await client.close();
  }
}

/** Looks at what is signed, and writes nothing: whoever only checks may not even be allowed to. Throws the TRUST_* codes. */
export async function lookWithoutKeeping(
  client: HubClient,
  paths: InstallationPaths,
  subject: Subject,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { lookAtSigned, trustStore } = await import("./trust.ts");
  await lookAtSigned(client, trustStore(paths), { clock: systemClock, signal, subject });
}

import type { HubClient } from "@lockstep/client";
import { isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import {
  appendEntry,
  countSignatures,
  demandNextRoot,
  examine,
  isSignedBy,
  type PublicKey,
  readRoot,
  readSignedRevision,
  readTargets,
  type SignedRevision,
} from "@lockstep/trust";
import { readRootFile } from "../root-file.ts";
import { type KeyArguments, publicKeys } from "./key-files.ts";

/**
 * The revision that what waits for a signature is compared with.
 *
 * A hub that somebody took over could show a former revision in which the files that it wants to smuggle in stand already:
 * then nothing of them would be seen. So a former revision counts only when a release key that is here signed it, or those
 * that a known root names; and only when it is the one right before, for an older genuine one would hide that files go back
 * to what they were. Whatever else is shown counts for nothing, and every file is new.
 */
interface Former {
  readonly version: number;
  readonly signed: SignedRevision;
  /** Whose signature made it count. */
  readonly vouchedBy: string;
}

export interface FormerArguments extends KeyArguments {
  /** A root of trust that is known to be the right one. */
  readonly root?: string;
}

/** What waits, as far as it says what comes before it. */
interface Following {
  readonly version: number;
  readonly signed: SignedRevision;
}

/**
 * The former revision, or why there is none to compare with (null: it is the first one). Throws TRUST_REFUSED when the named
 * root does not lead to that of the hub, USAGE when it cannot be read, KEY_MISSING, KEY_FILE_INVALID.
 */
export async function formerRevision(
  hub: HubClient,
  given: FormerArguments,
  next: Following,
): Promise<{ readonly former: Former | null; readonly problem: string | null }> {
  const { roles } = await hub.signingStatus();
  const version = roles.find(({ role }) => role === "targets")?.version ?? null;
  const none = (problem: string | null) => ({ former: null, problem });
  if (version === null)
    return none(
      next.version === 1
        ? null
        : `the hub shows no former revision, though what waits is version ${next.version} of what is signed`,
    );
  const bytes = await hub.signedDocument(`${version}.targets.json`);
  examine(bytes, "targets", `${version}.targets.json`);
  const vouchedBy = await whoVouches(hub, given, bytes);
  if (vouchedBy === null)
    return none(
      "the former revision that the hub shows is signed by no release key that is here, and by none of a root that is known (--root FILE)",
    );
  const { signed: targets } = readTargets(bytes);
  const signed = readSignedRevision(targets);
  const problem = whyNotBefore({ version: targets.version, signed }, next);
  return problem === null
    ? { former: { version: targets.version, signed, vouchedBy }, problem: null }
    : none(`the former revision that the hub shows is not the one right before: ${problem}`);
}

/** Version and log of releases of what waits have to follow, as they do for installations. */
function whyNotBefore(former: Following, next: Following): string | null {
  if (next.version !== former.version + 1)
    return `its signed version is ${former.version}, that of what waits is ${next.version}`;
  const { number: revision, digest } = next.signed.document;
  const { size, head } = former.signed.log;
  const expected = appendEntry({ size, head }, { index: size + 1, revision, digest });
  return expected.size === next.signed.log.size && expected.head === next.signed.log.head
    ? null
    : `what waits continues another log of releases than that of revision ${former.signed.document.number}`;
}

async function whoVouches(hub: HubClient, given: FormerArguments, bytes: Uint8Array): Promise<string | null> {
  const targets = readTargets(bytes);
  const own = (await publicKeys(given, "targets")).find((key) => isSignedBy(targets, key));
  if (own !== undefined) return `the release key ${own.id.slice(0, 12)} that is here`;
  const root = await knownRoot(hub, given);
  if (root === null || !countSignatures(root, "targets", bytes).enough) return null;
  return `the release keys of root version ${root.signed.version}`;
}

const ROOTS_MAX = 256;

/** The newest root that the named one leads to, or that of the hub where a root key that is here signed it. */
async function knownRoot(
  hub: HubClient,
  given: FormerArguments,
): Promise<ReturnType<typeof readRoot> | null> {
  if (given.root === undefined) {
    const keys: readonly PublicKey[] = await publicKeys(given, "root");
    if (keys.length === 0) return null;
    const shown = await hub.signedDocument("root.json");
    examine(shown, "root", "root.json");
    const root = readRoot(shown);
    return keys.some((key) => isSignedBy(root, key)) ? root : null;
  }
  let bytes = await readRootFile(given.root);
  examine(bytes, "root", given.root);
  if (!countSignatures(readRoot(bytes), "root", bytes).enough)
    throw new LockstepError("TRUST_REFUSED", `${given.root} is not signed by its own root keys`, {
      expected: "a root as it was handed out",
      found: "too few signatures",
      hint: "Nothing was signed. Take the file from where it is kept safe.",
    });
  for (let turns = 0; turns < ROOTS_MAX; turns++) {
    const next = await orNull(hub.signedDocument(`${readRoot(bytes).signed.version + 1}.root.json`));
    if (next === null) break;
    demandNextRoot(bytes, next);
    bytes = next;
  }
  return readRoot(bytes);
}

async function orNull<T>(asked: Promise<T>): Promise<T | null> {
  try {
    return await asked;
  } catch (error) {
    if (isLockstepError(error, "NOT_FOUND")) return null;
    throw error;
  }
}

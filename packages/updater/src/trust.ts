import type { HubClient } from "@lockstep/client";
import { type Clock, realDisk, systemClock } from "@lockstep/platform";
import { LockstepError, type RevisionDocument } from "@lockstep/protocol/wire";
import {
  demandContinuation,
  epochOf,
  type KeptMetadata,
  type LogHead,
  MetadataCopy,
  MetadataStore,
  MirrorSource,
  type ReleaseEntry,
  type SignedRevision,
  TrustClient,
} from "@lockstep/trust";
import { unnamedIoFailure } from "./io-failure.ts";
import type { InstallationPaths } from "./layout.ts";
import { followOrder, type Subject } from "./orders.ts";
import { digestOfInstalled } from "./signed-known.ts";
import { type AheadMetadata, fetchAhead } from "./trust-ahead.ts";

/**
 * What the release keys allow this installation to become.
 *
 * The hub's semaphore only says that it is worth looking. What a revision is comes from signed metadata alone: number,
 * manifests, Update.zip, roles and packages. So nothing that a hub, its database, a mirror or a network says can put
 * anything here that the release keys did not sign; at worst nothing new comes, and that is told.
 *
 * The root of trust comes with the installation (`--root FILE`), or is the first that the hub shows, which is said.
 */
export interface Allowed {
  readonly document: RevisionDocument;
  /** The newest signed revision: another one than `document` where there is an order. */
  readonly newest: number;
  /** Which signature allows it, for update.log. */
  readonly by: Readonly<Record<string, string | number>>;
  /** The signed targets themselves, for the process that carries the run out. */
  readonly bytes: Uint8Array;
  readonly notices: readonly string[];
}

export interface TrustOptions {
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
  /** The root to pin where none is pinned yet; null: the first that the hub shows. */
  readonly root?: Uint8Array | null;
  /** Whose orders count; null: nobody's, since there is no installation yet. */
  readonly subject?: Subject | null;
}

/** The place where an installation keeps what it trusts. */
export function trustStore(paths: InstallationPaths): MetadataStore {
  return new MetadataStore(realDisk, paths.trust);
}

/**
 * Looks what is signed now. Whatever is kept stays as it is; `keepIn` of the copy writes what was learned. Throws
 * TRUST_ROOT_MISSING, TRUST_EXPIRED, TRUST_ROLLED_BACK, TRUST_REFUSED, TRUST_UNAVAILABLE, TRUST_HISTORY_DIFFERS,
 * TRUST_REVISION_DIFFERS, TRUST_DAMAGED and what a hub call throws.
 */
export async function lookAtSigned(
  client: HubClient,
  base: KeptMetadata | null,
  options: TrustOptions,
): Promise<Allowed & { readonly copy: MetadataCopy }> {
  const copy = new MetadataCopy(base);
  return { ...(await demandSigned(client, copy, options)), copy };
}

/** The same, keeping what is accepted as it is accepted. The caller holds the lock of the installation. */
export async function demandSigned(
  client: HubClient,
  store: KeptMetadata,
  options: TrustOptions,
): Promise<Allowed> {
  try {
    return await verify(client, store, options).catch(async (error: unknown) => {
      // What a relay holds back, or shows from yesterday, is no alarm before the hub has been asked.
      if (options.signal?.aborted === true || !client.leaveRelay(error)) throw error;
      return await verify(client, store, options);
    });
  } catch (error) {
    throw unnamedIoFailure(error, "the trusted metadata");
  }
}

async function verify(client: HubClient, store: KeptMetadata, options: TrustOptions): Promise<Allowed> {
  const notices: string[] = [];
  // How slow a mirror is, is a matter of this process's time, whatever clock decides about expiry.
  await store.makeReady();
  const ahead = await fetchAhead(client, store, readHistory(store), options.signal);
  const source = new MirrorSource([ahead.mirror], systemClock, undefined, options.signal);
  if (store.read("root") === null) {
    const root = options.root ?? (await firstRoot(source));
    await TrustClient.pin(store, root);
    if ((options.root ?? null) === null)
      notices.push(
        `the root of trust was taken from the hub at first sight (${client.url}); compare it: lockstep trust show`,
      );
  }
  const trust = await TrustClient.open(store, options.clock);
  await trust.refresh(source);
  if (trust.shownOtherSnapshot) throw setBack(trust, client.url);
  const revision = trust.currentRevision();
  const told = await followHistory(client, ahead, store, trust, revision);
  if (told !== null) notices.push(told);
  const newest = revision.document.number;
  const { subject = null, signal } = options;
  const ordered =
    subject === null ? null : await followOrder(client, store, trust, revision, subject, signal);
  const { document, bytes } = ordered ?? revision;
  if (subject !== null) demandInstalled(store, subject.installed, document);
  if (ordered !== null && document.number !== subject?.installed)
    notices.push(`this installation is ordered to software revision ${document.number}`);
  return { document, newest, bytes, by: { ...describe(trust, revision), ...ordered?.by }, notices };
}

/**
 * Demands that the number that is installed still stands for what was installed. A hub that was restored from an older backup can
 * give it a second time, also rightly signed; equal numbers would then be taken for equal files.
 */
function demandInstalled(
  store: KeptMetadata,
  installed: number | null,
  { number, digest }: RevisionDocument,
): void {
  if (number !== installed) return;
  const known = digestOfInstalled((name) => store.readRecord(name), installed);
  if (known === null || known === digest) return;
  throw new LockstepError(
    "TRUST_REVISION_DIFFERS",
    `software revision ${number} is signed with another content than the one that is installed here`,
    {
      expected: known,
      found: digest,
      hint: "Nothing was changed. A hub that was restored from an older backup gave the number a second time, or somebody shows different installations different releases. The next software revision of the hub ends it.",
    },
  );
}

/** Verifies what another process of this installation has accepted for a run. Throws TRUST_REFUSED, TRUST_DAMAGED. */
export async function readGoal(
  paths: InstallationPaths,
  clock: Clock,
  number: number,
): Promise<RevisionDocument> {
  const found = await readAllowed(paths, clock, number);
  if (found !== null) return found.document;
  throw new LockstepError("TRUST_REFUSED", `nobody signed software revision ${number} for this run`, {
    expected: number,
    found: "nothing, or another revision",
    hint: "Nothing was changed. Run lockstep update.",
  });
}

/** What the last run went to, verified anew; null when it was another revision. Throws TRUST_REFUSED, TRUST_DAMAGED. */
export async function readAllowed(
  paths: InstallationPaths,
  clock: Clock,
  number: number,
): Promise<Allowed | null> {
  const store = trustStore(paths);
  const bytes = store.readRecord("goal");
  if (bytes === null) return null;
  const trust = await TrustClient.open(store, clock);
  const revision = trust.readRevision(bytes);
  if (revision.document.number !== number) return null;
  const { document } = revision;
  return { document, newest: document.number, bytes, by: describe(trust, revision), notices: [] };
}

/** Demands that the hub announces what is signed. A semaphore is only a row; a signature is not. */
export function demandAnnounced(announced: number, { newest }: Allowed): void {
  // A revision may have come between the two questions.
  if (newest >= announced) return;
  throw new LockstepError(
    "TRUST_UNAVAILABLE",
    `the hub announces software revision ${announced}, and what is signed is ${newest}`,
    {
      expected: announced,
      found: newest,
      hint: "Nothing was changed. Somebody changed the hub's semaphore by hand, or holds signatures back.",
    },
  );
}

function describe(trust: TrustClient, { log }: SignedRevision): Record<string, string | number> {
  return {
    root: trust.root.version,
    signedBy: (trust.root.roles.targets?.keyIDs ?? []).map((id) => id.slice(0, 12)).join(" "),
    releaseLog: `${log.size} ${log.head.slice(0, 16)}`,
  };
}

/** Where the history of releases stood when it was last looked at. */
export interface SeenHistory extends LogHead {
  readonly epoch: number;
  readonly revision: number;
}

export function readHistory(store: KeptMetadata): SeenHistory | null {
  const bytes = store.readRecord("history");
  if (bytes === null) return null;
  try {
    const value = JSON.parse(Buffer.from(bytes).toString("utf8")) as SeenHistory;
    return typeof value.head === "string" && Number.isSafeInteger(value.size) ? value : null;
  } catch {
    return null;
  }
}

/**
 * Holds the signed log of releases against the one that was seen before. A new epoch, which only the root keys can begin,
 * starts it anew. Returns what is worth telling.
 */
async function followHistory(
  client: HubClient,
  ahead: AheadMetadata,
  store: KeptMetadata,
  trust: TrustClient,
  { document, log }: SignedRevision,
): Promise<string | null> {
  const epoch = epochOf(trust.root);
  const seen = readHistory(store);
  const begin = seen === null || seen.epoch !== epoch;
  if (!begin) {
    const entries =
      log.size > seen.size
        ? (ahead.entries(seen.size, log.size) ?? (await fetchEntries(client, epoch, seen.size, log.size)))
        : [];
    demandContinuation(seen, log, entries);
    if (document.number < seen.revision) throw rolledBack(seen.revision, document.number);
    if (log.size === seen.size && seen.revision === document.number) return null;
  }
  const now: SeenHistory = { epoch, size: log.size, head: log.head, revision: document.number };
  await store.writeRecord("history", Buffer.from(`${JSON.stringify(now)}\n`));
  return begin && seen !== null
    ? `the root keys began the history of releases anew (epoch ${epoch}): the hub was recovered`
    : null;
}

/** Signed as it must be, and not what was signed under this number before: nobody but who holds the online keys can make that. */
function setBack({ timestamp }: TrustClient, hub: string): LockstepError {
  return new LockstepError(
    "TRUST_HISTORY_DIFFERS",
    `timestamp ${timestamp?.version} of ${hub} names another snapshot than the one that was trusted under this number`,
    {
      expected: `snapshot ${timestamp?.snapshotMeta.version} as it was trusted before`,
      found: "another one, rightly signed",
      hint: "Nothing was taken. Was the hub restored from an older backup, and published again? Then: lockstep keys recover.",
    },
  );
}

function rolledBack(expected: number, found: number): LockstepError {
  return new LockstepError("TRUST_ROLLED_BACK", `the signed software revision went back to ${found}`, {
    expected: `at least ${expected}`,
    found,
    hint: "Nothing was changed. Going back is a new revision: lockstep revision revert.",
  });
}

const ENTRIES_BYTES_MAX = 64 * 1024 * 1024;

async function fetchEntries(
  client: HubClient,
  epoch: number,
  after: number,
  to: number,
): Promise<readonly ReleaseEntry[]> {
  const entries: ReleaseEntry[] = [];
  while (after + entries.length < to) {
    const path = `/v1/trust/log/${epoch}?after=${after + entries.length}&to=${to}`;
    const { body } = await client.connection.read({ method: "GET", path }, ENTRIES_BYTES_MAX);
    const page = readEntries(body);
    if (page.length === 0) break;
    entries.push(...page);
  }
  // What is missing or wrong in them shows in the head.
  return entries;
}

function readEntries(body: Buffer): ReleaseEntry[] {
  try {
    const { entries } = JSON.parse(body.toString("utf8")) as { entries: ReleaseEntry[] };
    return Array.isArray(entries)
      ? entries.filter((entry) => typeof entry === "object" && entry !== null)
      : [];
  } catch {
    return [];
  }
}

const ROOT_BYTES_MAX = 512_000;

async function firstRoot(source: MirrorSource): Promise<Uint8Array> {
  let root: Uint8Array | null = null;
  await source.fetch("root.json", ROOT_BYTES_MAX, async (bytes) => {
    root = bytes;
  });
  if (root !== null) return root;
  throw new LockstepError("TRUST_UNAVAILABLE", "the hub shows no root of trust", {
    hint: "Is it a hub of an older version? Update it first, or pin a root: --root FILE.",
  });
}

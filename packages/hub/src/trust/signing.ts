import { counted, SIGNATURE_LIFE_MS } from "@lockstep/core";
import { type AwaitingOrigin, LockstepError, type SigningStatus } from "@lockstep/protocol";
import {
  addSignatures,
  appendEntry,
  countSignatures,
  demandNextRoot,
  EMPTY_LOG,
  encodeMetadata,
  epochOf,
  examine,
  KEY_ROLES,
  type KeyPurpose,
  type KeyRole,
  makeTargets,
  mergeSignatures,
  orderKeysOf,
  readRoot,
  readSignedRevision,
  readTargets,
  rolesOf,
} from "@lockstep/trust";
import type pg from "pg";
import { withTransaction } from "../db/connect.ts";
import { RELEASE_TEXT } from "../repository/revisions.ts";
import { lockTrust, logHead, newestDocument, storeDocument } from "./documents.ts";
import { dropKeys, makeKeys } from "./key-ring.ts";
import {
  currentRoot,
  enough,
  expiryOf,
  known,
  type Root,
  readAwaiting,
  type TrustPublisher,
} from "./publisher.ts";

/**
 * What people do with keys: look, sign what waits, and change who has which key. The hub adds the signatures of the keys
 * that it has and refuses everything that does not hold by itself; nothing here makes a signature good that is not.
 */
export async function signingStatus(pool: pg.Pool, publisher: TrustPublisher): Promise<SigningStatus> {
  const root = await currentRoot(pool);
  const ring = await publisher.ring();
  const roles = rolesOf(root.signed);
  const describe = async (role: KeyRole) => {
    const stored = await newestDocument(pool, role);
    const held = new Set(ring[role].map(({ key }) => key.id));
    return {
      role,
      version: stored?.version ?? null,
      expiresAt: stored?.expiresMs ?? null,
      threshold: roles[role].threshold,
      keys: roles[role].keys.map(({ id }) => ({ id, onHub: held.has(id) })),
    };
  };
  const waiting = await readAwaiting(pool);
  const { signatures, needed } =
    waiting === null ? { signatures: 0, needed: 0 } : countSignatures(root, "targets", waiting.bytes);
  return {
    epoch: epochOf(root.signed),
    roles: await Promise.all(KEY_ROLES.map(describe)),
    orders: orderKeysOf(root.signed).keys.map(({ id }) => ({
      id,
      onHub: ring.orders.some(({ key }) => key.id === id),
    })),
    log: await logHead(pool, epochOf(root.signed)),
    awaiting: waiting === null ? null : { revision: waiting.revision, signatures, needed },
  };
}

/** What waits for signatures, as text. Throws NOT_FOUND. */
export async function awaitingDocument(pool: pg.Pool): Promise<string> {
  const waiting = await readAwaiting(pool);
  if (waiting !== null) return waiting.bytes.toString("utf8");
  throw new LockstepError("NOT_FOUND", "no software revision waits for a signature", {
    hint: "lockstep keys list shows what is signed.",
  });
}

/** What led to what waits: loads that are in no revision yet, and whose the files were that are gone. */
export async function awaitingOrigin(pool: pg.Pool): Promise<AwaitingOrigin> {
  const loads = await pool.query<{ release: string }>(
    `select ${RELEASE_TEXT} as release from release_load l where l.revision is null order by l.id`,
  );
  const removed = await pool.query<AwaitingOrigin["removed"][number]>(
    `select r.path, encode(r.sha256, 'hex') as sha256, r.module_id as module
     from revision_file r
     where r.to_revision is null and not exists (select 1 from file_revision f where f.path = r.path)
     order by r.path`,
  );
  return { releases: loads.rows.map(({ release }) => release), removed: removed.rows };
}

/** Takes signatures for what waits; with enough of them the revision is published. Throws SIGNATURE_REFUSED, NOT_FOUND. */
export async function acceptSignatures(pool: pg.Pool, text: string): Promise<void> {
  const bytes = Buffer.from(text);
  await withTransaction(pool, async ({ client }) => {
    await lockTrust(client);
    examine(bytes, "targets", "the signed document");
    const waiting = await readAwaiting(client);
    if (waiting === null)
      throw signatureRefused("nothing waits for a signature", "a revision that waits", "none");
    const merged = readTargets(waiting.bytes);
    const before = countSignatures(await currentRoot(client), "targets", waiting.bytes).signatures;
    try {
      mergeSignatures(merged, readTargets(bytes));
    } catch (cause) {
      throw signatureRefused(
        "another document was signed than the one that waits",
        `revision ${waiting.revision}`,
        "another one",
        cause,
      );
    }
    const signed = encodeMetadata(merged);
    const count = countSignatures(await currentRoot(client), "targets", signed);
    if (count.signatures <= before)
      throw signatureRefused(
        "no signature of a release key came",
        `${counted(count.needed, "key")} of the root`,
        "none of them",
      );
    await client.query("update trust_awaiting set bytes = $1", [Buffer.from(signed)]);
    if (count.enough) await client.query("select dbqueue_insert_single('LOCKSTEP-K-SoftwareRevision')");
  });
}

/** Makes a further key on this hub; it counts when a root names it. */
export async function makeHubKey(publisher: TrustPublisher, role: KeyPurpose): Promise<string> {
  const before = new Set((await publisher.ring())[role].map(({ key }) => key.id));
  await makeKeys(publisher.keysDirectory, [role], publisher.clock.now());
  const made = (await publisher.ring())[role].find(({ key }) => !before.has(key.id));
  if (made === undefined) throw new LockstepError("INTERNAL", "the key that was made is not there");
  return made.key.public;
}

/**
 * Puts a new root in force, with everything that then has to be signed anew, in one transaction. `targetsText`: the current
 * revision signed by the release key that the new root names, where this hub does not have it. Throws TRUST_REFUSED,
 * SIGNATURE_REFUSED.
 */
export async function acceptRoot(
  pool: pg.Pool,
  publisher: TrustPublisher,
  rootText: string,
  targetsText: string | null,
): Promise<number> {
  const next = await withTransaction(pool, async ({ client }) => {
    await lockTrust(client);
    const present = await newestDocument(client, "root");
    if (present === null) throw new LockstepError("INTERNAL", "the database has no root of trust yet");
    examine(Buffer.from(rootText), "root", "the next root");
    const ring = await publisher.ring();
    const root = readRoot(Buffer.from(rootText));
    const own = [...known(readRoot(present.bytes), "root", ring.root), ...known(root, "root", ring.root)];
    await addSignatures(root, own);
    const bytes = encodeMetadata(root);
    demandNextRoot(present.bytes, bytes);
    for (const role of ["snapshot", "timestamp"] as const)
      if (!enough(root, role, ring[role]))
        throw signatureRefused(
          `this hub has no ${role} key that the new root names`,
          "one of its keys",
          "none",
          undefined,
          `Nothing was changed. Where no hub of the database has its ${role} key any more: lockstep keys recover --keys DIR makes new ones.`,
        );
    await storeDocument(client, "root", root.signed.version, bytes, Date.parse(root.signed.expires));
    await renewTargets(client, publisher, readRoot(present.bytes), root, targetsText);
    await publisher.renew(client, ring, root);
    // What waited was for the former keys and the former history.
    await client.query("delete from trust_awaiting");
    await client.query(
      `select dbqueue_insert_single('LOCKSTEP-K-SoftwareRevision')
       where (select value from semaphore where name = 'SoftwareRevision') > 0`,
    );
    return root;
  });
  for (const role of KEY_ROLES)
    await dropKeys(publisher.keysDirectory, role, new Set(next.signed.roles[role]?.keyIDs ?? []));
  const orders = orderKeysOf(next.signed).keys.map(({ id }) => id);
  await dropKeys(publisher.keysDirectory, "orders", new Set(orders));
  return next.signed.version;
}

/** The current revision under the keys and in the epoch of a new root. */
async function renewTargets(
  client: pg.PoolClient,
  publisher: TrustPublisher,
  present: Root,
  next: Root,
  text: string | null,
): Promise<void> {
  const stored = await newestDocument(client, "targets");
  if (stored === null) return;
  const revision = readSignedRevision(readTargets(stored.bytes).signed);
  const anew = epochOf(next.signed) !== epochOf(present.signed);
  const log = anew ? beginLog(revision.document) : revision.log;
  let bytes: Uint8Array = stored.bytes;
  if (text !== null) {
    bytes = Buffer.from(text);
    examine(bytes, "targets", "the signed targets");
    const said = readSignedRevision(readTargets(bytes).signed);
    const same = JSON.stringify([said.document, said.log]) === JSON.stringify([revision.document, log]);
    if (!same || readTargets(bytes).signed.version !== stored.version + 1)
      throw signatureRefused(
        "the targets that came with the root do not describe the current revision",
        `revision ${revision.document.number} as version ${stored.version + 1}`,
        `revision ${said.document.number}`,
      );
  } else if (anew || !countSignatures(next, "targets", bytes).enough) {
    const ring = await publisher.ring();
    const expiresMs = publisher.clock.now() + SIGNATURE_LIFE_MS.targets;
    const targets = makeTargets(stored.version + 1, expiresMs, { document: revision.document, log });
    await addSignatures(targets, known(next, "targets", ring.targets));
    bytes = encodeMetadata(targets);
  }
  const { signatures, needed, enough: signed } = countSignatures(next, "targets", bytes);
  if (!signed)
    throw signatureRefused(
      "the current revision has to be signed by the release keys of the new root",
      needed,
      signatures,
    );
  if (bytes !== stored.bytes)
    await storeDocument(client, "targets", stored.version + 1, bytes, expiryOf(bytes));
  if (anew)
    await client.query(
      `insert into trust_release (epoch, index, revision, digest, head)
       values ($1, 1, $2, decode($3, 'hex'), decode($4, 'hex'))`,
      [epochOf(next.signed), revision.document.number, revision.document.digest, log.head],
    );
}

function beginLog({ number, digest }: { readonly number: number; readonly digest: string }) {
  return appendEntry(EMPTY_LOG, { index: 1, revision: number, digest });
}

function signatureRefused(
  problem: string,
  expected: string | number,
  found: string | number,
  cause?: unknown,
  hint = "Nothing was changed. lockstep keys list shows which keys count.",
): LockstepError {
  return new LockstepError("SIGNATURE_REFUSED", problem, {
    expected,
    found,
    hint,
    ...(cause === undefined ? {} : { cause }),
  });
}

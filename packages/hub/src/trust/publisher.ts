import { SIGNATURE_LIFE_MS } from "@lockstep/core";
import type { Clock, Logger } from "@lockstep/platform";
import { LockstepError, type RevisionDocument } from "@lockstep/protocol";
import {
  addSignatures,
  appendEntry,
  countSignatures,
  describeOrdered,
  encodeMetadata,
  epochOf,
  type KeyRole,
  makeRoot,
  makeSnapshot,
  makeTargets,
  makeTimestamp,
  namesOrdered,
  orderKeysOf,
  readOrdered,
  readRoot,
  readSignedRevision,
  readTargets,
  readTimestamp,
  rolesOf,
  type Signer,
} from "@lockstep/trust";
import type pg from "pg";
import { sqlState, withTransaction } from "../db/connect.ts";
import { lockTrust, logHead, newestDocument, orderedInstallations, storeDocument } from "./documents.ts";
import { type KeyRing, keysDirectory, makeKeys, makeMissingKeys, readKeyRing } from "./key-ring.ts";

/**
 * Signing what the hub publishes.
 *
 * A software revision and its metadata come into being in one transaction with the semaphore: nobody ever sees a number
 * that is not signed. Where the release key is not on this hub, the recalculation leaves its result in `trust_awaiting`, and
 * the semaphore stands until a signature has come (`lockstep revision sign`); the recalculation after that finds the
 * signature for exactly what it computed again, and goes through.
 *
 * Versions of TUF's documents are counters of their own: they also grow when keys rotate or a signature is renewed, while
 * the software revision does not. The number stands in the signed targets (docs/adr/0011).
 */
export type Publication =
  /** Signed and stored. */
  | { readonly kind: "published" }
  /** Computed; the release keys have to sign it elsewhere. */
  | { readonly kind: "awaiting" }
  /** This hub lacks the keys that every publication needs; another hub of the database may have them. */
  | { readonly kind: "impossible"; readonly reason: string };

export class TrustPublisher {
  readonly #directory: string;
  readonly #passphrase: string | null;
  readonly #clock: Pick<Clock, "now">;
  readonly #log: Logger;

  constructor(options: {
    readonly dataDirectory: string;
    readonly passphrase: string | null;
    readonly clock: Pick<Clock, "now">;
    readonly log: Logger;
  }) {
    this.#directory = keysDirectory(options.dataDirectory);
    this.#passphrase = options.passphrase;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** The keys that are here now. */
  async ring(): Promise<KeyRing> {
    return await readKeyRing(this.#directory, this.#passphrase);
  }

  get keysDirectory(): string {
    return this.#directory;
  }

  get clock(): Pick<Clock, "now"> {
    return this.#clock;
  }

  /** Makes keys and the first root where a database has none yet: a first try needs no step of its own. */
  async begin(pool: pg.Pool): Promise<void> {
    await withTransaction(pool, async ({ client }) => {
      await lockTrust(client);
      if ((await newestDocument(client, "root")) !== null) return await this.#admitOrders(client);
      const now = this.#clock.now();
      await makeMissingKeys(this.#directory, now, this.#log);
      const ring = await this.ring();
      const role = (name: KeyRole) => ({ keys: ring[name].map(({ key }) => key), threshold: 1 });
      const root = makeRoot({
        version: 1,
        expiresMs: now + SIGNATURE_LIFE_MS.root,
        // Two databases of one product never share a history.
        epoch: 1,
        roles: {
          root: role("root"),
          targets: role("targets"),
          snapshot: role("snapshot"),
          timestamp: role("timestamp"),
        },
        orders: ring.orders.map(({ key }) => key),
      });
      await addSignatures(root, ring.root);
      await storeDocument(client, "root", 1, encodeMetadata(root), now + SIGNATURE_LIFE_MS.root);
      // What was computed by a hub that did not sign yet.
      await client.query(
        `select dbqueue_insert_single('LOCKSTEP-K-SoftwareRevision')
         where (select value from semaphore where name = 'SoftwareRevision') > 0`,
      );
      this.#log.info("made a root of trust: all keys are on this hub", { directory: this.#directory });
    });
  }

  /** A root of before there were orders gets a key for them, where the hub has the root keys; else somebody rotates it in. */
  async #admitOrders(client: pg.PoolClient): Promise<void> {
    const root = await this.#root(client);
    const present = await this.ring();
    if (orderKeysOf(root.signed).keys.length > 0 || !enough(root, "root", present.root)) return;
    const now = this.#clock.now();
    if (present.orders.length === 0) await makeKeys(this.#directory, ["orders"], now);
    const ring = await this.ring();
    const version = root.signed.version + 1;
    const next = makeRoot({
      version,
      expiresMs: now + SIGNATURE_LIFE_MS.root,
      epoch: epochOf(root.signed),
      roles: rolesOf(root.signed),
      orders: ring.orders.map(({ key }) => key),
    });
    await addSignatures(next, known(root, "root", ring.root));
    await storeDocument(client, "root", version, encodeMetadata(next), now + SIGNATURE_LIFE_MS.root);
    this.#log.info("made a key for orders", { directory: this.#directory });
  }

  /** Whether this hub can publish at all: keys lie in data directories, and not every hub of a database need have them. */
  async canPublish(pool: pg.Pool): Promise<boolean> {
    const [ring, root] = [await this.ring(), await currentRoot(pool)];
    return enough(root, "snapshot", ring.snapshot) && enough(root, "timestamp", ring.timestamp);
  }

  /** Whether the current targets already describe this revision. */
  async describes(client: pg.PoolClient, number: number, digest: string): Promise<boolean> {
    const stored = await newestDocument(client, "targets");
    if (stored === null) return false;
    const { document } = readSignedRevision(readTargets(stored.bytes).signed);
    const waiting = await readAwaiting(client);
    // A renewed signature of what is current already.
    if (waiting?.digest === digest && waiting.revision === number) return false;
    return document.number === number && document.digest === digest;
  }

  /**
   * Publishes a revision in the caller's transaction, or leaves it waiting for a signature. `contents` are the digests
   * that a signer must be able to read until then.
   */
  async publish(
    client: pg.PoolClient,
    revision: Omit<RevisionDocument, "createdAt">,
    contents: readonly string[],
  ): Promise<Publication> {
    await lockTrust(client);
    const ring = await this.ring();
    const root = await this.#root(client);
    for (const role of ["snapshot", "timestamp"] as const)
      if (!enough(root, role, ring[role]))
        return {
          kind: "impossible",
          reason: `this hub does not have the ${role} key; where no hub of the database has it any more: lockstep keys recover`,
        };
    const awaiting = await readAwaiting(client);
    const same = awaiting?.revision === revision.number && awaiting.digest === revision.digest;
    if (same && countSignatures(root, "targets", awaiting.bytes).enough) {
      await this.#store(client, "targets", awaiting.version, awaiting.bytes, expiryOf(awaiting.bytes));
      await client.query("delete from trust_awaiting");
      await this.#enter(client, awaiting.bytes);
      await this.renew(client, ring, root);
      return { kind: "published" };
    }
    if (same) return { kind: "awaiting" };
    const now = this.#clock.now();
    const version = ((await newestDocument(client, "targets"))?.version ?? 0) + 1;
    const log = appendEntry(
      await logHead(client, epochOf(root.signed)),
      await this.#entry(client, root, revision),
    );
    const targets = makeTargets(version, now + SIGNATURE_LIFE_MS.targets, {
      document: { ...revision, createdAt: now },
      log,
    });
    await addSignatures(targets, known(root, "targets", ring.targets));
    const bytes = encodeMetadata(targets);
    if (!countSignatures(root, "targets", bytes).enough) {
      await writeAwaiting(
        client,
        { revision: revision.number, digest: revision.digest, version, bytes },
        contents,
      );
      return { kind: "awaiting" };
    }
    await client.query("delete from trust_awaiting");
    await this.#store(client, "targets", version, bytes, now + SIGNATURE_LIFE_MS.targets);
    await this.#enter(client, bytes);
    await this.renew(client, ring, root);
    return { kind: "published" };
  }

  /** Signs a new snapshot of the current targets and a new timestamp of it. */
  async renew(client: pg.PoolClient, ring: KeyRing, root: Root): Promise<void> {
    const targets = await newestDocument(client, "targets");
    if (targets === null) return;
    const now = this.#clock.now();
    const version = ((await newestDocument(client, "snapshot"))?.version ?? 0) + 1;
    const snapshot = makeSnapshot(version, now + SIGNATURE_LIFE_MS.snapshot, targets);
    await addSignatures(snapshot, known(root, "snapshot", ring.snapshot));
    await this.#store(
      client,
      "snapshot",
      version,
      encodeMetadata(snapshot),
      now + SIGNATURE_LIFE_MS.snapshot,
    );
    await this.renewTimestamp(client, ring, root);
  }

  /** Says in the same moment which installations are ordered to a revision. The caller holds the trust lock. */
  async renewTimestamp(client: pg.PoolClient, ring: KeyRing, root: Root): Promise<void> {
    const snapshot = await newestDocument(client, "snapshot");
    if (snapshot === null) return;
    const now = this.#clock.now();
    const version = ((await newestDocument(client, "timestamp"))?.version ?? 0) + 1;
    const ordered = describeOrdered(await orderedInstallations(client), now);
    const timestamp = makeTimestamp(version, now + SIGNATURE_LIFE_MS.timestamp, snapshot, ordered);
    await addSignatures(timestamp, known(root, "timestamp", ring.timestamp));
    await this.#store(
      client,
      "timestamp",
      version,
      encodeMetadata(timestamp),
      now + SIGNATURE_LIFE_MS.timestamp,
    );
  }

  /**
   * Signs anew what the timestamp says of orders where it is no longer so. The caller holds the trust lock. False: it says
   * something else, and this hub does not have the key.
   */
  async renewOrdered(client: pg.PoolClient): Promise<boolean> {
    const stored = await newestDocument(client, "timestamp");
    if (stored === null) return true;
    const installations = await orderedInstallations(client);
    const { signed } = readTimestamp(stored.bytes);
    if (namesOrdered(signed, installations)) return true;
    const [ring, root] = [await this.ring(), await this.#root(client)];
    // One that says nothing of orders, as hubs of older versions sign them, makes everybody ask.
    if (!enough(root, "timestamp", ring.timestamp)) return readOrdered(signed) === null;
    await this.renewTimestamp(client, ring, root);
    return true;
  }

  /** The current root. Throws INTERNAL before `begin`. */
  async #root(client: pg.PoolClient): Promise<Root> {
    return await currentRoot(client);
  }

  async #entry(
    client: pg.PoolClient,
    root: Root,
    revision: { readonly number: number; readonly digest: string },
  ) {
    const { size } = await logHead(client, epochOf(root.signed));
    return { index: size + 1, revision: revision.number, digest: revision.digest };
  }

  /** Enters what these targets say into the log. */
  async #enter(client: pg.PoolClient, bytes: Uint8Array): Promise<void> {
    const root = await this.#root(client);
    const { document, log } = readSignedRevision(readTargets(bytes).signed);
    await client.query(
      `insert into trust_release (epoch, index, revision, digest, head)
       values ($1, $2, $3, decode($4, 'hex'), decode($5, 'hex')) on conflict do nothing`,
      [epochOf(root.signed), log.size, document.number, document.digest, log.head],
    );
  }

  async #store(
    client: pg.PoolClient,
    role: KeyRole,
    version: number,
    bytes: Uint8Array,
    expiresMs: number,
  ): Promise<void> {
    try {
      await storeDocument(client, role, version, bytes, expiresMs);
    } catch (error) {
      // Another hub signed meanwhile, and this transaction still sees the state before: as good as a lost race.
      if (sqlState(error) === "23505")
        throw Object.assign(new Error("signed by another hub"), { code: "40001" });
      throw error;
    }
  }
}

export type Root = ReturnType<typeof readRoot>;

export async function currentRoot(client: pg.Pool | pg.PoolClient): Promise<Root> {
  const stored = await newestDocument(client, "root");
  if (stored === null) throw new LockstepError("INTERNAL", "the database has no root of trust yet");
  return readRoot(stored.bytes);
}

/** Those signers whose keys the root names for a role. */
export function known(root: Root, role: KeyRole, signers: readonly Signer[]): Signer[] {
  const ids = new Set(root.signed.roles[role]?.keyIDs ?? []);
  return signers.filter(({ key }) => ids.has(key.id));
}

/** Whether these signers can sign for a role. */
export function enough(root: Root, role: KeyRole, signers: readonly Signer[]): boolean {
  return known(root, role, signers).length >= (root.signed.roles[role]?.threshold ?? 1);
}

export interface Awaiting {
  readonly revision: number;
  readonly digest: string;
  readonly version: number;
  readonly bytes: Buffer;
}

export async function readAwaiting(client: pg.Pool | pg.PoolClient): Promise<Awaiting | null> {
  const { rows } = await client.query<Awaiting>(
    "select revision, encode(digest, 'hex') as digest, version, bytes from trust_awaiting",
  );
  return rows[0] ?? null;
}

export async function writeAwaiting(
  client: pg.PoolClient,
  { revision, digest, version, bytes }: Omit<Awaiting, "bytes"> & { readonly bytes: Uint8Array },
  contents: readonly string[],
): Promise<void> {
  await client.query(
    `insert into trust_awaiting (revision, digest, version, bytes, contents)
     values ($1, decode($2, 'hex'), $3, $4, array(select decode(c, 'hex') from unnest($5::text[]) as c))
     on conflict (one) do update set revision = excluded.revision, digest = excluded.digest,
       version = excluded.version, bytes = excluded.bytes, contents = excluded.contents, created_at = now()`,
    [revision, digest, version, Buffer.from(bytes), contents],
  );
}

export function expiryOf(bytes: Uint8Array): number {
  return Date.parse(readTargets(bytes).signed.expires);
}

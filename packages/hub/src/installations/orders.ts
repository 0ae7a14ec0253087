import { createHash } from "node:crypto";
import type { Logger } from "@lockstep/platform";
import { LockstepError, type OrderAnswer, type OrderRequest } from "@lockstep/protocol";
import {
  countSignatures,
  type Destination,
  openPermit,
  orderKeysOf,
  type Permit,
  readSignedRevision,
  readTargets,
  rolesOf,
  type Signer,
  sealOrder,
  sealPermit,
} from "@lockstep/trust";
import type pg from "pg";
import { withTransaction } from "../db/connect.ts";
import { lockTrust } from "../trust/documents.ts";
import { currentRoot, enough, known, type Root, type TrustPublisher } from "../trust/publisher.ts";

/**
 * Orders of a hub: which software revision one installation should run. Signed here, online, by a key of its own, and renewed
 * as long as the order stands, so that a captured one soon counts for nothing. What an installation believes is the
 * signature and never these rows.
 *
 * The counter is at least the time in seconds: a hub that was restored from a backup goes on above what it gave before.
 */
const LIFETIME_MS = 3 * 86_400_000;

interface OrderRow {
  readonly installation: string;
  readonly counter: number;
  readonly revision: number | null;
  readonly document: string;
  readonly permit: string | null;
  readonly expiresAt: Date;
}

const COLUMNS = `installation, counter, revision, document, permit, expires_at as "expiresAt"`;

export async function listOrders(pool: pg.Pool): Promise<OrderAnswer[]> {
  const { rows } = await pool.query<OrderRow>(
    `select ${COLUMNS} from installation_order order by installation`,
  );
  return rows.map(toAnswer);
}

/** Null: there never was an order for it, and it follows the newest software revision. */
export async function orderOf(pool: pg.Pool, installation: string): Promise<OrderAnswer | null> {
  const { rows } = await pool.query<OrderRow>(
    `select ${COLUMNS} from installation_order where installation = $1`,
    [installation],
  );
  const [row] = rows;
  return row === undefined ? null : toAnswer(row);
}

/** Gives an order. Throws NOT_FOUND, REVISION_UNKNOWN, ORDER_REFUSED (the permit), KEY_MISSING. */
export async function giveOrder(
  pool: pg.Pool,
  publisher: TrustPublisher,
  installation: string,
  { revision, permit }: OrderRequest,
  actor: string,
): Promise<OrderAnswer> {
  await withTransaction(pool, async ({ client }) => {
    await lockTrust(client);
    const { rowCount } = await client.query(
      `select from installation where id = $1 union all select from installation_key where installation = $1
       union all select from installation_order where installation = $1`,
      [installation],
    );
    if ((rowCount ?? 0) === 0)
      throw new LockstepError("NOT_FOUND", "the hub knows no such installation", {
        found: installation,
        hint: "lockstep fleet list --json shows the ids.",
      });
    const root = await currentRoot(client);
    const go = revision === null ? null : await destination(client, root, revision);
    if (permit !== null) demandPermit(root, permit, installation, go);
    await sign(client, publisher, root, { installation, go, permit, actor });
    // No installation may be told that there is none once there is one.
    if (!(await publisher.renewOrdered(client)) && go !== null)
      throw new LockstepError("KEY_MISSING", "this hub cannot sign that there is an order", {
        expected: "the key for timestamps in its data directory",
        found: "none that the root names",
        hint: "Give the order at the hub that has the key for timestamps.",
      });
  });
  const given = await orderOf(pool, installation);
  if (given === null)
    throw new Error(`the order for ${installation} was taken away in the moment it was given`);
  return given;
}

/** What a permit has to name to allow going to this revision. Throws REVISION_UNKNOWN. */
export async function destinationOf(pool: pg.Pool, revision: number): Promise<Destination> {
  return await withTransaction(pool, async ({ client }) =>
    destination(client, await currentRoot(client), revision),
  );
}

/** A permit by the release keys that are on this hub: as they are at a first try. Throws KEY_MISSING. */
export async function signPermit(pool: pg.Pool, publisher: TrustPublisher, permit: Permit): Promise<string> {
  const root = await currentRoot(pool);
  const signers = known(root, "targets", (await publisher.ring()).targets);
  if (enough(root, "targets", signers)) return await sealPermit(permit, signers);
  throw new LockstepError("KEY_MISSING", "the release key is not on this hub", {
    expected: "the release key",
    found: "none that the root names",
    hint: "Sign where the release key is: lockstep fleet permit ID REVISION --keys DIR.",
  });
}

/**
 * Signs anew what is at half of its life; `all`, whatever there is, since the root has changed. A hub without the key leaves
 * that to another one. Returns how many.
 */
export async function renewOrders(
  pool: pg.Pool,
  publisher: TrustPublisher,
  log: Logger,
  all = false,
): Promise<number> {
  return await withTransaction(pool, async ({ client }) => {
    const due = new Date(publisher.clock.now() + LIFETIME_MS * (all ? 2 : 0.5));
    const { rows } = await client.query<OrderRow & { actor: string }>(
      `select ${COLUMNS}, actor from installation_order where expires_at < $1 for update skip locked`,
      [due],
    );
    if (rows.length === 0) return 0;
    const root = await currentRoot(client);
    if (signersOf(root, (await publisher.ring()).orders).length === 0) {
      log.warn("orders are due to be signed, and their key is not on this hub", { orders: rows.length });
      return 0;
    }
    let renewed = 0;
    for (const { installation, revision, permit, actor } of rows) {
      try {
        const go = revision === null ? null : await destination(client, root, revision);
        await sign(client, publisher, root, { installation, go, permit, actor });
        renewed++;
      } catch (error) {
        // The installation stays where it is, and says that its order ran out.
        log.warn("an order cannot be renewed", { installation, revision, error });
      }
    }
    return renewed;
  });
}

async function sign(
  client: pg.PoolClient,
  publisher: TrustPublisher,
  root: Root,
  order: {
    readonly installation: string;
    readonly go: Destination | null;
    readonly permit: string | null;
    readonly actor: string;
  },
): Promise<void> {
  const signers = signersOf(root, (await publisher.ring()).orders);
  if (signers.length === 0)
    throw new LockstepError("KEY_MISSING", "this hub has no key for orders that the root names", {
      expected: "a key file of the kind orders in its data directory",
      found: "none",
      hint: "lockstep keys rotate orders makes one.",
    });
  const { installation, go, permit, actor } = order;
  const now = publisher.clock.now();
  const { rows } = await client.query<{ counter: number }>(
    "select counter from installation_order where installation = $1 for update",
    [installation],
  );
  const counter = Math.max((rows[0]?.counter ?? 0) + 1, Math.floor(now / 1000));
  const expiresAt = now + LIFETIME_MS;
  const document = await sealOrder(
    { installation, counter, issuedAt: now, expiresAt, go },
    signers.slice(0, 1),
  );
  await client.query(
    `insert into installation_order (installation, counter, revision, document, permit, actor, expires_at)
     values ($1, $2, $3, $4, $5, $6, $7)
     on conflict (installation) do update set counter = excluded.counter, revision = excluded.revision,
       document = excluded.document, permit = excluded.permit, actor = excluded.actor,
       created_at = now(), expires_at = excluded.expires_at`,
    [installation, counter, go?.revision ?? null, document, permit, actor, new Date(expiresAt)],
  );
  // Those who wait at the semaphore look again.
  await client.query("select pg_notify('lockstep_revision', $1)", [String(go?.revision ?? 0)]);
}

/** The newest signed targets of a revision that is still kept, good under today's release keys. */
async function destination(client: pg.PoolClient, root: Root, revision: number): Promise<Destination> {
  const { rows } = await client.query<{ version: number; bytes: Buffer }>(
    `select version, bytes from trust_document
     where role = 'targets' and (convert_from(bytes, 'UTF8')::jsonb #>> '{signed,lockstep,revision}')::bigint = $1
       and exists (select from software_revision where number = $1)
     order by version desc limit 1`,
    [revision],
  );
  const [row] = rows;
  if (row === undefined || !countSignatures(root, "targets", row.bytes).enough)
    throw new LockstepError(
      "REVISION_UNKNOWN",
      `no installation can be ordered to software revision ${revision}`,
      {
        expected: "a revision that the hub still keeps, signed by the release keys of today",
        found: row === undefined ? "none" : "one that was signed by former keys",
        hint: "lockstep revision list shows what there is.",
      },
    );
  const { document } = readSignedRevision(readTargets(row.bytes).signed);
  const sha256 = createHash("sha256").update(row.bytes).digest("hex");
  return { revision, digest: document.digest, targets: { version: row.version, sha256 } };
}

function demandPermit(root: Root, text: string, installation: string, go: Destination | null): void {
  const permit = openPermit(text, rolesOf(root.signed).targets);
  if (permit.installation === installation && permit.revision === go?.revision && permit.digest === go.digest)
    return;
  throw new LockstepError("ORDER_REFUSED", "the permit is for something else than the order", {
    expected: `${installation}, software revision ${go?.revision ?? "none"}`,
    found: `${permit.installation}, software revision ${permit.revision}`,
    hint: "Nothing was changed. Make a permit for this order: lockstep fleet permit ID REVISION.",
  });
}

function signersOf(root: Root, signers: readonly Signer[]): Signer[] {
  const ids = new Set(orderKeysOf(root.signed).keys.map(({ id }) => id));
  return signers.filter(({ key }) => ids.has(key.id));
}

function toAnswer({ installation, counter, revision, document, permit, expiresAt }: OrderRow): OrderAnswer {
  return { installation, counter, revision, permit, order: document, expiresAt: expiresAt.getTime() };
}

import { SIGNATURE_LIFE_MS } from "@lockstep/core";
import type { Clock, Logger } from "@lockstep/platform";
import {
  addSignatures,
  encodeMetadata,
  epochOf,
  type KeyRole,
  makeRoot,
  makeTargets,
  orderKeysOf,
  readSignedRevision,
  readTargets,
  rolesOf,
} from "@lockstep/trust";
import type pg from "pg";
import { withTransaction } from "../db/connect.ts";
import { renewOrders } from "../installations/orders.ts";
import { lockTrust, newestDocument, storeDocument } from "./documents.ts";
import { currentRoot, enough, known, type TrustPublisher } from "./publisher.ts";

/**
 * Keeps signatures fresh: each is renewed at half of its life by a hub that has its key. What cannot be renewed here, because
 * its key is kept elsewhere, is said in the log long before it runs out; installations go on with what they have even then.
 */
export interface TrustUpkeep {
  stop(): Promise<void>;
}

const LOOK_MS = 15 * 60_000;

export function startTrustUpkeep(options: {
  readonly pool: pg.Pool;
  readonly publisher: TrustPublisher;
  readonly clock: Clock;
  readonly log: Logger;
}): TrustUpkeep {
  const { clock, log } = options;
  const stopping = new AbortController();
  const ended = (async () => {
    while (!stopping.signal.aborted) {
      try {
        await renewDue(options.pool, options.publisher, log);
        await renewOrders(options.pool, options.publisher, log);
      } catch (error) {
        if (!stopping.signal.aborted) log.warn("signatures could not be renewed", { error });
      }
      await clock.sleep(LOOK_MS, stopping.signal);
    }
  })();
  return {
    stop: async () => {
      stopping.abort();
      await ended;
    },
  };
}

/** Renews what is due, all in one transaction. Returns the roles that were signed anew. */
export async function renewDue(
  pool: pg.Pool,
  publisher: TrustPublisher,
  log: Logger,
): Promise<readonly KeyRole[]> {
  return await withTransaction(pool, async ({ client }) => {
    await lockTrust(client);
    const ring = await publisher.ring();
    const now = publisher.clock.now();
    const renewed: KeyRole[] = [];
    const due = async (role: KeyRole) => {
      const stored = await newestDocument(client, role);
      return stored !== null && stored.expiresMs - now < SIGNATURE_LIFE_MS[role] / 2;
    };
    const able = async (role: KeyRole) => enough(await currentRoot(client), role, ring[role]);
    for (const role of ["root", "targets", "snapshot", "timestamp"] as const) {
      if (!(await due(role))) continue;
      if (!(await able(role))) {
        log.warn("a signature is due, and its key is not on this hub", { role });
        continue;
      }
      if (role === "root") await renewRoot(client, publisher);
      if (role === "targets") await renewTargets(client, publisher);
      renewed.push(role);
    }
    const root = await currentRoot(client);
    if (renewed.includes("targets") || renewed.includes("snapshot"))
      await publisher.renew(client, ring, root);
    else if (renewed.includes("timestamp")) await publisher.renewTimestamp(client, ring, root);
    // Another hub may have given an order without saying so there: one of an older version, or somebody by SQL.
    else await publisher.renewOrdered(client);
    if (renewed.length > 0) log.info("renewed signatures", { roles: renewed.join(", ") });
    return renewed;
  });
}

async function renewRoot(client: pg.PoolClient, publisher: TrustPublisher): Promise<void> {
  const root = await currentRoot(client);
  const ring = await publisher.ring();
  const expiresMs = publisher.clock.now() + SIGNATURE_LIFE_MS.root;
  const version = root.signed.version + 1;
  const next = makeRoot({
    version,
    expiresMs,
    epoch: epochOf(root.signed),
    roles: rolesOf(root.signed),
    orders: orderKeysOf(root.signed).keys,
  });
  await addSignatures(next, known(root, "root", ring.root));
  await storeDocument(client, "root", version, encodeMetadata(next), expiresMs);
}

/** The same revision under a new signature. */
async function renewTargets(client: pg.PoolClient, publisher: TrustPublisher): Promise<void> {
  const stored = await newestDocument(client, "targets");
  if (stored === null) return;
  const root = await currentRoot(client);
  const ring = await publisher.ring();
  const expiresMs = publisher.clock.now() + SIGNATURE_LIFE_MS.targets;
  const revision = readSignedRevision(readTargets(stored.bytes).signed);
  const targets = makeTargets(stored.version + 1, expiresMs, revision);
  await addSignatures(targets, known(root, "targets", ring.targets));
  await storeDocument(client, "targets", stored.version + 1, encodeMetadata(targets), expiresMs);
}

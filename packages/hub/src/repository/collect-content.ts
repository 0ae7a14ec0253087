import { counted, revisionsToDrop } from "@lockstep/core";
import type pg from "pg";
import type { Procedure, TaskOutcome } from "../dbqueue/procedure.ts";
import { tryLockRepository } from "./lock.ts";

/**
 * Drops revisions that nobody needs any more, then contents that nothing refers to.
 *
 * A load counts on contents that it found in the repository and did not send. So this task needs the repository lock,
 * under which every load looks at them for the last time and commits; while somebody else has it, it is put off. It reads
 * committed data statement by statement (not one old snapshot), so that what it finds unreferenced is so under the lock.
 */
export const COLLECT_CONTENT = "LOCKSTEP-K-CollectContent";

/** Contents removed in one run; the rest follows in the next, so that no load waits for long. */
const CONTENTS_PER_RUN = 2_000;

export interface CollectOptions {
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

export function collectContentProcedure(options: CollectOptions): Procedure {
  return {
    task: COLLECT_CONTENT,
    description: "Drops old revisions and contents that nothing refers to",
    bulk: false,
    maxInstance: 1,
    predecessors: ["LOCKSTEP-K-SoftwareRevision"],
    isolation: "read committed",
    run: async ({ transaction }) => await collect(transaction.client, options.now()),
  };
}

/** One collection, in the caller's read-committed transaction. */
export async function collect(client: pg.PoolClient, now: number): Promise<TaskOutcome> {
  if (!(await tryLockRepository(client)))
    return { kind: "deferred", reason: "a load or a change of files is under way" };
  const dropped = await dropRevisions(client, now);
  const { rowCount } = await client.query(
    `delete from content where sha256 in (
       select sha256 from content c
       where not exists (select from file_revision f where f.sha256 = c.sha256)
         and not exists (select from revision_file r where r.sha256 = c.sha256)
         and not exists (select from revision_manifest m where m.sha256 = c.sha256)
         and not exists (select from software_revision s where s.update_archive = c.sha256)
         and not exists (select from trust_awaiting a where c.sha256 = any(a.contents))
       limit $1
     )`,
    [CONTENTS_PER_RUN],
  );
  const contents = rowCount ?? 0;
  if (contents === CONTENTS_PER_RUN)
    await client.query("select dbqueue_insert_single($1)", [COLLECT_CONTENT]);
  return {
    kind: "done",
    detail: `${counted(dropped, "revision")} and ${counted(contents, "content")} dropped`,
  };
}

async function dropRevisions(client: pg.PoolClient, now: number): Promise<number> {
  const { rows } = await client.query<{
    current: number;
    keep: unknown;
    revisions: number[];
  }>(
    `select (select value from semaphore where name = 'SoftwareRevision') as current,
       (select value from setting where name = 'Common/Revision/Keep') as keep,
       array(select number from software_revision) as revisions`,
  );
  const row = rows[0];
  if (row === undefined) return 0;
  const reports = await client.query<{ revision: number | null; seenAt: Date }>(
    `select revision, max(seen_at) as "seenAt" from (
       select revision, seen_at from installation
       union all select revision, to_timestamp($1::double precision / 1000) from installation_order where revision is not null
     ) as wanted group by revision`,
    [now],
  );
  const drop = revisionsToDrop({
    revisions: row.revisions,
    current: row.current,
    keep: typeof row.keep === "number" ? row.keep : 50,
    reports: reports.rows.map(({ revision, seenAt }) => ({ revision, seenAt: seenAt.getTime() })),
    now,
  });
  if (drop.length === 0) return 0;
  await client.query("delete from software_revision where number = any($1)", [drop]);
  // An interval goes when no revision that is kept lies in it.
  await client.query(
    `delete from revision_file f where to_revision is not null and not exists (
       select from software_revision s where s.number >= f.from_revision and s.number < f.to_revision)`,
  );
  return drop.length;
}

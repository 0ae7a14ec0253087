import { diffSets } from "@lockstep/core";
import {
  LockstepError,
  type RevisionDiff,
  type RevisionDocument,
  type RevisionList,
} from "@lockstep/protocol";
import type pg from "pg";
import { withTransaction } from "../db/connect.ts";
import { readRevisionSet } from "./software-revision.ts";
import { readSemaphore } from "./state.ts";

/** A load `l` in SQL, as people read it: "NXT 16.4.6 (version)". */
export const RELEASE_TEXT = `case when l.kind = 'revert' then 'revert to ' || l.version
  else l.module_id || ' ' || l.version || ' (' || l.kind || ')' end`;

/** The kept revisions, newest first, with the loads that led to each. */
export async function listRevisions(pool: pg.Pool, limit: number): Promise<RevisionList> {
  const { rows } = await pool.query<{
    number: number;
    createdAt: Date;
    files: number;
    bytes: number;
    added: number;
    changed: number;
    removed: number;
    releases: string[] | null;
  }>(
    `select s.number, s.created_at as "createdAt", s.files, s.bytes, s.added, s.changed, s.removed,
       (select array_agg(${RELEASE_TEXT} order by l.id)
        from release_load l where l.revision = s.number) as releases
     from software_revision s order by s.number desc limit $1`,
    [limit],
  );
  return {
    current: await readSemaphore(pool),
    revisions: rows.map(({ createdAt, releases, ...row }) => ({
      ...row,
      createdAt: createdAt.getTime(),
      releases: releases ?? [],
    })),
  };
}

/** One revision with its manifests. Throws REVISION_UNKNOWN. */
export async function showRevision(pool: pg.Pool, number: number): Promise<RevisionDocument> {
  const { rows } = await pool.query<{
    digest: string;
    createdAt: Date;
    archive: string | null;
    archiveSize: number | null;
    packageClosure: Record<string, string[]>;
    selectableRoles: string[];
    selectablePackages: string[];
    manifests: [target: string, sha256: string, size: number, files: number, bytes: number][] | null;
  }>(
    `select encode(s.digest, 'hex') as digest, s.created_at as "createdAt",
       encode(s.update_archive, 'hex') as archive, s.update_archive_size as "archiveSize",
       s.package_closure as "packageClosure", s.selectable_roles as "selectableRoles",
       s.selectable_packages as "selectablePackages",
       (select jsonb_agg(jsonb_build_array(m.target, encode(m.sha256, 'hex'), m.size, m.files, m.bytes)
          order by m.target) from revision_manifest m where m.revision = s.number) as manifests
     from software_revision s where s.number = $1`,
    [number],
  );
  const row = rows[0];
  if (row === undefined) throw await unknownRevision(pool, number);
  return {
    number,
    digest: row.digest,
    createdAt: row.createdAt.getTime(),
    manifests: (row.manifests ?? []).map(([target, sha256, size, files, bytes]) => ({
      target,
      sha256,
      size,
      files,
      bytes,
    })),
    updateArchive:
      row.archive === null || row.archiveSize === null
        ? null
        : { sha256: row.archive, size: row.archiveSize },
    packageClosure: row.packageClosure,
    selectableRoles: row.selectableRoles,
    selectablePackages: row.selectablePackages,
  };
}

/** What leads from one revision to another; 0 is the empty one before all. Throws REVISION_UNKNOWN. */
export async function diffRevisions(pool: pg.Pool, from: number, to: number): Promise<RevisionDiff> {
  return await withTransaction(
    pool,
    async ({ client }) => {
      for (const number of [from, to])
        if (number !== 0) {
          const { rowCount } = await client.query("select from software_revision where number = $1", [
            number,
          ]);
          if (rowCount === 0) throw await unknownRevision(client, number);
        }
      const changes = diffSets(await readRevisionSet(client, from), await readRevisionSet(client, to));
      const side = (file: (typeof changes)[number]["from"]) =>
        file === null
          ? null
          : { size: file.size, sha256: file.sha256, mode: file.mode, targets: [...file.targets] };
      return {
        from,
        to,
        files: changes.map((change) => ({
          path: change.path,
          kind: change.kind,
          from: side(change.from),
          to: side(change.to),
        })),
      };
    },
    { isolation: "repeatable read", readOnly: true },
  );
}

export async function unknownRevision(
  client: pg.Pool | pg.PoolClient,
  number: number,
): Promise<LockstepError> {
  const current = await readSemaphore(client);
  const dropped = number > 0 && number <= current;
  return new LockstepError("REVISION_UNKNOWN", `the hub has no software revision ${number}`, {
    expected: current === 0 ? "none: nothing was loaded yet" : `at most ${current}`,
    found: number,
    hint: dropped
      ? "It is no longer kept (Common/Revision/Keep). `lockstep revision list` shows those that are."
      : "`lockstep revision list` shows the revisions that there are.",
  });
}

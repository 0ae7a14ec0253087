import {
  diffLayouts,
  findRevisionFaults,
  type Layout,
  OWN_MODULE,
  sameTargets,
  UPDATE_ARCHIVE_PATH,
} from "@lockstep/core";
import { LockstepError, type RevertResult } from "@lockstep/protocol";
import type pg from "pg";
import { withTransaction } from "../db/connect.ts";
import { insertLoad } from "./load.ts";
import { lockRepository } from "./lock.ts";
import { unknownRevision } from "./revisions.ts";
import { type RevisionFile, readRevisionSet, type StoredLayout } from "./software-revision.ts";
import { readSemaphore, readState } from "./state.ts";
import { type FileWrite, putFiles, removeFiles, writeLayout } from "./write-plan.ts";

/**
 * Puts the set of a former revision back into the tables: its files, deploy targets, layout and module versions. The
 * recalculation then makes a new, higher revision of it: numbers never go back, and a revert can be reverted.
 *
 * Files that are distributed now and were not then lose their targets; those that only came after that revision go.
 * What is stored without being distributed is not part of a revision, so it is left as it is.
 */
export async function revertTo(pool: pg.Pool, number: number, actor: string | null): Promise<RevertResult> {
  return await withTransaction(pool, async ({ client }) => {
    await lockRepository(client);
    const { rows } = await client.query<{ layout: Partial<StoredLayout>; newest: number }>(
      `select layout, (select coalesce(max(id), 0) from release_load where revision <= $1) as newest
       from software_revision where number = $1`,
      [number],
    );
    const row = rows[0];
    if (row === undefined) throw await unknownRevision(client, number);
    const revisionBefore = await readSemaphore(client);
    const state = await readState(client);
    const layout = toLayout(row.layout);
    const old = await readRevisionSet(client, number);
    const inOld = new Set(old.map((file) => file.path));

    const later = await laterPaths(client, row.newest);
    const removals: string[] = [];
    const withdrawn: string[] = [];
    for (const file of state.files.values()) {
      if (inOld.has(file.path) || file.targets.length === 0 || file.path === UPDATE_ARCHIVE_PATH) continue;
      (later.has(file.path) ? removals : withdrawn).push(file.path);
    }
    const writes: FileWrite[] = [];
    for (const file of old) {
      const present = state.files.get(file.path);
      if (present === undefined || !sameFile(present, file))
        writes.push({ ...file, targets: file.targets, isNew: present === undefined });
    }
    const after = new Map(state.files);
    for (const path of removals) after.delete(path);
    for (const path of withdrawn) {
      const file = after.get(path);
      if (file !== undefined) after.set(path, { ...file, targets: [] });
    }
    for (const file of old) after.set(file.path, file);
    refuseFaults([...after.values()], layout);

    const change = diffLayouts(state.layout, layout);
    const counts = {
      added: writes.filter((write) => write.isNew).length,
      changed: writes.filter((write) => !write.isNew).length + withdrawn.length,
      removed: removals.length,
    };
    const changes =
      writes.length + removals.length + withdrawn.length > 0 ||
      Object.values(change).some((list) => list.length > 0);
    const load = await insertLoad(client, {
      module: OWN_MODULE,
      version: String(number),
      kind: "revert",
      note: null,
      actor,
      counts,
      revision: changes ? null : revisionBefore,
    });
    if (changes) {
      // New targets first, since files will refer to them; targets that go come last, when nothing does any more.
      await writeLayout(client, { ...change, targetRemovals: [] });
      await removeFiles(client, removals);
      await withdraw(client, withdrawn);
      await putFiles(client, writes, load);
      await writeLayout(client, { ...NOTHING, targetRemovals: change.targetRemovals });
    }
    await restoreVersions(client, row.layout.modules ?? {});
    return { load, to: number, ...counts, revisionBefore, changes };
  });
}

const NOTHING = {
  targetPuts: [],
  targetRemovals: [],
  relationPuts: [],
  relationRemovals: [],
  requirementPuts: [],
  requirementRemovals: [],
} as const;

function toLayout({ roles, packages, relations, requirements }: Partial<StoredLayout>): Layout {
  return {
    roles: roles ?? [],
    packages: packages ?? [],
    relations: relations ?? [],
    requirements: requirements ?? [],
  };
}

function sameFile(
  present: {
    size: number | null;
    sha256: string | null;
    mode: number;
    backup: boolean;
    version: string | null;
  } & {
    readonly targets: readonly string[];
  },
  file: RevisionFile,
): boolean {
  return (
    present.sha256 === file.sha256 &&
    present.size === file.size &&
    present.mode === file.mode &&
    present.backup === file.backup &&
    present.version === file.version &&
    sameTargets(present.targets, file.targets)
  );
}

/** Paths that were loaded after the last load that the revision carries. */
async function laterPaths(client: pg.PoolClient, newest: number): Promise<Set<string>> {
  const { rows } = await client.query<{ path: string }>("select path from file_revision where load_id > $1", [
    newest,
  ]);
  return new Set(rows.map((row) => row.path));
}

async function withdraw(client: pg.PoolClient, paths: readonly string[]): Promise<void> {
  if (paths.length > 0)
    await client.query(
      "delete from file_has_deploy_target h using file_revision f where f.id = h.file_id and f.path = any($1)",
      [paths],
    );
}

function refuseFaults(files: Parameters<typeof findRevisionFaults>[0], layout: Layout): void {
  const faults = findRevisionFaults(files, layout);
  const [first] = faults;
  if (first !== undefined)
    throw new LockstepError(
      "PATH_REFUSED",
      `the revision cannot be put back: ${first.where}: ${first.problem}`,
      {
        hint: "Nothing was changed. Remove or rename the named files, then revert again.",
        faults: faults.map(({ where, problem }) => ({ where, problem })),
      },
    );
}

/** Modules that came later are known by name only again. */
async function restoreVersions(
  client: pg.PoolClient,
  versions: Readonly<Record<string, string | null>>,
): Promise<void> {
  await client.query(
    `update module m set version = v.version
     from (select id, $1::jsonb ->> id as version from module) as v
     where v.id = m.id and m.version is distinct from v.version`,
    [JSON.stringify(versions)],
  );
}

import { hash } from "node:crypto";
import {
  computeManifests,
  counted,
  diffSets,
  findRevisionFaults,
  type Layout,
  type ManifestRef,
  manifestTarget,
  packageClosure,
  type RepositoryState,
  type RevisionChange,
  type Sha256,
  type StoredFile,
  type TargetedFile,
  UPDATE_ARCHIVE_PATH,
} from "@lockstep/core";
import { formatManifest, LockstepError } from "@lockstep/protocol";
import type pg from "pg";
import type { Procedure, TaskOutcome } from "../dbqueue/procedure.ts";
import type { TrustPublisher } from "../trust/publisher.ts";
import { batches } from "./batches.ts";
import { COLLECT_CONTENT } from "./collect-content.ts";
import { digestText, storeContent } from "./content-write.ts";
import { readSemaphore, readState } from "./state.ts";
import { UPDATE_ARCHIVE } from "./update-archive.ts";

/**
 * Recalculates the software revision (S19): what the tables say now becomes the next immutable set, unless it is the
 * one that stands already. Everything happens in the task's one repeatable-read transaction, so the set is that of one
 * moment, and the semaphore moves together with everything that it stands for or not at all.
 *
 * The set is stored as intervals and its manifests as contents, so a revision costs its change; computing it reads
 * every row once. A set that no installation could hold (plain SQL can write one) is not published: the task fails with
 * the paths, is tried again later, and the last good revision stands meanwhile.
 */
export const SOFTWARE_REVISION = "LOCKSTEP-K-SoftwareRevision";

/** What a revert needs beside the files; kept with each revision. */
export interface StoredLayout extends Layout {
  readonly modules: Readonly<Record<string, string | null>>;
}

/** A file of a revision with what only the repository wants to know of it. */
export interface RevisionFile extends TargetedFile {
  readonly module: string;
  readonly version: string | null;
}

export function softwareRevisionProcedure(publisher: TrustPublisher): Procedure {
  return {
    task: SOFTWARE_REVISION,
    description: "Recalculates the software revision and its manifests",
    bulk: false,
    maxInstance: 1,
    predecessors: [UPDATE_ARCHIVE],
    run: async ({ transaction }) => await recalculate(transaction.client, publisher),
  };
}

/** One recalculation, in the caller's repeatable-read transaction. Throws PATH_REFUSED. */
async function recalculate(client: pg.PoolClient, publisher: TrustPublisher): Promise<TaskOutcome> {
  const current = await readSemaphore(client);
  const state = await readState(client);
  checkState(state);
  const files = distributed(state);
  const refs = await storeManifests(client, files, state.layout);
  const archive = state.files.get(UPDATE_ARCHIVE_PATH);
  const document = {
    updateArchive:
      archive === undefined || archive.sha256 === null || archive.size === null
        ? null
        : { sha256: archive.sha256, size: archive.size },
    packageClosure: Object.fromEntries(packageClosure(state.layout)),
    selectableRoles: state.layout.roles.filter((role) => role.selectable).map((role) => role.path),
    selectablePackages: state.layout.packages.filter((p) => p.selectable).map((p) => p.name),
  };
  const digest = digestText(digestLines(files, refs, document));
  const { rows } = await client.query<{ same: boolean }>(
    "select digest = decode($2, 'hex') as same from software_revision where number = $1",
    [current, digest],
  );
  const same = rows[0]?.same === true;
  const number = same ? current : current + 1;
  if (!same || !(await publisher.describes(client, number, digest))) {
    const manifests = refs.map((ref) => ({ ...ref, target: manifestTarget(ref) }));
    const published = await publisher.publish(
      client,
      { number, digest, manifests, ...document },
      refs.map((ref) => ref.sha256),
    );
    if (published.kind === "impossible") return { kind: "deferred", reason: published.reason };
    if (published.kind === "awaiting")
      return { kind: "done", detail: `revision ${number} waits for the signature of the release keys` };
  }
  if (same) {
    await claimLoads(client, current);
    return { kind: "done", detail: `the set is that of revision ${current}` };
  }
  const changes = diffSets(await readCurrentSet(client), files);
  await writeSet(client, number, changes);
  const counts = { added: 0, changed: 0, removed: 0 };
  for (const change of changes) counts[change.kind]++;
  await client.query(
    `insert into software_revision (number, digest, files, bytes, added, changed, removed, update_archive,
       update_archive_size, package_closure, selectable_roles, selectable_packages, layout)
     values ($1, decode($2, 'hex'), $3, $4, $5, $6, $7, decode($8, 'hex'), $9, $10, $11, $12, $13)`,
    [
      number,
      digest,
      files.length,
      files.reduce((sum, file) => sum + file.size, 0),
      counts.added,
      counts.changed,
      counts.removed,
      document.updateArchive?.sha256 ?? null,
      document.updateArchive?.size ?? null,
      JSON.stringify(document.packageClosure),
      JSON.stringify(document.selectableRoles),
      JSON.stringify(document.selectablePackages),
      JSON.stringify(storedLayout(state)),
    ],
  );
  await client.query(
    `insert into revision_manifest (revision, target, sha256, size, files, bytes)
     select $1, target, decode(sha256, 'hex'), size, files, bytes
     from unnest($2::text[], $3::text[], $4::bigint[], $5::int[], $6::bigint[])
       as m(target, sha256, size, files, bytes)`,
    [
      number,
      refs.map(manifestTarget),
      refs.map((ref) => ref.sha256),
      refs.map((ref) => ref.size),
      refs.map((ref) => ref.files),
      refs.map((ref) => ref.bytes),
    ],
  );
  await client.query("update semaphore set value = $1, updated_at = now() where name = 'SoftwareRevision'", [
    number,
  ]);
  await claimLoads(client, number);
  await client.query("select dbqueue_insert_single($1)", [COLLECT_CONTENT]);
  const { added, changed, removed } = counts;
  return {
    kind: "done",
    detail: `revision ${number}: ${added} added, ${changed} changed, ${removed} removed`,
  };
}

/** The files that some installation may get: those with content and at least one deploy target. */
function distributed({ files }: RepositoryState): RevisionFile[] {
  const result: RevisionFile[] = [];
  for (const file of files.values()) if (isDistributed(file)) result.push(file);
  return result;
}

function isDistributed(file: StoredFile): file is StoredFile & { size: number; sha256: Sha256 } {
  return file.sha256 !== null && file.size !== null && file.targets.length > 0;
}

function checkState(state: RepositoryState): void {
  const faults = findRevisionFaults([...state.files.values()], state.layout);
  const [first] = faults;
  if (first === undefined) return;
  throw new LockstepError(
    "PATH_REFUSED",
    `no revision can be made of the repository: ${first.where}: ${first.problem}`,
    {
      found: counted(faults.length, "fault"),
      hint: "Rename, remove or unassign the named files; then the revision is made at once.",
      faults: faults.map(({ where, problem }) => ({ where, problem })),
    },
  );
}

async function storeManifests(
  client: pg.PoolClient,
  files: readonly RevisionFile[],
  layout: Layout,
): Promise<ManifestRef[]> {
  const { rows } = await client.query<{ sha256: string }>(
    `select distinct encode(sha256, 'hex') as sha256 from revision_manifest
     where revision = (select value from semaphore where name = 'SoftwareRevision')`,
  );
  const stored = new Set(rows.map((row) => row.sha256));
  const refs: ManifestRef[] = [];
  for (const manifest of computeManifests(files, layout)) {
    // One text at a time: that of a role of 43,000 files is 6 MB.
    const text = Buffer.from(formatManifest(manifest));
    const sha256 = hash("sha256", text, "hex");
    if (!stored.has(sha256)) await storeContent(client, text);
    refs.push({
      target: manifest.target,
      sha256,
      size: text.length,
      files: manifest.entries.length,
      bytes: manifest.entries.reduce((sum, entry) => sum + entry.size, 0),
    });
  }
  return refs;
}

/** Everything that a revision stands for, in one order, so that equal revisions have equal digests. */
function* digestLines(
  files: readonly RevisionFile[],
  refs: readonly ManifestRef[],
  document: unknown,
): Generator<string, void, undefined> {
  for (const { path, size, sha256, mode, backup, targets } of files)
    yield `${JSON.stringify([path, size, sha256, mode, backup ? 1 : 0, targets])}\n`;
  for (const ref of refs) yield `${manifestTarget(ref)} ${ref.sha256}\n`;
  yield JSON.stringify(document);
}

function storedLayout(state: RepositoryState): StoredLayout {
  const modules = Object.fromEntries([...state.modules.values()].map(({ id, version }) => [id, version]));
  return { ...state.layout, modules };
}

/** The files of the revision that stands. */
async function readCurrentSet(client: pg.PoolClient): Promise<RevisionFile[]> {
  return await readSetWhere(client, "to_revision is null", []);
}

/** The files of one revision; empty for 0. */
export async function readRevisionSet(client: pg.PoolClient, number: number): Promise<RevisionFile[]> {
  return await readSetWhere(client, "from_revision <= $1 and (to_revision is null or to_revision > $1)", [
    number,
  ]);
}

async function readSetWhere(
  client: pg.PoolClient,
  where: string,
  values: unknown[],
): Promise<RevisionFile[]> {
  const { rows } = await client.query<
    [string, number, string, number, boolean, string, string, string | null]
  >({
    rowMode: "array",
    text: `select path, size, encode(sha256, 'hex'), mode, backup, targets::text, module_id, version
      from revision_file where ${where} order by path`,
    values,
  });
  // There are few different lists of targets; parsing and keeping each once saves most of the time and memory.
  const lists = new Map<string, readonly string[]>();
  return rows.map(([path, size, sha256, mode, backup, text, module, version]) => {
    let targets = lists.get(text);
    if (targets === undefined) {
      targets = parseTextArray(text);
      lists.set(text, targets);
    }
    return { path, size, sha256, mode, backup, targets, module, version };
  });
}

/** PostgreSQL's text form of text[]: `{a,"b c"}`. */
export function parseTextArray(text: string): string[] {
  const items: string[] = [];
  const pattern = /"((?:[^"\\]|\\.)*)"|([^",{}]+)/gy;
  let at = 1;
  while (at < text.length - 1) {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match === null) throw new RangeError(`not a list: ${text}`);
    items.push(match[1]?.replaceAll(/\\(.)/gs, "$1") ?? match[2] ?? "");
    at = pattern.lastIndex + 1;
  }
  return items;
}

async function writeSet(
  client: pg.PoolClient,
  number: number,
  changes: readonly RevisionChange<RevisionFile>[],
): Promise<void> {
  const gone = changes.filter((change) => change.from !== null).map((change) => change.path);
  for (const batch of batches(gone))
    await client.query(
      "update revision_file set to_revision = $1 where to_revision is null and path = any($2)",
      [number, batch],
    );
  const come = changes.flatMap((change) => change.to ?? []);
  for (const batch of batches(come)) await insertSet(client, number, batch);
}

async function insertSet(
  client: pg.PoolClient,
  number: number,
  come: readonly RevisionFile[],
): Promise<void> {
  // Lists of targets as their place in a list of lists: few of them, and SQL arrays cannot be ragged.
  const lists = [...new Set(come.map((file) => JSON.stringify(file.targets)))];
  const places = new Map(lists.map((list, index) => [list, index]));
  await client.query(
    `with list as (
       select place - 1 as place, array(select jsonb_array_elements_text(item)) as targets
       from jsonb_array_elements($9::jsonb) with ordinality as l(item, place)
     )
     insert into revision_file
       (path, from_revision, size, sha256, mode, backup, targets, module_id, version)
     select path, $1, size, decode(sha256, 'hex'), mode, backup, list.targets, module, version
     from unnest($2::text[], $3::bigint[], $4::text[], $5::int[], $6::boolean[], $7::text[], $8::text[], $10::int[])
       as f(path, size, sha256, mode, backup, module, version, place)
     join list on list.place = f.place`,
    [
      number,
      come.map((file) => file.path),
      come.map((file) => file.size),
      come.map((file) => file.sha256),
      come.map((file) => file.mode),
      come.map((file) => file.backup),
      come.map((file) => file.module),
      come.map((file) => file.version),
      `[${lists.join(",")}]`,
      come.map((file) => places.get(JSON.stringify(file.targets)) ?? 0),
    ],
  );
}

/** Whatever was loaded up to this moment is part of this revision. */
async function claimLoads(client: pg.PoolClient, number: number): Promise<void> {
  await client.query("update release_load set revision = $1 where revision is null", [number]);
}

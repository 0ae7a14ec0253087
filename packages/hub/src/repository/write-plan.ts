import { foldPath, type LayoutChange, parseTarget, type StoredModule } from "@lockstep/core";
import type pg from "pg";
import { batches } from "./batches.ts";

/**
 * Writes what was decided about file revisions, their deploy targets, the layout and modules. Few statements, each over
 * thousands of rows, and none where nothing changes: a statement that touches a watched table asks for a recalculation.
 */
export interface FileWrite {
  readonly path: string;
  readonly module: string;
  readonly size: number;
  readonly sha256: string;
  readonly mode: number;
  readonly version: string | null;
  readonly backup: boolean;
  /** The deploy targets afterwards; null leaves them as they are. */
  readonly targets: readonly string[] | null;
  readonly isNew: boolean;
}

/** Removes file revisions. Their contents stay until nothing refers to them. */
export async function removeFiles(client: pg.PoolClient, paths: readonly string[]): Promise<void> {
  if (paths.length > 0) await client.query("delete from file_revision where path = any($1)", [paths]);
}

/** Inserts and changes file revisions. Remove first what goes: a path may come back in another spelling. */
export async function putFiles(
  client: pg.PoolClient,
  files: readonly FileWrite[],
  loadId: number | null,
): Promise<void> {
  for (const batch of batches(files)) await insertFiles(client, batch, loadId);
  await putTargets(client, files);
}

async function insertFiles(
  client: pg.PoolClient,
  files: readonly FileWrite[],
  loadId: number | null,
): Promise<void> {
  await client.query(
    `insert into file_revision
       (path, path_key, module_id, size, sha256, mode, version, backup, loaded_at, load_id)
     select path, path_key, module, size, decode(sha256, 'hex'), mode, version, backup, now(), $9
     from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::int[], $7::text[], $8::boolean[])
       as f(path, path_key, module, size, sha256, mode, version, backup)
     on conflict (path) do update set module_id = excluded.module_id, size = excluded.size,
       sha256 = excluded.sha256, mode = excluded.mode, version = excluded.version, backup = excluded.backup,
       loaded_at = excluded.loaded_at, load_id = excluded.load_id`,
    [
      files.map((file) => file.path),
      files.map((file) => foldPath(file.path)),
      files.map((file) => file.module),
      files.map((file) => file.size),
      files.map((file) => file.sha256),
      files.map((file) => file.mode),
      files.map((file) => file.version),
      files.map((file) => file.backup),
      loadId,
    ],
  );
}

/** Sets the deploy targets of existing file revisions. The targets must exist. */
export async function putTargets(
  client: pg.PoolClient,
  files: readonly {
    readonly path: string;
    readonly targets: readonly string[] | null;
    readonly isNew: boolean;
  }[],
): Promise<void> {
  const retargeted = files.filter((file) => file.targets !== null);
  if (retargeted.length === 0) return;
  const ids = await targetIds(client);
  for (const batch of batches(retargeted)) await insertTargets(client, batch, ids);
}

async function insertTargets(
  client: pg.PoolClient,
  retargeted: Parameters<typeof putTargets>[1],
  ids: ReadonlyMap<string, number>,
): Promise<void> {
  const paths: string[] = [];
  const targets: number[] = [];
  for (const file of retargeted)
    for (const target of file.targets ?? []) {
      const id = ids.get(target);
      if (id === undefined) throw new RangeError(`the deploy target ${target} does not exist`);
      paths.push(file.path);
      targets.push(id);
    }
  const known = retargeted.filter((file) => !file.isNew).map((file) => file.path);
  if (known.length > 0)
    await client.query(
      `delete from file_has_deploy_target h using file_revision f
       where f.id = h.file_id and f.path = any($1)
         and not exists (select from unnest($2::text[], $3::bigint[]) as w(path, target)
           where w.path = f.path and w.target = h.target_id)`,
      [known, paths, targets],
    );
  if (paths.length > 0)
    await client.query(
      `insert into file_has_deploy_target (file_id, target_id)
       select f.id, w.target from unnest($1::text[], $2::bigint[]) as w(path, target)
       join file_revision f on f.path = w.path
       on conflict do nothing`,
      [paths, targets],
    );
}

/** Writes a change of machine roles, packages and what relates them. */
export async function writeLayout(client: pg.PoolClient, change: LayoutChange): Promise<void> {
  const { targetPuts, targetRemovals, relationPuts, relationRemovals } = change;
  const { requirementPuts, requirementRemovals } = change;
  if (targetPuts.length > 0)
    await client.query(
      `insert into deploy_target (kind, name, description, selectable, declared_by)
       select * from unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::text[])
       on conflict (kind, name) do update set description = excluded.description,
         selectable = excluded.selectable, declared_by = excluded.declared_by`,
      [
        targetPuts.map((put) => put.kind),
        targetPuts.map((put) => put.name),
        targetPuts.map((put) => put.description),
        targetPuts.map((put) => put.selectable),
        targetPuts.map((put) => put.module),
      ],
    );
  if (relationRemovals.length > 0)
    await client.query(
      `delete from role_has_package h
       using unnest($1::text[], $2::text[], $3::text[]) as w(role, package, module), deploy_target r, deploy_target p
       where r.kind = 'role' and r.name = w.role and p.kind = 'package' and p.name = w.package
         and h.role_id = r.id and h.package_id = p.id and h.module_id = w.module`,
      [
        relationRemovals.map((relation) => relation.role),
        relationRemovals.map((relation) => relation.package),
        relationRemovals.map((relation) => relation.module),
      ],
    );
  if (requirementRemovals.length > 0)
    await client.query(
      `delete from package_requires q
       using unnest($1::text[], $2::text[]) as w(package, requires), deploy_target p, deploy_target n
       where p.kind = 'package' and p.name = w.package and n.kind = 'package' and n.name = w.requires
         and q.package_id = p.id and q.requires_id = n.id`,
      [requirementRemovals.map((row) => row.package), requirementRemovals.map((row) => row.requires)],
    );
  if (relationPuts.length > 0)
    await client.query(
      `insert into role_has_package (role_id, package_id, subdirectory, module_id)
       select r.id, p.id, w.subdirectory, w.module
       from unnest($1::text[], $2::text[], $3::text[], $4::text[]) as w(role, package, subdirectory, module)
       join deploy_target r on r.kind = 'role' and r.name = w.role
       join deploy_target p on p.kind = 'package' and p.name = w.package
       on conflict (role_id, package_id, module_id) do update set subdirectory = excluded.subdirectory`,
      [
        relationPuts.map((relation) => relation.role),
        relationPuts.map((relation) => relation.package),
        relationPuts.map((relation) => relation.subdirectory),
        relationPuts.map((relation) => relation.module),
      ],
    );
  if (requirementPuts.length > 0)
    await client.query(
      `insert into package_requires (package_id, requires_id)
       select p.id, n.id from unnest($1::text[], $2::text[]) as w(package, requires)
       join deploy_target p on p.kind = 'package' and p.name = w.package
       join deploy_target n on n.kind = 'package' and n.name = w.requires
       on conflict do nothing`,
      [requirementPuts.map((row) => row.package), requirementPuts.map((row) => row.requires)],
    );
  if (targetRemovals.length > 0)
    await client.query(
      "delete from deploy_target t using unnest($1::text[], $2::text[]) as w(kind, name) where t.kind = w.kind and t.name = w.name",
      [targetRemovals.map((target) => target.kind), targetRemovals.map((target) => target.name)],
    );
}

/** Writes the row of a module. */
export async function writeModule(client: pg.PoolClient, module: StoredModule): Promise<void> {
  await client.query(
    `insert into module (id, name, version, requires, loaded_at) values ($1, $2, $3, $4, now())
     on conflict (id) do update set name = excluded.name, version = excluded.version,
       requires = excluded.requires, loaded_at = excluded.loaded_at`,
    [module.id, module.name, module.version, JSON.stringify(module.requires)],
  );
}

async function targetIds(client: pg.PoolClient): Promise<Map<string, number>> {
  const { rows } = await client.query<{ id: number; kind: string; name: string }>(
    "select id, kind, name from deploy_target",
  );
  return new Map(
    rows.flatMap((row) =>
      parseTarget(`${row.kind}:${row.name}`) === null ? [] : [[`${row.kind}:${row.name}`, row.id]],
    ),
  );
}

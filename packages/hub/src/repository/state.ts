import {
  formatTarget,
  type Layout,
  type LayoutPackage,
  type LayoutRole,
  type ModuleRequirement,
  type PackageOfRole,
  type PackageRequirement,
  type RepositoryState,
  type StoredFile,
  type StoredModule,
} from "@lockstep/core";
import type pg from "pg";

type Queryable = pg.Pool | pg.PoolClient;

/**
 * Reads everything that decisions about file revisions need, within the caller's transaction: call it under the
 * repository lock or in a repeatable-read transaction, or the parts may not fit each other.
 *
 * 43,000 files take about a third of a second and 30 MB: rows come as arrays, and the target lists, of which there are
 * few different ones, are shared between the files.
 */
export async function readState(client: Queryable): Promise<RepositoryState> {
  const modules = await readModules(client);
  const { layout, names } = await readLayout(client);
  return { modules, layout, files: await readFiles(client, names) };
}

export async function readModules(client: Queryable): Promise<Map<string, StoredModule>> {
  const { rows } = await client.query<StoredModule & { requires: ModuleRequirement[] }>(
    "select id, version, name, requires from module order by id",
  );
  return new Map(rows.map((row) => [row.id, row]));
}

/** The layout, and the formatted name of each deploy target by its id. */
export async function readLayout(
  client: Queryable,
): Promise<{ layout: Layout; names: ReadonlyMap<string, string> }> {
  const targets = await client.query<{
    id: number;
    kind: "role" | "package";
    name: string;
    description: string;
    selectable: boolean;
    module: string | null;
  }>(
    `select id, kind, name, description, selectable, declared_by as module from deploy_target order by kind, name collate "C"`,
  );
  const relations = await client.query<PackageOfRole>(
    `select r.name as role, p.name as package, h.subdirectory, h.module_id as module
     from role_has_package h join deploy_target r on r.id = h.role_id join deploy_target p on p.id = h.package_id
     order by 1, 2, 4`,
  );
  const requirements = await client.query<PackageRequirement>(
    `select p.name as package, n.name as requires
     from package_requires q join deploy_target p on p.id = q.package_id join deploy_target n on n.id = q.requires_id
     order by 1, 2`,
  );
  const roles: LayoutRole[] = [];
  const packages: LayoutPackage[] = [];
  const names = new Map<string, string>();
  for (const { id, kind, name, description, selectable, module } of targets.rows) {
    names.set(String(id), formatTarget({ kind, name }));
    if (kind === "role") roles.push({ path: name, description, selectable, module });
    else packages.push({ name, description, selectable, module });
  }
  return { layout: { roles, packages, relations: relations.rows, requirements: requirements.rows }, names };
}

type FileArray = [
  path: string,
  module: string,
  size: number | null,
  sha256: string | null,
  mode: number,
  version: string | null,
  backup: boolean,
  targets: string | null,
];

/** All file revisions, ordered by path (by code point). `names`: formatted targets by their id. */
export async function readFiles(
  client: Queryable,
  names: ReadonlyMap<string, string>,
): Promise<Map<string, StoredFile>> {
  const { rows } = await client.query<FileArray>({
    rowMode: "array",
    text: `select f.path, f.module_id, f.size, encode(f.sha256, 'hex'), f.mode, f.version, f.backup, h.targets
      from file_revision f
      left join (
        select file_id, string_agg(target_id::text, ',' order by target_id) as targets
        from file_has_deploy_target group by file_id
      ) as h on h.file_id = f.id
      order by f.path`,
  });
  const lists = new Map<string, readonly string[]>([["", []]]);
  const listOf = (ids: string): readonly string[] => {
    const known = lists.get(ids);
    if (known !== undefined) return known;
    const list = ids
      .split(",")
      .map((id) => names.get(id) ?? "")
      .sort();
    lists.set(ids, list);
    return list;
  };
  const files = new Map<string, StoredFile>();
  for (const [path, module, size, sha256, mode, version, backup, targets] of rows)
    files.set(path, { path, module, size, sha256, mode, version, backup, targets: listOf(targets ?? "") });
  return files;
}

/** The value of the semaphore: the current software revision. */
export async function readSemaphore(client: Queryable): Promise<number> {
  const { rows } = await client.query<{ value: number }>(
    "select value from semaphore where name = 'SoftwareRevision'",
  );
  return rows[0]?.value ?? 0;
}

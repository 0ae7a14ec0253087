import {
  CUSTOM_MODULE,
  checkPath,
  compileGlob,
  findRevisionFaults,
  findTwins,
  foldPath,
  type Glob,
  isGlobFault,
  parseTarget,
  type RepositoryState,
  roleWithParents,
  type StoredFile,
  sameTargets,
  UPDATE_ARCHIVE_PATH,
} from "@lockstep/core";
import { type AssignRequest, type ChangedPaths, type FileList, LockstepError } from "@lockstep/protocol";
import type pg from "pg";
import { withTransaction } from "../db/connect.ts";
import { lockRepository } from "./lock.ts";
import { readLayout, readState } from "./state.ts";
import { putTargets, removeFiles } from "./write-plan.ts";

/** How many rows are looked at for one page when a pattern drops most of them. */
const SCAN_ROWS = 5_000;

/** One page of file revisions, by path. `match` is a glob; `after` the last path of the page before. */
export async function listFiles(
  pool: pg.Pool,
  query: { readonly match: string | null; readonly after: string | null; readonly limit: number },
): Promise<FileList> {
  const glob = query.match === null ? null : readGlob(query.match);
  const { names } = await readLayout(pool);
  const files: FileList["files"] = [];
  let after = query.after ?? "";
  while (true) {
    const { rows } = await pool.query<{
      path: string;
      module: string;
      size: number | null;
      sha256: string | null;
      mode: number;
      version: string | null;
      backup: boolean;
      loadedAt: Date | null;
      targets: number[];
    }>(
      `select path, module_id as module, size, encode(sha256, 'hex') as sha256, mode, version, backup,
         loaded_at as "loadedAt",
         array(select target_id from file_has_deploy_target h where h.file_id = f.id) as targets
       from file_revision f where path > $1 order by path limit $2`,
      [after, SCAN_ROWS],
    );
    for (const row of rows) {
      after = row.path;
      if (glob !== null && !glob.matches(row.path)) continue;
      files.push({
        ...row,
        loadedAt: row.loadedAt?.getTime() ?? null,
        targets: row.targets.map((id) => names.get(String(id)) ?? "").sort(),
      });
      if (files.length === query.limit) return { files, next: row.path };
    }
    if (rows.length < SCAN_ROWS) return { files, next: null };
  }
}

/**
 * Changes the deploy targets of all files that match. Returns the paths whose targets changed. One path that the
 * repository does not know yet becomes known by that: never loaded, it belongs where it should from its first load on.
 * Throws REQUEST_INVALID, FILE_UNKNOWN, ROLE_UNKNOWN, PACKAGE_UNKNOWN, PATH_REFUSED, HUB_BUSY.
 */
export async function assignFiles(pool: pg.Pool, request: AssignRequest): Promise<ChangedPaths> {
  return await change(
    pool,
    request.match,
    async (client, state, matched) => {
      const add = request.add.map(readTarget);
      const remove = request.remove.map(readTarget);
      for (const target of [...add, ...remove]) checkKnown(target, state);
      const changed: { path: string; targets: string[]; isNew: boolean }[] = [];
      const after = new Map(state.files);
      for (const file of matched) {
        const kept = request.only ? [] : file.targets.filter((target) => !remove.includes(target));
        const targets = [...new Set([...kept, ...add])].sort();
        if (sameTargets(file.targets, targets)) continue;
        changed.push({ path: file.path, targets, isNew: false });
        after.set(file.path, { ...file, targets });
      }
      refuseNewFaults(state, after);
      await putTargets(client, changed);
      return changed.map(({ path }) => path);
    },
    nameFile,
  );
}

/** Makes a path known under which nothing was loaded yet. */
async function nameFile(client: pg.PoolClient, state: RepositoryState, path: string): Promise<StoredFile> {
  const twin = findTwins([...state.files.keys(), path]).find(
    (found) => found.path === path || found.other === path,
  );
  const problem =
    checkPath(path)?.problem ??
    (twin === undefined ? null : `it cannot stand beside ${twin.path === path ? twin.other : twin.path}`);
  if (problem !== null || path === UPDATE_ARCHIVE_PATH)
    throw new LockstepError("PATH_REFUSED", `${path} cannot be the path of a file`, {
      hint: "Nothing was changed.",
      faults: [{ where: path, problem: problem ?? "the name is kept for the update archive" }],
    });
  await client.query("insert into file_revision (path, path_key, module_id) values ($1, $2, $3)", [
    path,
    foldPath(path),
    CUSTOM_MODULE,
  ]);
  const rest = { size: null, sha256: null, mode: 0o644, version: null, backup: false, targets: [] };
  return { path, module: CUSTOM_MODULE, ...rest };
}

/** Removes all file revisions that match. Throws REQUEST_INVALID, FILE_UNKNOWN, HUB_BUSY. */
export async function removeMatching(pool: pg.Pool, match: string): Promise<ChangedPaths> {
  return await change(pool, match, async (client, _, matched) => {
    const paths = matched.map((file) => file.path);
    await removeFiles(client, paths);
    return paths;
  });
}

async function change(
  pool: pg.Pool,
  match: string,
  act: (client: pg.PoolClient, state: RepositoryState, matched: readonly StoredFile[]) => Promise<string[]>,
  /** What to do with a single path that is not known; left out: FILE_UNKNOWN. */
  whenUnknown?: typeof nameFile,
): Promise<ChangedPaths> {
  const glob = readGlob(match);
  return await withTransaction(pool, async ({ client }) => {
    await lockRepository(client);
    const state = await readState(client);
    // The archive is made by the DBQueue, and belongs to no target.
    const matched = [...state.files.values()].filter(
      ({ path }) => path !== UPDATE_ARCHIVE_PATH && glob.matches(path),
    );
    if (matched.length === 0 && whenUnknown !== undefined && glob.literal !== null)
      matched.push(await whenUnknown(client, state, glob.literal));
    if (matched.length === 0)
      throw new LockstepError("FILE_UNKNOWN", `no file of the repository matches ${match}`, {
        found: match,
        hint: "`lockstep files list` shows the paths; * stays within a folder, ** does not.",
      });
    return { paths: await act(client, state, matched) };
  });
}

function readGlob(match: string): Glob {
  const glob = compileGlob(match);
  if (!isGlobFault(glob)) return glob;
  throw new LockstepError("REQUEST_INVALID", `${match} is no pattern: ${glob.problem}`, { found: match });
}

function readTarget(text: string): string {
  const target = parseTarget(text);
  if (target !== null) return `${target.kind}:${target.name}`;
  throw new LockstepError("REQUEST_INVALID", `${text} names no deploy target`, {
    expected: "role:Server/JobServer or package:MODULE/Package",
    found: text,
  });
}

function checkKnown(text: string, { layout }: RepositoryState): void {
  const target = parseTarget(text);
  if (target?.kind === "role" && !layout.roles.some((role) => role.path === target.name)) {
    const known = roleWithParents(target.name).filter((path) =>
      layout.roles.some((role) => role.path === path),
    );
    throw new LockstepError("ROLE_UNKNOWN", `there is no machine role ${target.name}`, {
      expected: layout.roles.map((role) => role.path).join(", ") || "none is declared yet",
      found: target.name,
      hint: `${known.length === 0 ? "" : `${known.at(-1)} exists. `}A role comes into being by a load that assigns files to it or declares it.`,
    });
  }
  if (target?.kind === "package" && !layout.packages.some((p) => p.name === target.name))
    throw new LockstepError("PACKAGE_UNKNOWN", `there is no installation package ${target.name}`, {
      expected: layout.packages.map((p) => p.name).join(", ") || "none is declared yet",
      found: target.name,
      hint: "Packages are declared in a module description file.",
    });
}

function refuseNewFaults(state: RepositoryState, after: ReadonlyMap<string, StoredFile>): void {
  const faults = findRevisionFaults([...after.values()], state.layout);
  if (faults.length === 0) return;
  const before = new Set(
    findRevisionFaults([...state.files.values()], state.layout).map((f) => `${f.where}\0${f.problem}`),
  );
  const fresh = faults.filter((fault) => !before.has(`${fault.where}\0${fault.problem}`));
  const [first] = fresh;
  if (first !== undefined)
    throw new LockstepError("PATH_REFUSED", `the assignment is refused: ${first.where}: ${first.problem}`, {
      hint: "Nothing was changed.",
      faults: fresh.map(({ where, problem }) => ({ where, problem })),
    });
}

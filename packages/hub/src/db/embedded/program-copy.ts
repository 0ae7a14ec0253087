/** Copies of PostgreSQL's programs that their user can reach; see programs.ts for when and why. */
import { createHash, randomBytes } from "node:crypto";
import {
  chmod,
  copyFile,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  symlink,
} from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import type { Account } from "./account.ts";

interface ProgramFile {
  /** Below the prefix. */
  readonly path: string;
  readonly executable: boolean;
}

/** What a server needs; static libraries, headers and the like stay behind. */
function isNeeded(path: string): boolean {
  return !/\.a$|\/pgxs\/|\/pkgconfig\/|^include\/|\/man\/|\/doc\//.test(path);
}

/**
 * Makes the links that the package's install script would have made. Returns false where that is not possible; a link
 * that is there already, also one just made by another process, is fine.
 */
export async function linkLibraries(prefix: string): Promise<boolean> {
  try {
    for (const { source, target } of await missingLinks(prefix)) {
      await symlink(source, join(prefix, target)).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "EEXIST") throw error;
      });
    }
    return true;
  } catch {
    return false;
  }
}

/** The package's list of links: `target` below the prefix, `source` as the link says it. */
async function missingLinks(prefix: string): Promise<readonly { source: string; target: string }[]> {
  const list: unknown = JSON.parse(await readFile(join(prefix, "pg-symlinks.json"), "utf8"));
  if (!Array.isArray(list)) return [];
  return list.flatMap((link: { source?: unknown; target?: unknown }) => {
    if (typeof link.source !== "string" || typeof link.target !== "string") return [];
    // Both are given below the package, so with the name of the prefix in front.
    const target = link.target.replace(/^native\//, "");
    return [{ source: relative(dirname(link.target), link.source), target }];
  });
}

/**
 * Copies a tree of programs below the first of the directories that can be used, unless the same copy is there
 * already. Returns its path. A directory that others could write to is passed over.
 */
export async function copyPrograms(
  prefix: string,
  directories: readonly string[],
  account: Account | null,
): Promise<string> {
  const files = await listFiles(prefix);
  const digest = await digestOf(prefix, files);
  const problems: string[] = [];
  for (const directory of directories) {
    try {
      await mkdir(directory, { recursive: true, mode: 0o755 });
      await refuseForeign(directory, account);
      const copy = join(directory, `postgres-${digest.slice(0, 32)}`);
      if (await isIntact(copy, digest)) return copy;
      await makeCopy(prefix, files, copy, digest);
      if (await isIntact(copy, digest)) return copy;
      problems.push(`${directory}: the copy differs from its original`);
    } catch (error) {
      problems.push(`${directory}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  throw new Error(problems.join("; "));
}

/** Throws unless every directory from the root down is root's or ours, and nobody else may write there. */
async function refuseForeign(directory: string, account: Account | null): Promise<void> {
  // Without an account the copy lies in the data directory, and who can write there needs no copy to do harm.
  if (account === null) return;
  const own = process.getuid?.() ?? 0;
  for (let path = await realpath(directory); ; path = dirname(path)) {
    const { uid, mode } = await lstat(path);
    const shared = (mode & 0o022) !== 0 && (mode & 0o1000) === 0;
    if ((uid !== 0 && uid !== own) || shared) throw new Error(`${path} can be changed by other users`);
    // The account's way in needs search permission for others all the way down.
    if ((mode & 0o001) === 0) throw new Error(`${path} cannot be entered by other users`);
    if (path === dirname(path)) return;
  }
}

async function makeCopy(
  prefix: string,
  files: readonly ProgramFile[],
  copy: string,
  digest: string,
): Promise<void> {
  await removeAbandoned(dirname(copy));
  const temporary = await mkdtemp(`${copy}.new-`);
  try {
    await chmod(temporary, 0o755);
    for (const { path, executable } of files) {
      const target = join(temporary, path);
      await mkdir(dirname(target), { recursive: true, mode: 0o755 });
      await copyFile(join(prefix, path), target);
      await chmod(target, executable ? 0o755 : 0o644);
    }
    for (const { source, target } of await missingLinks(prefix).catch(() => [])) {
      await symlink(source, join(temporary, target)).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "EEXIST") throw error;
      });
    }
    await rename(temporary, copy).catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOTEMPTY" && error.code !== "EEXIST") throw error;
      // Another hub was faster, or what is there is damaged.
      if (await isIntact(copy, digest)) return;
      await retire(copy);
      await rename(temporary, copy);
    });
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

const ABANDONED_MS = 3_600_000;

/** Removes what a hub that was killed while copying left behind. */
async function removeAbandoned(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    if (!/^(postgres-.*\.new-|\.old-postgres-)/.test(name)) continue;
    const path = join(directory, name);
    const status = await lstat(path).catch(() => null);
    if (status !== null && Date.now() - status.ctimeMs > ABANDONED_MS) {
      await rm(path, { recursive: true, force: true });
    }
  }
}

/** Takes a damaged copy out of the way. */
async function retire(copy: string): Promise<void> {
  const retired = join(dirname(copy), `.old-${basename(copy)}-${randomBytes(6).toString("hex")}`);
  await rename(copy, retired).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error;
  });
  await rm(retired, { recursive: true, force: true });
}

async function isIntact(copy: string, digest: string): Promise<boolean> {
  try {
    const { uid } = await lstat(copy);
    const own = process.getuid?.() ?? 0;
    return (uid === 0 || uid === own) && (await digestOf(copy, await listFiles(copy))) === digest;
  } catch {
    return false;
  }
}

/** Every regular file that a server needs. Links are not listed: they are made anew. */
async function listFiles(prefix: string): Promise<readonly ProgramFile[]> {
  const entries = await readdir(prefix, { recursive: true, withFileTypes: true });
  const files: ProgramFile[] = [];
  for (const entry of entries) {
    const path = relative(prefix, join(entry.parentPath, entry.name));
    if (!entry.isFile() || !isNeeded(path)) continue;
    const { mode } = await lstat(join(prefix, path));
    files.push({ path, executable: (mode & 0o100) !== 0 });
  }
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Over names, modes and contents; a link in a copy that leads elsewhere than inside it makes the digest fail. */
async function digestOf(prefix: string, files: readonly ProgramFile[]): Promise<string> {
  const all = createHash("sha256");
  for (const { path, executable } of files) {
    const content = createHash("sha256")
      .update(await readFile(join(prefix, path)))
      .digest("hex");
    all.update(`${path}\n${executable ? "x" : "-"} ${content}\n`);
  }
  for (const entry of await readdir(prefix, { recursive: true, withFileTypes: true })) {
    if (!entry.isSymbolicLink()) continue;
    const target = await readlink(join(entry.parentPath, entry.name));
    if (target.includes("/")) throw new Error(`${join(entry.parentPath, entry.name)} leads to ${target}`);
  }
  return all.digest("hex");
}

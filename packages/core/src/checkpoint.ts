import type { VirtualServerDefinition } from "./cluster-types.ts";
import { checkPath, findTwins } from "./path.ts";

/**
 * The settings of a service that follow its virtual server (S4, S13).
 *
 * A service writes its settings into files of the node that it runs on, and must find the same ones wherever it starts
 * next. So every change on the owner goes to the coordination store, and what stands there is laid down on the next owner
 * before the service starts. Nobody registers anything: a directory named `settings` is enough, in the virtual server's
 * data directory or beside the configuration file. The configuration file itself is none of it (S11): each node has its
 * own.
 *
 * In the store there are *contents* in pieces and *manifests* that name them, each under a key that is written once and
 * never again. A write whose answer was lost may still arrive later, also after newer ones; under a key of its own it is
 * garbage and nothing more. The manifest with the highest number counts, and it is written after (or together with) the
 * contents that it names, so whoever finds one finds everything.
 *
 * Not promised: that a change which the owner made less than a moment before it died is in the store. It is found and
 * reported when that node is the owner again, with a copy of what stood there.
 */
export interface CheckpointRoot {
  /** Equal on all nodes: `data`, `config`, or the absolute path that the definition names. */
  readonly id: string;
  /** Where it is on this node, absolute. */
  readonly path: string;
}

/** One file or directory below a root, or the root itself (`path` empty). */
export interface CheckpointEntry {
  readonly root: string;
  /** Relative to the root, in the portable grammar; empty: the root itself. */
  readonly path: string;
  readonly kind: "file" | "directory";
  /** The nine permission bits. */
  readonly mode: number;
  /** Bytes; 0 for a directory. */
  readonly size: number;
  /** SHA-256 of the content in lower case hexadecimal; empty for a directory. */
  readonly sha256: string;
}

/** An entry in the store: with the keys of the pieces of its content, in order. */
export interface StoredEntry extends CheckpointEntry {
  readonly pieces: readonly string[];
}

export interface CheckpointManifest {
  /** Grows with each one. The highest counts. */
  readonly number: number;
  /** Who wrote it, for people. */
  readonly node: string;
  readonly token: number;
  /** What it speaks of. A root that is not here was not looked at; one without entries is empty or gone. */
  readonly roots: readonly string[];
  readonly entries: readonly StoredEntry[];
}

export interface CheckpointLimits {
  readonly fileBytesMax: number;
  readonly totalBytesMax: number;
  readonly entriesMax: number;
}

/** A coordination store is no file server: what does not fit belongs onto a shared volume or into the repository. */
export const CHECKPOINT_LIMITS: CheckpointLimits = {
  fileBytesMax: 4 * 1024 * 1024,
  totalBytesMax: 16 * 1024 * 1024,
  entriesMax: 1_000,
};

/** One name for an entry among all roots. No root and no path holds this character. */
export const entryKey = (entry: Pick<CheckpointEntry, "root" | "path">) => `${entry.root}\n${entry.path}`;

/** How people read an entry. */
export const showEntry = ({ root, path }: Pick<CheckpointEntry, "root" | "path">) =>
  path === "" ? root : `${root}/${path}`;

/** The file system path of an entry on a node where its root is at `rootPath`. */
export const entryPath = (rootPath: string, path: string) => (path === "" ? rootPath : `${rootPath}/${path}`);

export interface CheckpointRoots {
  readonly roots: readonly CheckpointRoot[];
  /** What was named and is left out, and why. */
  readonly left: readonly { readonly path: string; readonly why: string }[];
}

/**
 * What follows a virtual server: `settings` in its data directory on this node (absolute), `settings` beside its
 * configuration file, and what its definition names. Left out: what lies on a volume that the virtual server mounts (all
 * nodes see the same one), the configuration file, and whatever lies inside another root or around one.
 */
export function checkpointRoots(definition: VirtualServerDefinition, dataDirectory: string): CheckpointRoots {
  const roots: CheckpointRoot[] = [];
  const left: { path: string; why: string }[] = [];
  const config = definition.config?.path ?? jobServiceConfig(definition);
  const mounts = definition.resources
    .filter(({ type }) => type === "mount")
    .flatMap(({ settings }) => Object.values(settings))
    .filter((value): value is string => typeof value === "string" && value.startsWith("/") && value !== "/")
    .map(withoutEnd);
  const wanted: CheckpointRoot[] = [
    { id: "data", path: `${withoutEnd(dataDirectory)}/settings` },
    ...(config === null ? [] : [{ id: "config", path: `${parentOf(config)}/settings` }]),
    ...definition.checkpoints.map((path) => ({ id: withoutEnd(path), path: withoutEnd(path) })),
  ];
  for (const root of wanted) {
    const mount = mounts.find((each) => isInside(root.path, each));
    const other = roots.find(({ path }) => isInside(root.path, path) || isInside(path, root.path));
    if (mount !== undefined) left.push({ path: root.path, why: `it lies on the volume at ${mount}` });
    else if (config !== null && isInside(config, root.path))
      left.push({ path: root.path, why: "the configuration file is in it, and each node has its own" });
    else if (other !== undefined) {
      if (other.path !== root.path) left.push({ path: root.path, why: `${other.path} is followed already` });
    } else if (root.path.split("/").includes("..") || root.path === "")
      left.push({ path: root.path, why: "it is no plain absolute path" });
    else roots.push(root);
  }
  return { roots, left };
}

/** The configuration of this project's job service, where a resource names it. */
function jobServiceConfig({ resources }: VirtualServerDefinition): string | null {
  const paths = resources.map(({ settings }) => settings.jobService);
  return paths.find((path): path is string => typeof path === "string" && path.startsWith("/")) ?? null;
}

const withoutEnd = (path: string) => path.replace(/\/+$/, "");
const parentOf = (path: string) => path.slice(0, Math.max(0, path.lastIndexOf("/")));
const isInside = (path: string, directory: string) => path === directory || path.startsWith(`${directory}/`);

/** Why a path below a root is not followed, or null. Names that only an installation keeps for itself are allowed. */
export function settingsPathProblem(path: string): string | null {
  const fault = checkPath(path);
  return fault === null || fault.kind === "own-name" ? null : fault.problem;
}

/** What is too much about a set of entries, in words; empty: it fits. */
export function findCheckpointExcess(
  entries: readonly CheckpointEntry[],
  limits: CheckpointLimits,
): { readonly where: string; readonly problem: string }[] {
  const excess = entries
    .filter(({ size }) => size > limits.fileBytesMax)
    .map((entry) => ({
      where: showEntry(entry),
      problem: `has ${entry.size} bytes, one file may have ${limits.fileBytesMax}`,
    }));
  const total = entries.reduce((sum, { size }) => sum + size, 0);
  if (total > limits.totalBytesMax)
    excess.push({
      where: "all files",
      problem: `have ${total} bytes together, at most ${limits.totalBytesMax}`,
    });
  if (entries.length > limits.entriesMax)
    excess.push({
      where: "files and directories",
      problem: `are ${entries.length}, at most ${limits.entriesMax}`,
    });
  return excess;
}

/** Whether two sets say the same of every file and directory: kind, mode and content, in whatever order. */
export function sameEntries(a: readonly CheckpointEntry[], b: readonly CheckpointEntry[]): boolean {
  if (a.length !== b.length) return false;
  const others = new Map(b.map((entry) => [entryKey(entry), entry]));
  return a.every((entry) => {
    const other = others.get(entryKey(entry));
    return other !== undefined && isEqualEntry(entry, other);
  });
}

export const isEqualEntry = (a: CheckpointEntry, b: CheckpointEntry) =>
  a.kind === b.kind && a.mode === b.mode && a.sha256 === b.sha256;

/** What is wrong with a manifest as a whole, or null: paths, twins, files with something below them. */
export function findManifestProblem({ entries, roots }: CheckpointManifest): string | null {
  const known = new Set(roots);
  const kinds = new Map(entries.map((entry) => [entryKey(entry), entry.kind]));
  if (kinds.size !== entries.length) return "an entry is there twice";
  for (const entry of entries) {
    const shown = JSON.stringify(showEntry(entry));
    if (!known.has(entry.root)) return `${shown} belongs to no root`;
    const problem = entry.path === "" ? null : settingsPathProblem(entry.path);
    if (problem !== null) return `${shown} is refused: ${problem}`;
    if (entry.kind === "file" ? !/^[0-9a-f]{64}$/.test(entry.sha256) : entry.pieces.length > 0)
      return `${shown} has no proper content`;
    const parent = parentKey(entry);
    if (parent !== null && kinds.get(parent) !== "directory") return `${shown} has no directory to stand in`;
  }
  for (const root of roots) {
    const [twin] = findTwins(
      entries
        .filter((entry) => entry.root === root && entry.path !== "" && entry.kind === "file")
        .map(({ path }) => path),
    );
    if (twin !== undefined) return `${twin.path} and ${twin.other} are one file on some systems`;
  }
  return null;
}

/** The entry that an entry stands in; null for a root. */
function parentKey({ root, path }: CheckpointEntry): string | null {
  if (path === "") return null;
  const slash = path.lastIndexOf("/");
  return entryKey({ root, path: slash < 0 ? "" : path.slice(0, slash) });
}

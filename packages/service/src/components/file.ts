import { createHash } from "node:crypto";
import { readFile, rename, rmdir, stat } from "node:fs/promises";
import { dirname, join, sep } from "node:path";
import { systemErrorCode } from "@lockstep/platform";
import { compileSelection, globProblem, isInside, lstatOrNull, refused, resolvePath } from "./file-paths.ts";
import { copyContent, Destination, type IfExists, into, isSameFile, removeFile } from "./file-place.ts";
import { syncDirectories } from "./file-sync.ts";
import { kindOf, type WalkedEntry, walk } from "./file-walk.ts";
import { defineTask, permanentError } from "./task.ts";
import type { Component, ParameterValues, TaskContext, TaskResult } from "./types.ts";

/** Files and directories: each change atomic for each file, flushed, and repeatable. */
const BASE = {
  base: {
    type: "text",
    description:
      "A directory that no path may leave. Paths are relative to it then; without it they must be absolute.",
  },
  followLinks: {
    type: "boolean",
    default: false,
    description:
      "Follow symbolic links. Otherwise a link is copied, moved or deleted as a link, and a directory below `base` or a destination that is one is refused.",
  },
} as const;

const SELECT = {
  match: {
    type: "texts",
    check: globProblem,
    description: "Globs of the files in a directory, relative to it. Without it: every file.",
  },
  exclude: { type: "texts", default: [], check: globProblem, description: "Globs of files to leave out." },
} as const;

const MISSING = {
  type: "text",
  choices: ["error", "ignore"],
  description: "What it means that there is nothing to work on.",
} as const;

const TRANSFER = {
  from: { type: "text", required: true, description: "A file, or a directory whose files are meant." },
  to: {
    type: "text",
    required: true,
    description:
      "The new path. A file goes into a directory that is there or whose name ends with `/`; the files of a directory go below it.",
  },
  ...SELECT,
  ifExists: {
    type: "text",
    choices: ["replace", "keep", "fail"],
    default: "replace",
    description: "What happens to a file that is there already.",
  },
  missing: { ...MISSING, default: "error" },
  verify: {
    type: "boolean",
    default: false,
    description: "Read each copy again and compare its SHA-256 with what was read.",
  },
  sha256: {
    type: "text",
    check: (value: unknown) =>
      /^[0-9a-f]{64}$/.test(String(value)) ? null : "must be 64 lower-case hex digits",
    description: "The SHA-256 that a single source file must have.",
  },
  ...BASE,
} as const;
type Transfer = ParameterValues<typeof TRANSFER>;

export const component: Component = {
  name: "File",
  tasks: {
    Copy: defineTask({
      execution: "either",
      description: "Copies a file, or the files of a directory.",
      parameters: TRANSFER,
      run: (context) => transfer(context, "copied"),
    }),
    Move: defineTask({
      execution: "either",
      description: "Moves a file, or the files of a directory; directories that become empty go.",
      parameters: TRANSFER,
      run: (context) => transfer(context, "moved"),
    }),
    Delete: defineTask({
      execution: "either",
      description: "Deletes a file, files of a directory, or a directory with everything in it.",
      parameters: {
        path: { type: "text", required: true, description: "A file, or a directory whose files are meant." },
        ...SELECT,
        recursive: {
          type: "boolean",
          default: false,
          description: "Delete a directory itself. Without it and without `match` a directory is refused.",
        },
        olderThanSeconds: {
          type: "integer",
          minimum: 0,
          description: "Only files that were last changed longer ago than this. Not with `recursive`.",
        },
        missing: { ...MISSING, default: "ignore" },
        ...BASE,
      },
      run: deletes,
    }),
    Sync: defineTask({
      execution: "either",
      description: "Makes one directory equal to another, deletions included.",
      parameters: {
        from: { type: "text", required: true, description: "The directory that is the model." },
        to: { type: "text", required: true, description: "The directory that becomes equal to it." },
        exclude: {
          type: "texts",
          default: [],
          check: globProblem,
          description: "Globs of paths that are neither copied nor deleted.",
        },
        compare: {
          type: "text",
          choices: ["time", "content"],
          default: "time",
          description: "When two files count as equal: by size and time of change, or by content.",
        },
        delete: {
          type: "boolean",
          default: true,
          description: "Delete what the model does not have.",
        },
        allowEmpty: {
          type: "boolean",
          default: false,
          description: "Accept an empty model, which deletes everything.",
        },
        dryRun: { type: "boolean", default: false, description: "Only say what would change." },
        verify: TRANSFER.verify,
        ...BASE,
      },
      run: async (context) => {
        const { parameters } = context;
        const [from, to] = [
          await resolvePath("from", parameters.from, parameters),
          await resolvePath("to", parameters.to, parameters),
        ];
        if (isInside(from, to) || isInside(to, from))
          throw refused("to", to, `it and ${from} lie in each other`);
        return await syncDirectories(context, from, to);
      },
    }),
    Write: defineTask({
      execution: "either",
      description: "Writes a text or bytes into a file.",
      parameters: {
        path: { type: "text", required: true, description: "The file." },
        content: { type: "text", required: true, description: "What it holds afterwards." },
        encoding: {
          type: "text",
          choices: ["utf8", "base64"],
          default: "utf8",
          description: "How `content` is to be read.",
        },
        mode: {
          type: "text",
          default: "0644",
          check: (value: unknown) =>
            /^0?[0-7]{3}$/.test(String(value)) ? null : "must be three octal digits",
          description: "Its permissions in octal.",
        },
        ifExists: TRANSFER.ifExists,
        ...BASE,
      },
      run: writes,
    }),
  },
};

interface Pair {
  readonly source: string;
  readonly target: string;
  /** The directory from which down parents are made and looked at. */
  readonly root: string;
  readonly entry: Pick<WalkedEntry, "kind" | "stats">;
}

async function transfer(context: TaskContext<Transfer>, verb: "copied" | "moved"): Promise<TaskResult> {
  const { parameters, log, signal } = context;
  const from = await resolvePath("from", parameters.from, parameters);
  const to = await resolvePath("to", parameters.to.replace(/(?<=.)[/\\]+$/, ""), parameters);
  const destination = new Destination(parameters.followLinks);
  const counts = { files: 0, bytes: 0, kept: 0, skipped: 0 };
  const first = await (parameters.followLinks ? stat(from).catch(() => null) : lstatOrNull(from));
  if (first === null)
    return parameters.missing === "ignore"
      ? { kind: "success", message: `${from} is not there`, output: counts }
      : { kind: "error", message: `${from} is not there` };
  if (first.isDirectory() && parameters.sha256 !== undefined)
    return permanentError(`sha256 is for a single file; ${from} is a directory`);
  const emptied = new Set<string>();
  for await (const pair of pairs(context, from, to, first)) {
    if (pair.entry.kind !== "file" && pair.entry.kind !== "link") {
      counts.skipped += 1;
      log.warn(`${pair.source} is no file and was left out`);
      continue;
    }
    if (await isSameFile(pair.source, pair.entry.stats, pair.target))
      throw refused("to", pair.target, "it is the source itself");
    await destination.makeParents(pair.root, pair.target);
    const isRenamed = verb === "moved" && (await moved(pair, parameters, destination));
    if (!isRenamed && !(await copied(pair, parameters, destination, signal))) {
      counts.kept += 1;
      continue;
    }
    if (verb === "moved") {
      // What was copied is safe before its source goes.
      if (!isRenamed) await destination.flush();
      await removeFile(pair.source);
      destination.touch(dirname(pair.source));
      emptied.add(dirname(pair.source));
    }
    counts.files += 1;
    counts.bytes += pair.entry.kind === "file" ? pair.entry.stats.size : 0;
  }
  if (first.isDirectory()) await removeEmptied(emptied, from);
  await destination.flush();
  const rest = `${counts.kept === 0 ? "" : `, ${counts.kept} kept`}${counts.skipped === 0 ? "" : `, ${counts.skipped} skipped`}`;
  return { kind: "success", message: `${filesText(counts.files)} ${verb}${rest}`, output: counts };
}

const filesText = (count: number) => (count === 1 ? "1 file" : `${count} files`);

async function* pairs(
  { parameters, signal }: TaskContext<Transfer>,
  from: string,
  to: string,
  first: NonNullable<Awaited<ReturnType<typeof lstatOrNull>>>,
): AsyncGenerator<Pair, void> {
  if (!first.isDirectory()) {
    const there = await (parameters.followLinks ? stat(to).catch(() => null) : lstatOrNull(to));
    const target = /[/\\]$/.test(parameters.to) || there?.isDirectory() === true ? into(to, from) : to;
    yield { source: from, target, root: dirname(target) + sep, entry: { kind: kindOf(first), stats: first } };
    return;
  }
  if (isInside(from, to) || isInside(to, from)) throw refused("to", to, `it and ${from} lie in each other`);
  const isMeant = compileSelection(parameters.match ?? ["**"], parameters.exclude);
  const options = { followLinks: parameters.followLinks, signal };
  for await (const { path, absolute, ...entry } of walk(from, options))
    if (entry.kind !== "directory" && isMeant(path))
      yield { source: absolute, target: join(to, ...path.split("/")), root: to, entry };
}

/** Moves by renaming; false where that cannot be: another disk, something to keep, a content to check. */
async function moved(pair: Pair, parameters: Transfer, destination: Destination): Promise<boolean> {
  if (parameters.ifExists !== "replace" || parameters.sha256 !== undefined || parameters.verify) return false;
  // Under another name a followed link would stay a link.
  if (parameters.followLinks) return false;
  try {
    await rename(pair.source, pair.target);
    destination.touch(dirname(pair.target));
    return true;
  } catch (error) {
    if (systemErrorCode(error) === "EXDEV") return false;
    throw error;
  }
}

async function copied(
  pair: Pair,
  parameters: Transfer,
  destination: Destination,
  signal: AbortSignal,
): Promise<boolean> {
  if (pair.entry.kind === "link") {
    if (parameters.ifExists !== "replace" && (await lstatOrNull(pair.target)) !== null)
      return await destination.place(pair.target, parameters.ifExists, 0o600, async () => {});
    return await destination.placeLink(pair.target, parameters.ifExists, pair.source);
  }
  return await destination.place(
    pair.target,
    parameters.ifExists,
    pair.entry.stats.mode & 0o777,
    (handle, temporary) => copyContent(pair.source, handle, temporary, { ...parameters, signal }),
  );
}

/** Removes the directories that a move has emptied, and those above them, up to the source itself. */
async function removeEmptied(directories: ReadonlySet<string>, top: string): Promise<void> {
  for (const directory of [...directories].sort((a, b) => b.length - a.length))
    for (let at = directory; isInside(top, at); at = dirname(at)) if (!(await removeIfEmpty(at))) break;
}

async function removeIfEmpty(directory: string): Promise<boolean> {
  try {
    await rmdir(directory);
    return true;
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return true;
    if (["ENOTEMPTY", "EEXIST"].includes(systemErrorCode(error) ?? "")) return false;
    throw error;
  }
}

type DeleteParameters = ParameterValues<typeof BASE & typeof SELECT> & {
  readonly path: string;
  readonly recursive: boolean;
  readonly olderThanSeconds: number | undefined;
  readonly missing: "error" | "ignore";
};

async function deletes({ parameters, signal }: TaskContext<DeleteParameters>): Promise<TaskResult> {
  const path = await resolvePath("path", parameters.path, parameters);
  if (parameters.base !== undefined && isInside(path, parameters.base))
    throw refused("path", path, "it is the base directory itself or holds it");
  const counts = { files: 0, directories: 0, bytes: 0 };
  const done = (): TaskResult => ({
    kind: "success",
    message: `${filesText(counts.files)} and ${counts.directories === 1 ? "1 directory" : `${counts.directories} directories`} deleted`,
    output: counts,
  });
  const found = await lstatOrNull(path);
  if (found === null)
    return parameters.missing === "ignore"
      ? { ...done(), message: `${path} is not there` }
      : { kind: "error", message: `${path} is not there` };
  const { olderThanSeconds: age, recursive, match } = parameters;
  if (recursive && (match !== undefined || age !== undefined || parameters.exclude.length > 0))
    return permanentError(
      "recursive deletes everything; it goes with neither match, exclude nor olderThanSeconds",
    );
  const before = age === undefined ? Number.POSITIVE_INFINITY : Date.now() - age * 1000;
  const remove = async (file: string, stats: typeof found) => {
    if (stats.mtimeMs > before || !(await removeFile(file))) return;
    counts.files += 1;
    counts.bytes += stats.isFile() ? stats.size : 0;
  };
  const isDirectory =
    found.isDirectory() || (parameters.followLinks && (await stat(path).catch(() => null))?.isDirectory());
  if (isDirectory !== true) {
    await remove(path, found);
    return done();
  }
  if (!recursive && match === undefined && age === undefined)
    return permanentError(
      `${path} is a directory; match says which of its files, recursive: true deletes it whole`,
    );
  const isMeant = compileSelection(match ?? ["**"], parameters.exclude);
  const directories: string[] = [];
  // Links are never followed down: what they point at is not below this directory.
  for await (const entry of walk(path, { followLinks: false, signal })) {
    if (entry.kind === "directory") directories.push(entry.absolute);
    else if (isMeant(entry.path)) await remove(entry.absolute, entry.stats);
  }
  if (recursive)
    for (const directory of [...directories.reverse(), path])
      if (await removeIfEmpty(directory)) counts.directories += 1;
  return done();
}

async function writes({
  parameters,
}: TaskContext<
  ParameterValues<typeof BASE> & {
    readonly path: string;
    readonly content: string;
    readonly encoding: "utf8" | "base64";
    readonly mode: string;
    readonly ifExists: IfExists;
  }
>): Promise<TaskResult> {
  const path = await resolvePath("path", parameters.path, parameters);
  const bytes = Buffer.from(parameters.content, parameters.encoding);
  if (
    parameters.encoding === "base64" &&
    bytes.toString("base64").replace(/=+$/, "") !== parameters.content.replace(/=+$/, "")
  )
    return permanentError("content is not base64");
  const output = { bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") };
  const mode = Number.parseInt(parameters.mode, 8);
  const found = await lstatOrNull(path);
  if (found?.isSymbolicLink() === true && parameters.followLinks)
    return permanentError(
      `${path} is a symbolic link, and a file that is written takes its place; name its target`,
    );
  if (
    found?.isFile() === true &&
    found.size === bytes.length &&
    (found.mode & 0o777) === mode &&
    (await readFile(path)).equals(bytes)
  )
    return { kind: "success", message: "it holds that already", output: { ...output, changed: false } };
  const destination = new Destination(parameters.followLinks);
  await destination.makeParents(dirname(path) + sep, path);
  const changed = await destination.place(path, parameters.ifExists, mode, (handle) =>
    handle.writeFile(bytes),
  );
  await destination.flush();
  return {
    kind: "success",
    message: changed ? `${bytes.length} bytes written` : "a file is there already and was kept",
    output: { ...output, changed },
  };
}

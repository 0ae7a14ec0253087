import { counted, parentOf, parentsOf, type Standing, type Survey } from "@lockstep/core";
import type { FileStat } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { attempt } from "./failure.ts";
import type { ApplyContext, Operation } from "./types.ts";

/** Looks at everything that the operations touch, each path once. Throws INSTALLATION_*. */
export function surveyInstallation(ctx: ApplyContext, operations: readonly Operation[]): Survey {
  const at = new Map<string, Standing>();
  const looked = new Set<string>();
  const inside = new Map<string, readonly string[]>();

  const look = (path: string): Standing | undefined => {
    if (!looked.has(path)) {
      looked.add(path);
      const absolute = `${ctx.root}/${path}`;
      const stat = attempt("look at", absolute, () => ctx.disk.lstat(absolute));
      if (stat !== null) at.set(path, toStanding(stat));
    }
    return at.get(path);
  };
  const list = (directory: string, found: string[]): string[] => {
    const absolute = `${ctx.root}/${directory}`;
    for (const name of attempt("list", absolute, () => ctx.disk.readDirectory(absolute))) {
      const path = `${directory}/${name}`;
      found.push(path);
      if (look(path)?.kind === "directory") list(path, found);
    }
    return found;
  };

  for (const { path, kind } of operations) {
    const reachable = parentsOf(path).every((parent) => look(parent)?.kind === "directory");
    if (reachable && look(path)?.kind === "directory" && kind === "put") inside.set(path, list(path, []));
  }
  return { at, inside };
}

function toStanding(stat: FileStat): Standing {
  return { kind: stat.kind, mode: stat.mode, identity: `${stat.dev}:${stat.ino}` };
}

/**
 * Asks beforehand what the switch would otherwise meet half-way: directories that may not be changed, files that are
 * held open. Throws INSTALLATION_NOT_WRITABLE or INSTALLATION_FILE_IN_USE, naming them.
 */
export function demandChangeable(ctx: ApplyContext, paths: readonly string[], survey: Survey): void {
  const directories = new Set<string>();
  for (const path of paths) {
    let directory = parentOf(path);
    while (directory !== "" && survey.at.get(directory)?.kind !== "directory")
      directory = parentOf(directory);
    directories.add(directory);
  }
  for (const directory of directories) {
    const absolute = directory === "" ? ctx.root : `${ctx.root}/${directory}`;
    attempt("change files in", absolute, () => ctx.disk.demandWritable(absolute));
  }
  const held = paths.filter(
    (path) => survey.at.get(path)?.kind === "file" && ctx.disk.isInUse(`${ctx.root}/${path}`),
  );
  if (held.length > 0)
    throw new LockstepError(
      "INSTALLATION_FILE_IN_USE",
      `${counted(held.length, "file is", "files are")} in use`,
      {
        faults: held.map((path) => ({ where: path, problem: "a program holds it open" })),
        hint: "Close the programs that use them, then try again. Nothing was changed.",
      },
    );
}

/** Throws INSTALLATION_DISK_FULL when fewer than `bytes` can be written in the installation. */
export function demandSpace(ctx: ApplyContext, bytes: number): void {
  const free = attempt("ask for free space in", ctx.root, () => ctx.disk.freeBytes(ctx.root));
  if (free < bytes)
    throw new LockstepError("INSTALLATION_DISK_FULL", `the file system of ${ctx.root} is too full`, {
      expected: `${bytes} bytes`,
      found: `${free} bytes`,
      hint: "Free space on this file system, then try again. Nothing was changed.",
    });
}

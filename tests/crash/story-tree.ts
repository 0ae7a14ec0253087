import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import { parentsOf } from "@lockstep/core";
import { type CrashFile, type CrashStory, NEW_STARTED_AT, OLD_STARTED_AT } from "./scenarios.ts";

/** What stands in an installation, and what should, as a naive mind lists it: path to kind, mode and content. */
export type RealTree = ReadonlyMap<string, string>;

/** A file that is nobody's business but its owner's. */
const FOREIGN: CrashFile = { path: "own/notes.txt", content: "mine", mode: 0o640 };

export function readTree(root: string): Map<string, string> {
  const tree = new Map<string, string>();
  const walk = (directory: string) => {
    for (const name of fs.readdirSync(`${root}/${directory}`).sort()) {
      const path = directory === "" ? name : `${directory}/${name}`;
      if (path === ".lockstep") continue;
      const stat = fs.lstatSync(`${root}/${path}`);
      const mode = (stat.mode & 0o777).toString(8);
      if (stat.isDirectory()) {
        tree.set(path, `directory ${mode}`);
        walk(path);
      } else tree.set(path, `file ${mode} ${fs.readFileSync(`${root}/${path}`, "latin1")}`);
    }
  };
  walk("");
  return tree;
}

function listTree(files: readonly CrashFile[], state: string, revision: number, startedAt: number): RealTree {
  const tree = new Map<string, string>();
  const own: CrashFile[] = [
    { path: "InstallState.config", content: state, mode: 0o644 },
    {
      path: ".softwarerevision.viv",
      content: `${revision}\n${new Date(startedAt).toISOString()}\n`,
      mode: 0o444,
    },
  ];
  for (const { path, content, mode } of [...files, FOREIGN, ...own]) {
    for (const parent of parentsOf(path)) tree.set(parent, "directory 755");
    tree.set(path, `file ${mode.toString(8)} ${content}`);
  }
  return tree;
}

/** The trees before and after a story's update. */
export function expectedTrees(story: CrashStory): { old: RealTree; next: RealTree } {
  const { put, remove, state, to } = story.scenario;
  const gone = new Set([...remove, ...put.map(({ path }) => path)]);
  const files = [...story.before.filter(({ path }) => !gone.has(path)), ...put];
  const nothing: RealTree = new Map([
    ["own", "directory 755"],
    [FOREIGN.path, `file ${FOREIGN.mode.toString(8)} ${FOREIGN.content}`],
  ]);
  return {
    old: story.before.length === 0 ? nothing : listTree(story.before, "state 1", 1, OLD_STARTED_AT),
    next: listTree(files, state, to, NEW_STARTED_AT),
  };
}

/** The tree after a rollback: the old one, with the time at which the rollback began. */
export function rolledBackTree(story: CrashStory): RealTree {
  return listTree(story.before, "state 1", 1, NEW_STARTED_AT);
}

/** Lays a story's former version down by hand. */
export function layDown(root: string, story: CrashStory): void {
  fs.mkdirSync(root, { mode: 0o755 });
  for (const [path, what] of expectedTrees(story).old) {
    const [kind = "", mode = ""] = what.split(" ");
    if (kind === "directory")
      fs.mkdirSync(`${root}/${path}`, { mode: Number.parseInt(mode, 8), recursive: true });
  }
  for (const [path, what] of expectedTrees(story).old) {
    const match = /^file (\d+) ([\s\S]*)$/.exec(what);
    if (match === null) continue;
    fs.writeFileSync(`${root}/${path}`, match[2] ?? "");
    fs.chmodSync(`${root}/${path}`, Number.parseInt(match[1] ?? "", 8));
  }
}

/** An exact copy, second names of files included. */
export function copyTree(from: string, to: string): void {
  execFileSync("cp", ["-a", from, to]);
}

export function sameTree(a: RealTree, b: RealTree): boolean {
  return a.size === b.size && [...a].every(([path, what]) => b.get(path) === what);
}

export function describeMix(found: RealTree, before: RealTree, after: RealTree): string {
  return [...new Set([...before.keys(), ...after.keys(), ...found.keys()])]
    .sort()
    .filter((path) => !(before.get(path) === after.get(path) && after.get(path) === found.get(path)))
    .map(
      (path) =>
        `${path}: before ${before.get(path) ?? "-"} | after ${after.get(path) ?? "-"} | found ${found.get(path) ?? "-"}`,
    )
    .join("\n");
}

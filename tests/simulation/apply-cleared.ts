import assert from "node:assert/strict";
import type { Disk } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol";
import type { Prng, SimDisk } from "@lockstep/testing";
import { passOn } from "./apply-mutants.ts";
import { type Act, recoverAll, whichTree } from "./apply-run.ts";
import { ROOT } from "./apply-scenario.ts";

/**
 * Somebody clears the private directory while an update is under way: a cleaner, a plug-in that means well, a person. What
 * was kept there is gone for good then, and no updater can be whole again by itself. What is asked of it: that it claims
 * nothing which is not so.
 */
const PRIVATE = `${ROOT}/.lockstep`;
const CLEARED = [
  "all",
  "stagings",
  "old",
  "new",
  "one of old",
  "one of new",
  "state.former",
  "heads",
] as const;
export type Cleared = (typeof CLEARED)[number];

/** Every method through which an updater reaches its disk. */
const METHODS = [
  "lstat",
  "makeDirectory",
  "removeDirectory",
  "writeFile",
  "copyFile",
  "link",
  "rename",
  "unlink",
  "changeMode",
  "syncFiles",
  "syncDirectories",
] as const;

/** Lets something happen right before the n-th call. */
function before(disk: SimDisk, call: number, act: () => void): Disk {
  let calls = 0;
  const count = (name: (typeof METHODS)[number]) =>
    [
      name,
      (...parameters: unknown[]) => {
        if (++calls === call) act();
        return (disk[name] as (...each: unknown[]) => unknown).apply(disk, parameters);
      },
    ] as const;
  return passOn(disk, Object.fromEntries(METHODS.map(count)) as Partial<Disk>);
}

function remove(disk: SimDisk, path: string): void {
  const kind = disk.lstat(path)?.kind;
  if (kind === undefined) return;
  if (kind !== "directory") {
    disk.unlink(path);
    return;
  }
  for (const name of disk.readDirectory(path)) remove(disk, `${path}/${name}`);
  disk.removeDirectory(path);
}

function clear(disk: SimDisk, what: Cleared, prng: Prng): void {
  const list = (path: string) =>
    disk.lstat(path)?.kind === "directory" ? disk.readDirectory(path).map((name) => `${path}/${name}`) : [];
  const stagings = list(`${PRIVATE}/staging`);
  const inside = (name: string) => stagings.flatMap((staging) => list(`${staging}/${name}`));
  const chosen: Record<Cleared, () => readonly (string | undefined)[]> = {
    all: () => [...list(`${PRIVATE}/staging`), `${PRIVATE}/previous`, `${PRIVATE}/index`],
    stagings: () => stagings,
    old: () => inside("old"),
    new: () => inside("new"),
    "one of old": () => [prng.pick(inside("old"))],
    "one of new": () => [prng.pick(inside("new"))],
    "state.former": () => stagings.map((staging) => `${staging}/state.former`),
    heads: () =>
      stagings.flatMap((staging) =>
        ["forward", "back", "finish"].map((word) => `${staging}/head.${word}.json`),
      ),
  };
  for (const path of chosen[what]()) if (path !== undefined) remove(disk, path);
}

export type ClearedOutcome = "applied" | "rolled-back" | "refused" | "said to be lost";

/** One act, with something cleared away before one of its calls; then the next updater. Throws where either lies. */
export async function tryCleared(act: Act, call: number, what: Cleared, prng: Prng): Promise<ClearedOutcome> {
  const disk = act.base.clone();
  disk.plan();
  const outcome = await claim(act, disk, () =>
    act.run(before(disk, call, () => clear(disk, what, prng))).then(({ kind }) => kind),
  );
  if (outcome === "said to be lost")
    await claim(act, disk, async () => (await recoverAll(disk, act.laterVerdict)).kind);
  return outcome;
}

async function claim(act: Act, disk: SimDisk, run: () => Promise<string>): Promise<ClearedOutcome> {
  let kind: string;
  try {
    kind = await run();
  } catch (error) {
    assert.ok(
      isLockstepError(error),
      `not an error of ours: ${error instanceof Error ? error.stack : error}`,
    );
    assert.match(error.code, /^(INSTALLATION_|ROLLBACK_UNAVAILABLE)/);
    if (disk.lstat(`${PRIVATE}/commit.json`) !== null) return "said to be lost";
    assert.equal(whichTree(disk, act), "before", `${error.code}, no record in force, and yet`);
    return "refused";
  }
  if (kind === "rolled-back") assert.equal(whichTree(disk, act), "before", "said to be taken back");
  else assert.equal(whichTree(disk, act), "after", `said to be ${kind}`);
  return kind === "rolled-back" ? "rolled-back" : "applied";
}

/** What may be cleared away. */
export function drawCleared(prng: Prng): Cleared {
  return prng.pick(CLEARED) ?? "all";
}

import assert from "node:assert/strict";
import { parentsOf } from "@lockstep/core";
import type { Disk } from "@lockstep/platform";
import { isLockstepError, type LockstepError } from "@lockstep/protocol";
import { Prng, type SimDisk, type SimTree } from "@lockstep/testing";
import { type ClearedOutcome, drawCleared, tryCleared } from "./apply-cleared.ts";
import { passOn, watchSyncs } from "./apply-mutants.ts";
import {
  type Act,
  assertNoLeftovers,
  assertTree,
  NO_WRAP,
  recoverAll,
  type Wrap,
  whichTree,
} from "./apply-run.ts";
import { productTree, ROOT } from "./apply-scenario.ts";
import { actsOf, countCalls, scenarioOf } from "./apply-sweep.ts";

/** Lets single calls, or all calls from one on, fail: a named error, an installation that is whole, nothing left over. */
export const FAILURE_CODES = ["ENOSPC", "EIO", "EACCES", "EROFS", "EMFILE", "EXDEV", "EBUSY"] as const;

export type FailureOutcome = ClearedOutcome | "to be recovered";

/** The act with its call `call` failing. `lasting`: everything after it fails as well, until the machine was repaired. */
export async function tryFailure(
  act: Act,
  call: number,
  code: string,
  lasting: boolean,
): Promise<FailureOutcome> {
  const disk = act.base.clone();
  disk.plan({ call, code, lasting });
  const outcome = await runAct(act, disk);
  disk.plan();
  const { found, inForce } = await settle(act, disk);
  // A change whose record did not come into force has not happened.
  if (outcome === "refused" && !inForce) assert.equal(found, "before", "a refused update is there");
  if (outcome === "applied") assert.equal(found, "after");
  if (outcome === "rolled-back") assert.equal(found, "before");
  return inForce ? "to be recovered" : outcome;
}

/** A directory that could not be removed when it was empty is a blemish, not a mix. */
function withoutEmptyDirectories(tree: SimTree): SimTree {
  const kept = new Set<string>();
  for (const [path, what] of tree)
    if (!what.startsWith("directory")) for (const each of [...parentsOf(path), path]) kept.add(each);
  return new Map([...tree].filter(([path]) => kept.has(path)));
}

async function runAct(
  act: Act,
  disk: SimDisk,
): Promise<Exclude<FailureOutcome, "to be recovered" | "said to be lost">> {
  try {
    return (await act.run(disk)).kind;
  } catch (error) {
    assertNamed(error);
    return "refused";
  }
}

function assertNamed(error: unknown): asserts error is LockstepError {
  assert.ok(isLockstepError(error), `not an error of ours: ${error instanceof Error ? error.stack : error}`);
  assert.match(error.code, /^(INSTALLATION_|ROLLBACK_UNAVAILABLE)/);
  assert.ok(error.hint !== undefined && error.hint.length > 0, `${error.code} gives no next step`);
}

/** What is found, and whether a record was in force; then the next updater puts it right and goes on. */
async function settle(act: Act, disk: SimDisk): Promise<{ found: "before" | "after"; inForce: boolean }> {
  const inForce = disk.lstat(`${ROOT}/.lockstep/commit.json`) !== null;
  if (!inForce) whichTree(disk, act, withoutEmptyDirectories);
  await recoverAll(disk, act.laterVerdict);
  const found = whichTree(disk, act, withoutEmptyDirectories);
  assertNoLeftovers(disk);
  assertTree(disk, await act.goOn(disk, productTree(disk)), "after a further update");
  return { found, inForce };
}

/** The act on a disk that has `spareBytes` left. Either it holds, or the disk is as full as before and nothing changed. */
export async function tryFullDisk(act: Act, spareBytes: number): Promise<FailureOutcome> {
  const used = act.base.usedBytes;
  const disk = act.base.clone(used + spareBytes);
  disk.plan();
  let outcome: FailureOutcome;
  try {
    outcome = (await act.run(disk)).kind;
  } catch (error) {
    assertNamed(error);
    assert.equal(error.code, "INSTALLATION_DISK_FULL");
    outcome = "refused";
  }
  assert.equal(disk.lstat(`${ROOT}/.lockstep/commit.json`), null, "a full disk kept a record in force");
  const found = whichTree(disk, act);
  assert.equal(found, outcome === "applied" ? "after" : "before");
  if (outcome === "refused") {
    const staging =
      disk.lstat(`${ROOT}/.lockstep/staging`) === null ? [] : disk.readDirectory(`${ROOT}/.lockstep/staging`);
    assert.deepEqual(staging, [], "the space was not given back");
  }
  return outcome;
}

/** An updater that asks again when a sync fails, and believes the second answer. */
export function trustSecondSync(disk: Disk): Disk {
  return passOn(disk, {
    syncFiles: async (paths) => {
      for (const path of paths) await disk.syncFiles([path]).catch(() => disk.syncFiles([path]));
    },
  });
}

/** Fails one sync of one file of the act, then cuts the power at its end. Throws when the act went on all the same. */
export async function tryFailedSync(act: Act, prng: Prng, wrap: Wrap = NO_WRAP): Promise<void> {
  const counted = act.base.clone();
  const calls: number[] = [];
  counted.plan();
  await act.run(
    watchSyncs(counted, ({ role }) => {
      if (/staging\/(new|old)\/<n>|staging\/state/.test(role)) calls.push(counted.calls);
      return true;
    }),
  );
  const failing = prng.pick(calls);
  if (failing === undefined) return;
  const disk = act.base.clone();
  // The paths of one sync were counted when it began: the failing one is somewhere behind.
  disk.plan({ call: failing + 1 + prng.below(calls.length), code: "EIO" });
  try {
    await act.run(wrap(disk));
  } catch (error) {
    assertNamed(error);
  }
  disk.cutPower(prng);
  await recoverAll(disk, act.laterVerdict);
  whichTree(disk, act);
  if (act.undo !== null && whichTree(disk, act) === "after") await act.undo(disk);
}

export interface FailureReport {
  states: number;
  readonly outcomes: Map<string, number>;
  readonly failures: { readonly where: string; readonly error: unknown }[];
}

const SPARE_STEP_BYTES = 700;
const SPARE_BYTES = 24_000;

/**
 * Fails every call of scenario after scenario, once and from there on, fills the disk to every degree, and clears private
 * files away before every call.
 */
export async function sweepFailures(seed: number, scenarios: number): Promise<FailureReport> {
  const report: FailureReport = { states: 0, outcomes: new Map(), failures: [] };
  const attempt = async (where: string, run: () => Promise<FailureOutcome>) => {
    report.states++;
    try {
      const outcome = await run();
      report.outcomes.set(outcome, (report.outcomes.get(outcome) ?? 0) + 1);
    } catch (error) {
      report.failures.push({ where, error });
    }
  };
  const prng = new Prng(seed);
  for (let at = 0; at < scenarios; at++)
    for (const act of (await actsOf(scenarioOf(seed + at))).acts) {
      const calls = await countCalls(act);
      for (let call = 1; call <= calls; call++)
        for (const lasting of [false, true]) {
          const code = prng.pick(FAILURE_CODES);
          const where = `seed ${seed + at}, ${act.name}, call ${call}, ${code}${lasting ? " from there on" : ""}`;
          await attempt(where, () => tryFailure(act, call, code, lasting));
        }
      for (let call = 1; call <= calls; call++) {
        const what = drawCleared(prng);
        await attempt(`seed ${seed + at}, ${act.name}, ${what} cleared before call ${call}`, () =>
          tryCleared(act, call, what, prng),
        );
      }
      for (let spare = 0; spare < SPARE_BYTES; spare += SPARE_STEP_BYTES)
        await attempt(`seed ${seed + at}, ${act.name}, ${spare} bytes free`, () => tryFullDisk(act, spare));
      await attempt(`seed ${seed + at}, ${act.name}, room enough`, () => tryFullDisk(act, 2 ** 21));
    }
  return report;
}

import assert from "node:assert/strict";
import type { Disk } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol";
import { Prng, SimCrash, type SimDisk, type SimTree } from "@lockstep/testing";
import {
  type ApplyContext,
  beginStaging,
  type CommitResult,
  commit,
  discardStaging,
  installationError,
  type Operation,
  type RecoverResult,
  recover,
  rollbackPrevious,
} from "../../packages/updater/src/apply/index.ts";
import {
  expectTree,
  operationsBetween,
  productTree,
  REVISION,
  ROOT,
  type Scenario,
  type ScenarioOperation,
  STATE,
  stateText,
  type WantedFiles,
} from "./apply-scenario.ts";

/**
 * Lets a simulated updater die, or its machine lose power, at every call, lets recoveries die as well, and holds what is
 * found after the first one that lives against the two trees that are allowed.
 */

/** Puts something between the updater and its disk: the mutants of apply-mutants.ts. */
export type Wrap = (disk: SimDisk) => Disk;

export const NO_WRAP: Wrap = (disk) => disk;

const NEXT_REVISION = 2;
const LAST_REVISION = 3;
const NESTED_DEPTH_MAX = 3;

export type Verdict = Scenario["verdict"];

/** The stat cache of a revision; its end shows whether it is whole. */
const indexText = (revision: number, files: number) => `index ${revision}: ${files} files.`;
const WHOLE_INDEX = /^file 600 index \d+: \d+ files\.$/;

function contextOf(disk: Disk): ApplyContext {
  return {
    disk,
    root: ROOT,
    clock: { now: () => 0, monotonic: () => 0 },
    log: { info: () => {}, warn: () => {} },
  };
}

function verdictHook(verdict: Verdict): () => boolean {
  return () => {
    if (verdict === "throws") throw new Error("the plug-in failed");
    return verdict === "holds";
  };
}

/** Stages and commits, as the updater does: what `wanted` says of each path is written to the staging first. */
export async function update(
  disk: Disk,
  operations: readonly ScenarioOperation[],
  wanted: WantedFiles,
  from: number | null,
  to: number,
  startedAt: number,
  verdict: Verdict,
): Promise<CommitResult> {
  const ctx = contextOf(disk);
  try {
    if (disk.lstat(ROOT) === null) disk.makeDirectory(ROOT, 0o755);
  } catch (error) {
    throw installationError(error, "make", ROOT);
  }
  await recover(ctx, { afterSwitch: verdictHook(verdict) });
  const staging = await beginStaging(ctx);
  const numbered: Operation[] = [];
  for (const [n, operation] of operations.entries()) {
    if (operation.kind === "remove") {
      numbered.push({ n, ...operation });
      continue;
    }
    const file = wanted.get(operation.path);
    if (file === undefined) throw new Error(`${operation.path} is not wanted`);
    try {
      disk.writeFile(staging.pathFor(n), new TextEncoder().encode(file.content), 0o600);
    } catch (error) {
      await discardStaging(ctx);
      throw installationError(error, "stage", operation.path);
    }
    numbered.push({ n, kind: "put", path: operation.path, mode: file.mode });
  }
  return commit(ctx, {
    staging,
    operations: numbered,
    state: new TextEncoder().encode(stateText(to, wanted)),
    index: (stats) => new TextEncoder().encode(indexText(to, stats.size)),
    from,
    to,
    startedAt,
    hooks: { afterSwitch: verdictHook(verdict) },
  });
}

/** One act whose crashes are tried out: an update, or the rollback of one. */
export interface Act {
  readonly name: string;
  readonly base: SimDisk;
  readonly before: SimTree;
  readonly after: SimTree;
  readonly verdict: Verdict;
  /** What a recovery is told: a program that came up once need not do so again. */
  readonly laterVerdict: Verdict;
  run(disk: Disk): Promise<CommitResult>;
  /** Throws unless a rollback from the tree after brings back what was before. Null where there is nothing to go back to. */
  readonly undo: ((disk: SimDisk) => Promise<void>) | null;
  /** A further update that must succeed wherever the act ended, and its tree. */
  goOn(disk: SimDisk, from: SimTree): Promise<SimTree>;
}

export interface ActOutcome {
  readonly act: Act | null;
  /** The error code of an update that was refused with nothing touched. */
  readonly refused: string | null;
  /** Calls of the whole act without a crash. */
  readonly calls: number;
}

/** The update of a scenario, carried out once without a crash to see that it does what the naive mind expects. */
export async function prepareUpdate(scenario: Scenario): Promise<ActOutcome> {
  const { disk, old, next, verdict, oldRevision, startedAt } = scenario;
  const operations = operationsBetween(old, next);
  const before = productTree(disk);
  const after = expectTree(
    before,
    operations,
    next,
    { number: NEXT_REVISION, startedAt, state: stateText(NEXT_REVISION, next) },
    disk.options.ignoresCase,
  );
  const run = (each: Disk) => update(each, operations, next, oldRevision, NEXT_REVISION, startedAt, verdict);
  const act: Act = {
    name: "update",
    base: disk,
    before,
    after,
    verdict,
    laterVerdict: scenario.laterVerdict,
    run,
    undo: oldRevision === null ? null : undo(scenario, before),
    goOn: goOn(scenario),
  };
  const trial = disk.clone();
  try {
    const result = await run(trial);
    assert.equal(result.kind, verdict === "holds" ? "applied" : "rolled-back");
    assertTree(trial, verdict === "holds" ? after : before, "without a crash");
    return { act, refused: null, calls: trial.calls };
  } catch (error) {
    if (!isLockstepError(error)) throw error;
    assertTree(trial, before, `refused with ${error.code}`);
    return { act: null, refused: error.code, calls: trial.calls };
  }
}

/** The rollback of a scenario's update. Null where the update does not hold, or nothing was before. */
export async function prepareRollback(scenario: Scenario, updated: Act): Promise<Act | null> {
  if (updated.verdict !== "holds" || scenario.oldRevision === null) return null;
  const disk = updated.base.clone();
  await updated.run(disk);
  disk.settle();
  disk.plan();
  const rolledBackAt = scenario.startedAt + 1000;
  const run = (each: Disk) => {
    const ctx = contextOf(each);
    return recover(ctx).then(() =>
      rollbackPrevious(ctx, { startedAt: rolledBackAt, hooks: { afterSwitch: verdictHook("holds") } }),
    );
  };
  const trial = disk.clone();
  assert.equal((await run(trial)).kind, "applied");
  const before = productTree(disk);
  const after = productTree(trial);
  assertRestored(scenario, updated.before, after);
  return {
    name: "rollback",
    base: disk,
    before,
    after,
    verdict: "holds",
    laterVerdict: scenario.laterVerdict,
    run,
    undo: undo(scenario, before),
    goOn: goOn(scenario),
  };
}

/**
 * A repair after a scenario's update: some of its files were damaged and are put again, within one software revision. A
 * rollback after it must lead to what was before the *update*. Null where the update does not hold, nothing was before,
 * or nothing can be damaged.
 */
export async function prepareRepair(scenario: Scenario, updated: Act, prng: Prng): Promise<Act | null> {
  const { oldRevision, next, startedAt } = scenario;
  if (updated.verdict !== "holds" || oldRevision === null) return null;
  const disk = updated.base.clone();
  await updated.run(disk);
  const damaged = operationsBetween(scenario.old, next).filter(
    ({ kind }) => kind === "put" && prng.chance(0.7),
  );
  if (damaged.length === 0) return null;
  for (const { path } of damaged) {
    disk.unlink(`${ROOT}/${path}`);
    if (prng.chance(0.5)) disk.writeFile(`${ROOT}/${path}`, new TextEncoder().encode("damaged"), 0o644);
  }
  disk.settle();
  disk.plan();
  const run = (each: Disk) =>
    update(each, damaged, next, NEXT_REVISION, NEXT_REVISION, startedAt + 1000, "holds");
  const trial = disk.clone();
  assert.equal((await run(trial)).kind, "applied");
  const after = productTree(trial);
  const withoutTime = (tree: SimTree) => sorted(tree).filter(([path]) => path !== REVISION);
  assert.deepEqual(withoutTime(after), withoutTime(updated.after), "the repair mended something else");
  return {
    name: "repair",
    base: disk,
    before: productTree(disk),
    after,
    verdict: "holds",
    laterVerdict: scenario.laterVerdict,
    run,
    undo: undo(scenario, updated.before),
    goOn: goOn(scenario),
  };
}

/**
 * The update of a scenario in which one file may be neither replaced nor removed. Where that can be asked beforehand, it
 * is refused with nothing touched; where it cannot, it is taken back, and a crash on the way is survived like any other.
 * Null where no file of it could be marked so.
 */
export async function prepareLocked(scenario: Scenario, updated: Act, prng: Prng): Promise<Act | null> {
  const disk = updated.base.clone();
  const files = [...operationsBetween(scenario.old, scenario.next).map(({ path }) => path), STATE].filter(
    (path) => disk.lstat(`${ROOT}/${path}`)?.kind === "file",
  );
  const locked = prng.pick(files);
  if (locked === undefined) return null;
  disk.plan();
  const foreseen = disk.clone();
  foreseen.lockFile(`${ROOT}/${locked}`, true);
  await assert.rejects(updated.run(foreseen), (error) => isLockstepError(error, "INSTALLATION_NOT_WRITABLE"));
  assertTree(foreseen, updated.before, `with an immutable ${locked}`);
  assertNoLeftovers(foreseen);
  disk.lockFile(`${ROOT}/${locked}`, false);
  const trial = disk.clone();
  assert.equal((await updated.run(trial)).kind, "rolled-back");
  assertTree(trial, updated.before, `after the way back from ${locked}`);
  return {
    ...updated,
    name: "locked",
    base: disk,
    verdict: "refused",
    laterVerdict: "refused",
    undo: null,
    goOn: (each, from) => {
      each.unlockFiles();
      return updated.goOn(each, from);
    },
  };
}

/** A rollback that must bring back every file of a tree. */
function undo(scenario: Scenario, former: SimTree): (disk: SimDisk) => Promise<void> {
  return async (disk) => {
    const result = await rollbackPrevious(contextOf(disk), { startedAt: scenario.startedAt + 9000 });
    assert.equal(result.kind, "applied");
    assertRestored(scenario, former, productTree(disk));
  };
}

/** What a rollback restores: every file as it was; directories that had been empty may be gone, and the time is new. */
function assertRestored(scenario: Scenario, former: SimTree, restored: SimTree): void {
  const filesOf = (tree: SimTree) =>
    [...tree].filter(([path, what]) => !what.startsWith("directory") && path !== REVISION).sort();
  const numberOf = (tree: SimTree) => tree.get(REVISION)?.split("\n")[0];
  assert.deepEqual(
    filesOf(restored),
    filesOf(former),
    `seed ${scenario.seed}: the rollback restored something else`,
  );
  assert.equal(numberOf(restored), numberOf(former));
}

/** A last update, to a small set of its own, from wherever the tree is. */
function goOn(scenario: Scenario): Act["goOn"] {
  return async (disk, from) => {
    const wanted: WantedFiles = new Map([["zz/last", { content: "last", mode: 0o644 }]]);
    const operations = operationsBetween(new Map(), wanted);
    const startedAt = scenario.startedAt + 5000;
    const result = await update(disk, operations, wanted, null, LAST_REVISION, startedAt, "holds");
    assert.equal(result.kind, "applied");
    const revision = { number: LAST_REVISION, startedAt, state: stateText(LAST_REVISION, wanted) };
    return expectTree(from, operations, wanted, revision, scenario.disk.options.ignoresCase);
  };
}

/** Where one state came from: enough to come back to it. */
export interface CrashPoint {
  readonly seed: number;
  readonly act: string;
  readonly call: number;
  readonly draw: number;
}

/**
 * One state: the act dies before its call `call`, the machine loses power or not, recoveries die up to three times, then
 * one lives. Throws an AssertionError when what is found then is neither the tree before nor the tree after, when
 * something is stuck or left over, when what was acknowledged is gone, or when it cannot be undone any more.
 */
export async function tryCrash(act: Act, point: CrashPoint, wrap: Wrap): Promise<void> {
  const prng = new Prng(point.draw);
  const disk = act.base.clone();
  disk.plan({ call: point.call, dies: true });
  const result = await survive(() => act.run(wrap(disk)), disk);
  let acknowledged = result === null ? null : result.kind === "applied" ? "after" : "before";
  stop(disk, prng);
  const mustHold = act.verdict === "holds" && act.laterVerdict === "holds";
  const note = (recovered: RecoverResult | null) => {
    if (mustHold)
      assert.notEqual(recovered?.kind, "rolled-back", "an update that nobody refused was taken back");
    if (recovered !== null && recovered.kind !== "nothing")
      acknowledged = recovered.kind === "finished" ? "after" : "before";
  };
  for (let depth = 1; depth < NESTED_DEPTH_MAX && prng.chance(0.5); depth++) {
    disk.plan({ call: 1 + prng.below(prng.chance(0.5) ? 12 : 80), dies: true });
    note(await survive(() => recoverAll(wrap(disk), act.laterVerdict), disk));
    stop(disk, prng);
  }
  note(await recoverAll(wrap(disk), act.laterVerdict));
  const found = whichTree(disk, act);
  if (acknowledged !== null) assert.equal(found, acknowledged, "what was reported is not what is there");
  if (act.verdict !== "holds" && act.laterVerdict !== "holds")
    assert.equal(found, "before", "an update that was refused is there");
  assertNoLeftovers(disk);

  // What stands now must stand, also if the power fails at once.
  disk.cutPower(prng);
  note(await recoverAll(wrap(disk), act.laterVerdict));
  assert.equal(whichTree(disk, act), found, "what had been recovered is gone after a power cut");
  if (found === "after" && prng.chance(0.5)) {
    await act.undo?.(disk.clone());
  }
  assertTree(disk, await act.goOn(disk, productTree(disk)), "after a further update");
}

export async function recoverAll(disk: Disk, verdict: Verdict) {
  const ctx = contextOf(disk);
  const result = await recover(ctx, { afterSwitch: verdictHook(verdict) });
  await discardStaging(ctx);
  return result;
}

/** The result, or null when the disk died under it. Any other failure is the caller's. */
async function survive<T>(run: () => Promise<T>, disk: SimDisk): Promise<T | null> {
  try {
    const result = await run();
    // Cleaning up may die unnoticed, after the result was certain.
    return result;
  } catch (error) {
    if (disk.dead || error instanceof SimCrash) return null;
    throw error;
  }
}

function stop(disk: SimDisk, prng: Prng): void {
  if (prng.chance(0.7)) disk.cutPower(prng);
  else disk.kill();
}

export function whichTree(disk: SimDisk, act: Act, normalise = (tree: SimTree) => tree): "before" | "after" {
  const tree = normalise(productTree(disk));
  if (sameTree(tree, normalise(act.after))) return "after";
  if (sameTree(tree, normalise(act.before))) return "before";
  assert.fail(`a mix of both trees:\n${describeDifference(act, tree)}`);
}

export function assertTree(disk: SimDisk, expected: SimTree, when: string): void {
  assert.deepEqual(sorted(productTree(disk)), sorted(expected), `the tree ${when}`);
}

export function assertNoLeftovers(disk: SimDisk): void {
  const ours = [...disk.tree(`${ROOT}/.lockstep`).keys()];
  const left = ours.filter((path) => path === "commit.json" || path.startsWith("staging/"));
  assert.deepEqual(left, [], "left over");
  const index = disk.tree(`${ROOT}/.lockstep`).get("index");
  if (index !== undefined) assert.match(index, WHOLE_INDEX, "the stat cache is torn");
}

function sameTree(a: SimTree, b: SimTree): boolean {
  if (a.size !== b.size) return false;
  for (const [path, what] of a) if (b.get(path) !== what) return false;
  return true;
}

function sorted(tree: SimTree): [string, string][] {
  return [...tree].sort(([a], [b]) => (a < b ? -1 : 1));
}

function describeDifference(act: Act, tree: SimTree): string {
  const paths = new Set([...act.before.keys(), ...act.after.keys(), ...tree.keys()]);
  return [...paths]
    .sort()
    .map((path) =>
      [act.before.get(path), act.after.get(path), tree.get(path)].map((each) => each ?? "-").concat(path),
    )
    .filter(([before, after, found]) => !(before === after && after === found))
    .map(([before, after, found, path]) => `${path}: before ${before} | after ${after} | found ${found}`)
    .join("\n");
}

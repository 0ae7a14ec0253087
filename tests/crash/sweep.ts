import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { realDisk, silentLogger, systemClock } from "@lockstep/platform";
import { Prng } from "@lockstep/testing";
import { type ApplyContext, discardStaging, recover } from "../../packages/updater/src/apply/index.ts";
import { bundle } from "../../scripts/bundle.mjs";
import type { CrashStory } from "./scenarios.ts";
import {
  copyTree,
  describeMix,
  expectedTrees,
  layDown,
  type RealTree,
  readTree,
  rolledBackTree,
  sameTree,
} from "./story-tree.ts";
import { type RunOutcome, runStruck, type TracedCall, traceCalls } from "./strace.ts";

/** A real updater on a real directory, killed before its system calls or with one of them failing. */
export interface Rig {
  readonly directory: string;
  readonly driver: string;
  dispose(): void;
}

/** Everything that a story's points share: the directory from which each starts, and the calls of an undisturbed run. */
export interface ReadyStory {
  readonly story: CrashStory;
  readonly base: string;
  readonly command: (root: string) => readonly string[];
  readonly before: RealTree;
  readonly after: RealTree;
  readonly calls: readonly TracedCall[];
}

export interface Point {
  readonly story: string;
  readonly call: TracedCall;
  /** Null: killed before it. */
  readonly error: string | null;
}

export const ERRORS = ["ENOSPC", "EIO", "EACCES"] as const;

export async function makeRig(): Promise<Rig> {
  const directory = fs.mkdtempSync(join(tmpdir(), "lockstep-crash-"));
  const driver = join(directory, "driver.mjs");
  // Bundled, so that a start costs what Node costs and nothing else.
  fs.writeFileSync(driver, await bundle("tests/crash/driver.ts"));
  return { directory, driver, dispose: () => fs.rmSync(directory, { recursive: true, force: true }) };
}

/** Builds a story's starting point, and traces an undisturbed run from it. */
export async function readyStory(rig: Rig, story: CrashStory): Promise<ReadyStory> {
  const name = story.name.replaceAll(" ", "-");
  const base = join(rig.directory, `${name}-base`);
  const scenario = join(rig.directory, `${name}.json`);
  fs.writeFileSync(scenario, JSON.stringify(story.scenario));
  layDown(base, story);
  // All trees of one story have paths of one length, so that nothing differs between two runs but what is injected.
  const commandFor = (act: string) => (root: string) => [process.execPath, rig.driver, root, scenario, act];
  if (story.act === "rollback") await mustSucceed(commandFor("update")(base), base, rig);
  if (story.act === "recover") await killHalfWay(commandFor("update"), base, rig);
  const { old, next } = expectedTrees(story);
  const command = commandFor(story.act);
  const trial = join(rig.directory, `${name}-work`);
  copyTree(base, trial);
  const calls = await traceCalls(command(trial), trial, join(rig.directory, "trace"));
  const ready: ReadyStory = {
    story,
    base,
    command,
    before: story.act === "rollback" ? next : old,
    after: story.act === "rollback" ? rolledBackTree(story) : next,
    calls,
  };
  const expected = story.scenario.verdict ? ready.after : ready.before;
  if (!sameTree(readTree(trial), expected))
    throw new Error(
      `${story.name}, undisturbed:\n${describeMix(readTree(trial), ready.before, ready.after)}`,
    );
  fs.rmSync(trial, { recursive: true, force: true });
  return ready;
}

async function mustSucceed(command: readonly string[], root: string, rig: Rig): Promise<TracedCall[]> {
  return traceCalls(command, root, join(rig.directory, "trace"));
}

/** Kills an update in the middle of its switch. */
async function killHalfWay(
  command: (root: string) => readonly string[],
  base: string,
  rig: Rig,
): Promise<void> {
  const trial = base.replace(/-base$/, "-work");
  copyTree(base, trial);
  const calls = await mustSucceed(command(trial), trial, rig);
  fs.rmSync(trial, { recursive: true, force: true });
  const renames = calls.filter(({ name, line }) => name.startsWith("rename") && line.includes("/new/"));
  const middle = renames[Math.floor(renames.length / 2)];
  if (middle === undefined) throw new Error("the update switches no file");
  copyTree(base, trial);
  const strike = { call: middle, error: null, root: trial, log: join(rig.directory, "trace") };
  if (!(await runStruck(command(trial), strike)).struck)
    throw new Error("the update was not killed half-way");
  fs.rmSync(base, { recursive: true });
  fs.renameSync(trial, base);
}

/** Every point of a story: each call killed before, each call with each error. */
export function pointsOf({ story, calls }: ReadyStory): Point[] {
  return calls.flatMap((call) => [null, ...ERRORS].map((error) => ({ story: story.name, call, error })));
}

const TRIES = 4;

/** What a point came to: what is broken afterwards; or null; or that another call was struck than was meant. */
export type PointOutcome = { readonly fault: string | null } | "missed";

/** One point. A start of Node makes a call more or less than another one now and then; then it is tried again. */
export async function tryPoint(ready: ReadyStory, { call, error }: Point): Promise<PointOutcome> {
  const root = ready.base.replace(/-base$/, "-work");
  const log = ready.base.replace(/-base$/, "-trace");
  for (let tried = 0; tried < TRIES; tried++) {
    fs.rmSync(root, { recursive: true, force: true });
    copyTree(ready.base, root);
    try {
      const outcome = await runStruck(ready.command(root), { call, error, root, log });
      if (!outcome.struck) continue;
      const fault =
        error === null ? await putRight(ready, root, null) : await afterError(ready, root, outcome);
      return { fault };
    } finally {
      fs.rmSync(root, { recursive: true, force: true });
    }
  }
  return "missed";
}

async function afterError(ready: ReadyStory, root: string, outcome: RunOutcome): Promise<string | null> {
  if (outcome.status !== 0) return `not a named error: status ${outcome.status} ${outcome.stderr}`;
  const result = JSON.parse(outcome.stdout) as { kind: string; code?: string };
  if (result.kind === "error" && !/^(INSTALLATION_|ROLLBACK_UNAVAILABLE)/.test(result.code ?? ""))
    return `error ${result.code}`;
  const inForce = fs.existsSync(`${root}/.lockstep/commit.json`);
  // Said no and left no record: nothing has happened. Said yes: it has.
  if (result.kind === "error" && !inForce)
    return putRight(ready, root, ready.story.act === "recover" ? null : "before");
  if (result.kind === "applied" || result.kind === "finished") return putRight(ready, root, "after");
  if (result.kind === "rolled-back") return putRight(ready, root, "before");
  return putRight(ready, root, null);
}

/** The next updater comes; then the tree is one of the two, the expected one if any, and nothing is left over. */
async function putRight(
  ready: ReadyStory,
  root: string,
  expected: "before" | "after" | null,
): Promise<string | null> {
  const ctx: ApplyContext = { disk: realDisk, root, clock: systemClock, log: silentLogger };
  const { verdict } = ready.story.scenario;
  try {
    await recover(ctx, { afterSwitch: () => verdict });
    await discardStaging(ctx);
    if ((await recover(ctx)).kind !== "nothing") return "a second recovery found something";
  } catch (error) {
    return `stuck: ${error instanceof Error ? error.message : error}`;
  }
  const found = pruned(readTree(root));
  const after = sameTree(found, ready.after);
  if (!after && !sameTree(found, ready.before))
    return `a mix:\n${describeMix(found, ready.before, ready.after)}`;
  if (after && !verdict) return "an update that was refused is there";
  if (expected !== null && (expected === "after") !== after) return `expected the tree ${expected}`;
  const staging = `${root}/.lockstep/staging`;
  const left = fs.existsSync(staging) ? fs.readdirSync(staging) : [];
  return left.length === 0 ? null : `left over: ${left.join(" ")}`;
}

/** An empty directory that could not be removed, because that very call was made to fail, is a blemish and no mix. */
function pruned(tree: Map<string, string>): RealTree {
  for (const path of [...tree.keys()].reverse())
    if (
      tree.get(path)?.startsWith("directory") &&
      ![...tree.keys()].some((other) => other.startsWith(`${path}/`))
    )
      tree.delete(path);
  return tree;
}

/** More than so many misses in a hundred, and a sweep proves less than it says. */
export const MISSED_PERCENT_MAX = 5;

/** Some of all points, by chance, the same for a seed. */
export function samplePoints(points: readonly Point[], count: number, seed: number): Point[] {
  const prng = new Prng(seed);
  const left = [...points];
  const sample: Point[] = [];
  while (sample.length < count && left.length > 0) sample.push(...left.splice(prng.below(left.length), 1));
  return sample;
}

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import test from "node:test";
import { askedSeed } from "@lockstep/testing";
import { IN_PLACE, STORIES } from "./scenarios.ts";
import {
  MISSED_PERCENT_MAX,
  makeRig,
  pointsOf,
  type ReadyStory,
  readyStory,
  samplePoints,
  tryPoint,
} from "./sweep.ts";
import { describePoint } from "./sweep-all.ts";

/** So many points of all, drawn by a seed; `npm run sim -- --strace` tries every one. */
const POINTS = 150;
const SEED = askedSeed(20261123);

const skip = spawnSync("strace", ["-V"]).status === 0 ? false : "strace is not installed";

test(`a real update, rollback or recovery that is killed, or whose calls fail, leaves a whole installation (seed ${SEED})`, {
  skip,
}, async (t) => {
  const rig = await makeRig();
  t.after(() => rig.dispose());
  const stories = new Map<string, ReadyStory>();
  for (const story of STORIES) stories.set(story.name, await readyStory(rig, story));
  const points = [...stories.values()].flatMap(pointsOf);
  // As many kills as failing calls, although the latter are three times as many.
  const sample = [
    ...samplePoints(
      points.filter(({ error }) => error === null),
      POINTS / 2,
      SEED,
    ),
    ...samplePoints(
      points.filter(({ error }) => error !== null),
      POINTS / 2,
      SEED,
    ),
  ];
  const faults: string[] = [];
  let missed = 0;
  for (const point of sample) {
    const ready = stories.get(point.story);
    const outcome = ready === undefined ? "missed" : await tryPoint(ready, point);
    if (outcome === "missed") missed++;
    else if (outcome.fault !== null) faults.push(`${describePoint(point)}: ${outcome.fault}`);
  }
  assert.ok(missed * 100 <= sample.length * MISSED_PERCENT_MAX, `${missed} strikes hit something else`);
  t.diagnostic(
    `${sample.length - missed} of ${points.length} points of ${stories.size} stories, seed ${SEED}`,
  );
  assert.equal(faults.length, 0, `${faults.length} of ${sample.length}:\n${faults.slice(0, 5).join("\n\n")}`);
});

test("an updater without a record is found out by the same rig", { skip }, async (t) => {
  const rig = await makeRig();
  t.after(() => rig.dispose());
  const ready = await readyStory(rig, IN_PLACE);
  const renames = pointsOf(ready).filter(({ call, error }) => error === null && call.name === "rename");
  const [, second] = renames;
  assert.ok(second !== undefined);
  const outcome = await tryPoint(ready, second);
  assert.match(outcome === "missed" ? outcome : (outcome.fault ?? ""), /a mix/);
});

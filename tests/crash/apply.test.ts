import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import test from "node:test";
import { IN_PLACE, STORIES } from "./scenarios.ts";
import { makeRig, pointsOf, type ReadyStory, readyStory, samplePoints, tryPoint } from "./sweep.ts";
import { describePoint } from "./sweep-all.ts";

/** So many points of all, drawn anew in each run; `npm run sim -- --strace` tries every one. */
const POINTS = 150;
const SEED = Date.now() % 2 ** 32;

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
  for (const point of sample) {
    const ready = stories.get(point.story);
    const fault = ready === undefined ? "no such story" : await tryPoint(ready, point);
    if (fault !== null) faults.push(`${describePoint(point)}: ${fault}`);
  }
  t.diagnostic(`${sample.length} of ${points.length} points of ${stories.size} stories, seed ${SEED}`);
  assert.equal(faults.length, 0, `${faults.length} of ${sample.length}:\n${faults.slice(0, 5).join("\n\n")}`);
});

test("an updater without a record is found out by the same rig", { skip }, async (t) => {
  const rig = await makeRig();
  t.after(() => rig.dispose());
  const ready = await readyStory(rig, IN_PLACE);
  const renames = pointsOf(ready).filter(({ call, error }) => error === null && call.name === "rename");
  const faults = await Promise.all(renames.slice(1, 2).map((point) => tryPoint(ready, point)));
  assert.match(faults.join(), /a mix/);
});

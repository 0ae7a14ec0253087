import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeProduct, tryProduct } from "./product.ts";
import { STORIES } from "./scenarios.ts";
import { ERRORS, MISSED_PERCENT_MAX, makeRig, type Point, pointsOf, readyStory, tryPoint } from "./sweep.ts";

/** Every point of every story, with what was found; for `npm run sim -- --strace`. Returns whether all were whole. */
export async function sweepAll(label: string): Promise<boolean> {
  console.log(label);
  const rig = await makeRig();
  let broken = 0;
  let kills = 0;
  let errors = 0;
  let missed = 0;
  try {
    for (const story of STORIES) {
      const ready = await readyStory(rig, story);
      const points = pointsOf(ready);
      for (const point of points) {
        const outcome = await tryPoint(ready, point);
        if (outcome === "missed") missed++;
        else if (point.error === null) kills++;
        else errors++;
        if (outcome === "missed" || outcome.fault === null) continue;
        broken++;
        console.log(`${describePoint(point)}: ${outcome.fault}`);
      }
      console.log(`${story.name}: ${ready.calls.length} calls, ${points.length} points`);
    }
  } finally {
    rig.dispose();
  }
  console.log(`${kills} kills, ${errors} failing calls, ${missed} missed, ${broken} broken`);
  const whole = await sweepProduct();
  console.log(label);
  return broken === 0 && whole && missed * 100 < (kills + errors) * MISSED_PERCENT_MAX;
}

/** Every call of `lockstep update` that changes something: killed before, and failing with an error in turn. */
async function sweepProduct(): Promise<boolean> {
  const directory = fs.mkdtempSync(join(tmpdir(), "lockstep-product-"));
  let broken = 0;
  let points = 0;
  try {
    const product = await makeProduct(directory);
    try {
      for (const [at, call] of product.calls.entries())
        for (const error of [null, ERRORS[at % ERRORS.length] ?? null]) {
          const outcome = await tryProduct(product, call, error);
          points += outcome === "missed" ? 0 : 1;
          if (outcome === "missed" || outcome.fault === null) continue;
          broken++;
          console.log(`${describePoint({ story: "lockstep update", call, error })}: ${outcome.fault}`);
        }
      console.log(`lockstep update: ${product.calls.length} calls, ${points} points, ${broken} broken`);
    } finally {
      await product.dispose();
    }
  } finally {
    fs.rmSync(directory, { recursive: true, force: true, maxRetries: 3 });
  }
  return broken === 0;
}

export function describePoint({ story, call, error }: Point): string {
  const how = error === null ? "killed before" : `${error} from`;
  return `${story}, ${how} ${call.name} ${call.ordinal} (${call.line.replace(/^\d+ +/, "").slice(0, 160)})`;
}

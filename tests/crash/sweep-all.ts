import { STORIES } from "./scenarios.ts";
import { makeRig, type Point, pointsOf, readyStory, tryPoint } from "./sweep.ts";

/** Every point of every story, with what was found; for `npm run sim -- --strace`. Returns whether all were whole. */
export async function sweepAll(label: string): Promise<boolean> {
  console.log(label);
  const rig = await makeRig();
  let broken = 0;
  let kills = 0;
  let errors = 0;
  try {
    for (const story of STORIES) {
      const ready = await readyStory(rig, story);
      const points = pointsOf(ready);
      for (const point of points) {
        const fault = await tryPoint(ready, point);
        if (point.error === null) kills++;
        else errors++;
        if (fault === null) continue;
        broken++;
        console.log(`${describePoint(point)}: ${fault}`);
      }
      console.log(`${story.name}: ${ready.calls.length} calls, ${points.length} points`);
    }
  } finally {
    rig.dispose();
  }
  console.log(`${kills} kills, ${errors} failing calls, ${broken} broken`);
  console.log(label);
  return broken === 0;
}

export function describePoint({ story, call, error }: Point): string {
  const how = error === null ? "killed before" : `${error} from`;
  return `${story}, ${how} ${call.name} ${call.ordinal} (${call.line.replace(/^\d+ +/, "").slice(0, 160)})`;
}

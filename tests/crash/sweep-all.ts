import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeProduct, type Product, TRANSFERS, type Transfer, tryProduct } from "./product.ts";
import { codesFor, describeFault, listFaultPoints, tryFault } from "./product-faults.ts";
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

/** `lockstep update` against a hub. Returns whether every installation was whole afterwards, and every word true. */
export async function sweepProduct(): Promise<boolean> {
  let isWhole = true;
  for (const transfer of TRANSFERS) {
    console.log(`by ${transfer}:`);
    isWhole = (await sweepTransfer(transfer)) && isWhole;
  }
  return isWhole;
}

async function sweepTransfer(transfer: Transfer): Promise<boolean> {
  const directory = fs.mkdtempSync(join(tmpdir(), "lockstep-product-"));
  try {
    const product = await makeProduct(directory, transfer);
    try {
      const struck = await strikeAll(product);
      return (await failAll(product)) && struck;
    } finally {
      await product.dispose();
    }
  } finally {
    fs.rmSync(directory, { recursive: true, force: true, maxRetries: 3 });
  }
}

/** Every call that changes something: killed before, and failing with each error. */
async function strikeAll(product: Product): Promise<boolean> {
  const counts = { kills: 0, errors: 0, missed: 0, broken: 0 };
  for (const call of product.calls)
    for (const error of [null, ...ERRORS]) {
      const outcome = await tryProduct(product, call, error);
      if (outcome === "missed") counts.missed++;
      else if (error === null) counts.kills++;
      else counts.errors++;
      if (outcome === "missed" || outcome.fault === null) continue;
      counts.broken++;
      console.log(`${describePoint({ story: "lockstep update", call, error })}: ${outcome.fault}`);
    }
  const { kills, errors, missed, broken } = counts;
  console.log(
    `lockstep update: ${product.calls.length} calls, ${kills} kills, ${errors} failing calls, ${missed} missed, ${broken} broken`,
  );
  return broken === 0;
}

/** Every call on the installation, also those that only look: failing with each error that it can meet. */
async function failAll(product: Product): Promise<boolean> {
  const points = await listFaultPoints(product);
  const outcomes = new Map<string, number>();
  let missed = 0;
  let broken = 0;
  for (const point of points)
    for (const code of codesFor(point)) {
      const { struck, fault, ended } = await tryFault(product, point, code);
      if (!struck) missed++;
      const outcome = ended.status === 0 ? "updated" : (/^error (\w+)/m.exec(ended.stderr)?.[1] ?? "no name");
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      if (fault === null) continue;
      broken++;
      console.log(`${describeFault(point, code)}: ${fault}`);
    }
  const tried = [...outcomes.values()].reduce((sum, count) => sum + count, 0);
  const ends = [...outcomes].map(([outcome, count]) => `${count} ${outcome}`).join(", ");
  console.log(
    `lockstep update: ${points.length} calls of node:fs, ${tried} failing (${ends}), ${missed} missed, ${broken} broken`,
  );
  return broken === 0;
}

export function describePoint({ story, call, error }: Point): string {
  const how = error === null ? "killed before" : `${error} from`;
  return `${story}, ${how} ${call.name} ${call.ordinal} (${call.line.replace(/^\d+ +/, "").slice(0, 160)})`;
}

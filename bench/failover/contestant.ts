import type { Lab } from "../../tests/support/lab.ts";
import { labNow } from "../../tests/support/lab.ts";
import { measureOutage, startProbe } from "../../tests/support/lab-probe.ts";
import { watchTruth } from "../../tests/support/lab-truth.ts";

export const ADDRESS = "10.77.0.50";
export const PORT = 8080;
export const PRIORITY = 10;
const BEFORE_MS = 400;
const AFTER_MS = 300;

/** Something that holds an address for a client, and what can happen to it. */
export interface Scenario {
  readonly name: string;
  /** Everything stands and serves again, as before the first time. Not measured. */
  prepare(random: () => number): Promise<void>;
  /** What is measured; returns hosts whose kernel must not be believed any more. */
  fault(): Promise<readonly string[]>;
  /** Until a client is served, or long enough for whoever does not come back. */
  settle(): Promise<void>;
}

export interface Round {
  readonly gapMs: number;
  readonly floorMs: number;
  readonly flapbacks: number;
  readonly twoOwnersMs: number;
}

/** One fault as a client sees it: a new connection every 5 ms on an absolute schedule, 250 ms for each answer. */
export async function measure(lab: Lab, scenario: Scenario, random: () => number): Promise<Round> {
  await scenario.prepare(random);
  const truth = await watchTruth(lab, { addresses: [ADDRESS] });
  const probe = await startProbe(lab.host("client"), { address: ADDRESS, port: PORT, priority: PRIORITY });
  await sleep(BEFORE_MS + random() * 1_000);
  const faultAt = labNow();
  const absent = await scenario.fault();
  await scenario.settle();
  await sleep(AFTER_MS);
  const records = await probe.stop();
  const samples = await truth.stop();
  const { gapMs, floorMs, flapbacks } = measureOutage(records, faultAt);
  let twoOwnersMs = 0;
  for (const [index, { at, owners }] of samples.entries()) {
    const found = (owners[ADDRESS] ?? []).filter((host) => !absent.includes(host));
    if (found.length > 1) twoOwnersMs += (samples[index + 1]?.at ?? at) - at;
  }
  return { gapMs, floorMs, flapbacks, twoOwnersMs };
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

import { mkdirSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { whyNoLab } from "../support/lab.ts";
import { measureOutage } from "../support/lab-probe.ts";
import { NEMESES } from "./nemesis-faults.ts";
import { type NemesisHistory, readHistory, writeHistory } from "./nemesis-history.ts";
import { judge, type Verdict } from "./nemesis-judge.ts";
import { runNemesis } from "./nemesis-run.ts";

const SERVED_WITHIN_MS = 30_000;
const SHOWN_MAX = 10;

/** `npm run sim -- --nemesis`: every fault, so many rounds each; returns whether nothing broke. Every history is kept as a file. */
export async function sweepNemeses(given: {
  readonly rounds: number;
  readonly seed: number;
  readonly only: readonly string[] | null;
  readonly keep: string | null;
}): Promise<boolean> {
  const reason = whyNoLab("etcd", "arping", "curl");
  if (reason !== null) {
    console.log(`skipped: ${reason}`);
    return true;
  }
  const unknown = given.only?.filter((name) => !NEMESES.some((nemesis) => nemesis.name === name)) ?? [];
  if (unknown.length > 0) {
    console.log(
      `no such nemesis: ${unknown.join(", ")}; there are ${NEMESES.map(({ name }) => name).join(", ")}`,
    );
    return false;
  }
  const directory = given.keep ?? mkdtempSync(join(tmpdir(), "lockstep-nemesis-"));
  mkdirSync(directory, { recursive: true });
  let all = true;
  for (const nemesis of NEMESES) {
    if (given.only !== null && !given.only.includes(nemesis.name)) continue;
    const whyNot = nemesis.whyNot?.() ?? null;
    if (whyNot !== null) {
      console.log(`skipped ${nemesis.name}: ${whyNot}`);
      continue;
    }
    console.log(nemesis.name);
    try {
      const told = (line: string) => console.log(`  ${line}`);
      const history = await runNemesis(nemesis, { ...given, told });
      const file = join(directory, `${nemesis.name}.json`);
      writeHistory(file, history);
      const isSound = tell(history);
      if (!isSound) console.log(`  judge it again: npm run sim -- --judge ${file}`);
      all &&= isSound;
    } catch (error) {
      console.log(
        `  could not be played to its end: ${error instanceof Error ? error.message : String(error)}`,
      );
      all = false;
    }
  }
  return all;
}

/** Judges a history that was kept. */
export const judgeKept = (file: string): boolean => tell(readHistory(file));

export const judgeNemesis = (history: NemesisHistory): Verdict =>
  judge(history, { servedWithinMs: SERVED_WITHIN_MS });

function tell(history: NemesisHistory): boolean {
  const { broken, looked, twoOwnersMs } = judgeNemesis(history);
  const [first] = history.rounds;
  const outage = first === undefined ? null : measureOutage(history.client, first.faultAt);
  const counts = Object.entries(looked).map(([invariant, count]) => `${invariant} ${count}`);
  console.log(
    `  ${history.rounds.length} rounds, two owners for ${Math.round(twoOwnersMs)} ms, longest outage ${Math.round(outage?.gapMs ?? 0)} ms, ${broken.length} broken; looked at ${counts.join(", ")}`,
  );
  for (const { invariant, at, problem } of broken.slice(0, SHOWN_MAX))
    console.log(`  ${invariant} at ${Math.round(at)}: ${problem}`);
  return broken.length === 0;
}

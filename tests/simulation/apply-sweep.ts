import { Prng, type SimDisk } from "@lockstep/testing";
import { leaveOut, type Mutant, siteName, watchSyncs } from "./apply-mutants.ts";
import {
  type Act,
  type CrashPoint,
  NO_WRAP,
  prepareLocked,
  prepareRepair,
  prepareRollback,
  prepareUpdate,
  tryCrash,
} from "./apply-run.ts";
import { makeScenario, type Scenario } from "./apply-scenario.ts";

/** Runs many states, and looks for the first one that tells a mutant from the real updater. */
export interface SweepReport {
  states: number;
  scenarios: number;
  /** Updates refused with nothing touched, by error code: they have no crash points. */
  refused: Record<string, number>;
  failures: SweepFailure[];
}

export interface SweepFailure {
  readonly point: CrashPoint;
  readonly message: string;
}

/** Calls beyond the end of an act at which it is crashed as well: then it has ended, and the power fails afterwards. */
const CALLS_AFTER_END = 5;

/** The scenario of a seed. */
export function scenarioOf(seed: number): Scenario {
  return makeScenario(seed, new Prng(seed));
}

/** What can be done to a scenario and crashed: its update, and the rollback of it. None where the update is refused. */
export async function actsOf(scenario: Scenario): Promise<{ acts: Act[]; refused: string | null }> {
  const { act, refused } = await prepareUpdate(scenario);
  if (act === null) return { acts: [], refused };
  const rollback = await prepareRollback(scenario, act);
  const repair = await prepareRepair(scenario, act, new Prng(scenario.seed).fork());
  const locked = await prepareLocked(scenario, act, new Prng(scenario.seed + 1).fork());
  return { acts: [act, rollback, repair, locked].filter((each) => each !== null), refused: null };
}

/** How many calls an act makes when nothing crashes. */
export async function countCalls(act: Act): Promise<number> {
  const disk = act.base.clone();
  disk.plan();
  await act.run(disk);
  return disk.calls;
}

/** One scenario of so many is crashed at every call, the others at a few: different shapes find more than more of one. */
const WHOLE_EVERY = 4;
const CALLS_OF_OTHERS = 12;

/** Crashes scenario after scenario until enough states were seen. All of it follows from the seed. */
export async function sweep(
  seed: number,
  states: number,
  onProgress: (report: SweepReport) => void = () => {},
): Promise<SweepReport> {
  const report: SweepReport = { states: 0, scenarios: 0, refused: {}, failures: [] };
  for (let at = 0; report.states < states; at++) {
    const scenario = scenarioOf(seed + at);
    const { acts, refused } = await actsOf(scenario);
    report.scenarios++;
    if (refused !== null) report.refused[refused] = (report.refused[refused] ?? 0) + 1;
    const prng = new Prng(seed + at).fork();
    for (const act of acts) {
      const calls = (await countCalls(act)) + CALLS_AFTER_END;
      const whole = at % WHOLE_EVERY === 0;
      for (let nth = 1; nth <= (whole ? calls : CALLS_OF_OTHERS); nth++) {
        const call = whole ? nth : 1 + prng.below(calls);
        const point = { seed: seed + at, act: act.name, call, draw: prng.uint32() };
        report.states++;
        const message = await findFault(act, point);
        if (message !== null) report.failures.push({ point, message });
      }
    }
    onProgress(report);
  }
  return report;
}

async function findFault(act: Act, point: CrashPoint): Promise<string | null> {
  try {
    await tryCrash(act, point, NO_WRAP);
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Comes back to one state, with the error that it ended in. */
export async function replay(point: CrashPoint): Promise<void> {
  const { acts } = await actsOf(scenarioOf(point.seed));
  const act = acts.find(({ name }) => name === point.act);
  if (act === undefined) throw new Error(`seed ${point.seed} has no ${point.act}`);
  await tryCrash(act, point, NO_WRAP);
}

/** Where a sync was met: crashing there, with another draw, is the shortest way to a state that needs it. */
interface Spot {
  readonly act: Act;
  readonly call: number;
}

/** Every sync of a number of scenarios by name, and the spots where it was met. */
export interface SyncMap {
  readonly spots: ReadonlyMap<string, readonly Spot[]>;
  readonly acts: readonly { readonly act: Act; readonly calls: number }[];
}

const POINTS_PER_ACT = 12;

/** Walks through scenarios without a mutant, and notes every sync that is met: in acts, and in recoveries. */
export async function mapSyncs(seed: number, scenarios: number): Promise<SyncMap> {
  const spots = new Map<string, Spot[]>();
  const acts: { act: Act; calls: number }[] = [];
  for (let at = 0; at < scenarios; at++) {
    for (const act of (await actsOf(scenarioOf(seed + at))).acts) {
      const calls = await countCalls(act);
      acts.push({ act, calls });
      const prng = new Prng(seed + at).fork();
      for (let i = 0; i < POINTS_PER_ACT; i++) {
        const call = 1 + prng.below(calls + CALLS_AFTER_END);
        let underWay: SimDisk | null = null;
        const met = new Map<string, number>();
        const wrap = (disk: SimDisk) => {
          const first = underWay === null;
          underWay = disk;
          return watchSyncs(disk, (site) => {
            // In the act itself, crash soon after it; in a recovery, crash the act where this recovery began.
            if (!met.has(siteName(site))) met.set(siteName(site), first ? disk.calls + 1 : call);
            return true;
          });
        };
        await tryCrash(act, { seed: seed + at, act: act.name, call, draw: prng.uint32() }, wrap);
        for (const [name, where] of met) spots.set(name, [...(spots.get(name) ?? []), { act, call: where }]);
      }
    }
  }
  return { spots, acts };
}

/** Syncs of a recovery whose need shows when the act is killed at another one: right after it dropped or turned the head. */
const NEED_SHOWS_AT: Readonly<Record<string, string>> = {
  "clear leftovers: .lockstep": "drop the head: .lockstep",
  "turn again: .lockstep": "turn forward: .lockstep",
  "turn again: staging": "turn forward: staging",
};
const CALLS_NEAR = [1, 2, 16, 16] as const;

/** How many states it took to tell a mutant, and by what; null when it passed for the real updater in all of them. */
export async function catchMutant(
  mutant: Mutant,
  site: string | null,
  map: SyncMap,
  seed: number,
  statesMax: number,
): Promise<{ states: number; message: string } | null> {
  const prng = new Prng(seed);
  const spots = site === null ? undefined : map.spots.get(NEED_SHOWS_AT[site] ?? site);
  for (let states = 1; states <= statesMax; states++) {
    const spot = prng.chance(0.8) ? prng.pick(spots ?? []) : undefined;
    const anywhere = prng.pick(map.acts);
    const act = spot?.act ?? anywhere?.act;
    if (act === undefined) throw new Error("no scenario has anything to crash");
    const call =
      spot === undefined
        ? 1 + prng.below((anywhere?.calls ?? 0) + CALLS_AFTER_END)
        : spot.call + prng.below(prng.pick(CALLS_NEAR));
    try {
      await tryCrash(act, { seed, act: act.name, call, draw: prng.uint32() }, (disk) => mutant.wrap(disk));
    } catch (error) {
      return {
        states,
        message: error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error),
      };
    }
  }
  return null;
}

/** One mutant for each sync that was met. */
export function syncMutants(map: SyncMap): { site: string; mutant: Mutant }[] {
  return [...map.spots.keys()].sort().map((site) => ({ site, mutant: leaveOut(site) }));
}

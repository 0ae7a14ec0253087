import { execFileSync } from "node:child_process";
import { Prng } from "@lockstep/testing";
import type { Lab } from "../../tests/support/lab.ts";
import { measure, type Round, type Scenario } from "../failover/contestant.ts";
import { KeepalivedHosts } from "../failover/keepalived.ts";
import { countMoves, lockstepScenario, openLockstep, ownStart } from "../failover/lockstep.ts";
import { PacemakerHosts } from "../failover/pacemaker.ts";
import { type Measured, median } from "../harness.ts";
import type { Finding, Report } from "../report.ts";

const ROUNDS = Number(process.env.LOCKSTEP_BENCH_ROUNDS ?? 10);
const MINUTES = Number(process.env.LOCKSTEP_BENCH_MINUTES ?? 10);
const SEED = Number(process.env.LOCKSTEP_BENCH_SEED ?? 1);

/** Rows by name; each is what one contestant does about one fault. */
type Rows = Map<string, readonly Round[]>;

interface Closable {
  readonly lab: Lab;
  close(): Promise<void>;
}

/** Another's fault costs its own rows, and is told; one of ours ends the run. */
async function playOthers<T extends Closable>(
  rows: Rows,
  unplayed: string[],
  open: () => Promise<T>,
  scenarios: (hosts: T) => readonly Scenario[],
): Promise<void> {
  try {
    await playAll(rows, open, scenarios);
  } catch (error) {
    unplayed.push(error instanceof Error ? error.message : String(error));
    process.stderr.write(`  ${unplayed.at(-1)}\n`);
  }
}

async function playAll<T extends Closable>(
  rows: Rows,
  open: () => Promise<T>,
  scenarios: (hosts: T) => readonly Scenario[],
  after: (hosts: T) => Promise<void> = () => Promise.resolve(),
): Promise<void> {
  const prng = new Prng(SEED);
  const hosts = await open();
  try {
    for (const scenario of scenarios(hosts)) {
      const rounds: Round[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        rounds.push(await measure(hosts.lab, scenario, () => prng.next()));
        process.stderr.write(`  ${scenario.name}: ${Math.round(rounds.at(-1)?.gapMs ?? 0)} ms\n`);
      }
      rows.set(scenario.name, rounds);
    }
    await after(hosts);
  } finally {
    await hosts.close();
  }
}

const OURS = {
  move: "lockstep, planned move, service warm",
  moveCold: "lockstep, planned move, service stopped and started",
  daemon: "lockstep, daemon killed",
  daemonFast: "lockstep, lease of 1 s, daemon killed",
  node: "lockstep, lease of 3 s, node killed",
  nodeLeader: "lockstep, lease of 3 s, node and the store's leader killed",
  nodeFast: "lockstep, lease of 1 s, node killed",
  nodeLeaderFast: "lockstep, lease of 1 s, node and the store's leader killed",
  nodeLeaderElection: "lockstep, lease of 1 s, etcd electing in 0.5 s, node and the store's leader killed",
  service: "lockstep, service killed and restarted in place",
} as const;

/** Client-visible outage by fault, beside keepalived and Pacemaker in the same run. */
export async function run(): Promise<Report> {
  const rows: Rows = new Map();
  const moves: Record<string, number> = {};
  let startMs = 0;
  await playAll(
    rows,
    () => openLockstep("default", true),
    (hosts) => [
      lockstepScenario(hosts, OURS.move, "move", true),
      lockstepScenario(hosts, OURS.daemon, "daemon", true),
      lockstepScenario(hosts, OURS.node, "node", true),
      lockstepScenario(hosts, OURS.nodeLeader, "node and leader", true),
    ],
    async (hosts) => {
      for (const load of ["busy cores", "slow fsync"] as const) {
        process.stderr.write(`  ${MINUTES} minutes of ${load}\n`);
        moves[load] = await countMoves(hosts, MINUTES, load);
      }
    },
  );
  await playAll(
    rows,
    () => openLockstep("fast", true),
    (hosts) => [
      lockstepScenario(hosts, OURS.daemonFast, "daemon", true),
      lockstepScenario(hosts, OURS.nodeFast, "node", true),
      lockstepScenario(hosts, OURS.nodeLeaderFast, "node and leader", true),
    ],
  );
  await playAll(
    rows,
    () => openLockstep("fast", true, "fast"),
    (hosts) => [lockstepScenario(hosts, OURS.nodeLeaderElection, "node and leader", true)],
  );
  await playAll(
    rows,
    () => openLockstep("default", false),
    (hosts) => [
      lockstepScenario(hosts, OURS.moveCold, "move", false),
      lockstepScenario(hosts, OURS.service, "service", false),
    ],
    async (hosts) => {
      startMs = await ownStart(hosts);
    },
  );
  const unplayed: string[] = [];
  for (const seconds of [1, 0.1])
    await playOthers(
      rows,
      unplayed,
      () => KeepalivedHosts.open(seconds),
      (hosts) => (["stop", "daemon", "node"] as const).map((fault) => hosts.scenario(fault)),
    );
  await playOthers(
    rows,
    unplayed,
    () => PacemakerHosts.open(),
    (hosts) => (["move", "node"] as const).map((fault) => hosts.scenario(fault)),
  );
  return toReport(rows, unplayed, moves, startMs);
}

function toReport(
  rows: Rows,
  unplayed: readonly string[],
  moves: Readonly<Record<string, number>>,
  startMs: number,
): Report {
  const medianOf = (name: string) => median((rows.get(name) ?? []).map(({ gapMs }) => gapMs));
  const goal = (what: string, found: number, most: number): Finding => ({
    what,
    found,
    goal: most,
    unit: " ms",
  });
  const ours = Object.values(OURS).flatMap((name) => rows.get(name) ?? []);
  const measured: Measured[] = [...rows].map(([name, rounds]) => ({
    name,
    samples: rounds.map(({ gapMs }) => ({ wallMs: gapMs, cpuMs: null, peakBytes: null })),
  }));
  const table = [...rows].map(
    ([name, rounds]) =>
      `| ${name} | ${rounds.length} | ${Math.round(median(rounds.map(({ floorMs }) => floorMs)))} ms | ${rounds.filter(({ twoOwnersMs }) => twoOwnersMs > 0).length} | ${Math.round(Math.max(...rounds.map(({ twoOwnersMs }) => twoOwnersMs)))} ms |`,
  );
  const against = (what: string, mine: string, theirs: string): Finding[] =>
    rows.has(theirs) ? [{ what, found: medianOf(mine) / medianOf(theirs), goal: 1, unit: " times" }] : [];
  return {
    title: "Failover",
    text: [
      "How long a client is not served: every 5 ms a new connection on an absolute schedule, 250 ms for each answer; the longest time between two answers with a failed request between them. Hosts are network namespaces on one bridge, three nodes with an etcd member each (data in memory), two for the others. Each fault at another moment of the lease. *Node killed*: no process, and nothing of it is heard. Warm: the service runs everywhere, only the address moves. Pacemaker without fencing, token 3 s.",
      "",
      "| | rounds | without a fault | rounds with two owners | longest |",
      "| --- | --- | --- | --- | --- |",
      ...table,
      "",
      ...unplayed.map((problem) => `Not played to its end: ${problem}.\n`),
      `The service needs ${Math.round(startMs)} ms from its start until it listens. Versions: ${versions()}.`,
    ].join("\n"),
    measured,
    findings: [
      goal("planned move, warm", medianOf(OURS.move), 60),
      goal("daemon killed, lease of 3 s", medianOf(OURS.daemon), 250),
      goal("daemon killed, lease of 1 s", medianOf(OURS.daemonFast), 250),
      goal("node killed, lease of 3 s", medianOf(OURS.node), 3_300),
      goal("node and the store's leader killed, lease of 3 s", medianOf(OURS.nodeLeader), 3_300),
      goal("node killed, lease of 1 s", medianOf(OURS.nodeFast), 1_300),
      goal("node and the store's leader killed, lease of 1 s", medianOf(OURS.nodeLeaderFast), 1_300),
      goal("the same with etcd electing in 0.5 s", medianOf(OURS.nodeLeaderElection), 1_300),
      goal(
        "service killed and restarted in place, less its own start",
        medianOf(OURS.service) - startMs,
        300,
      ),
      goal(
        "longest time with two owners in any round",
        Math.max(...ours.map(({ twoOwnersMs }) => twoOwnersMs)),
        0,
      ),
      ...Object.entries(moves).map(([load, count]) => ({
        ...{ what: `moves by themselves in ${MINUTES} minutes of ${load}`, found: count, goal: 0, unit: "" },
      })),
      ...against(
        "planned move against keepalived's at 1 s",
        OURS.move,
        "keepalived, adverts every 1 s: told to end",
      ),
      ...against(
        "node killed (1 s) against keepalived at 1 s",
        OURS.nodeFast,
        "keepalived, adverts every 1 s: node killed",
      ),
      ...against("planned move against Pacemaker's", OURS.move, "Pacemaker: moved"),
      ...against("node killed (3 s) against Pacemaker", OURS.node, "Pacemaker: node killed"),
    ],
  };
}

function versions(): string {
  const first = (program: string, ...args: string[]) =>
    execFileSync("/bin/sh", ["-c", '"$0" "$@" 2>&1 | head -1', program, ...args], {
      encoding: "utf8",
    }).trim();
  return [
    first("etcd", "--version"),
    first("keepalived", "--version"),
    first("corosync", "-v"),
    first("pacemakerd", "--version"),
  ].join("; ");
}

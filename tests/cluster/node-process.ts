import { type CoordinationConfig, LeaseDriver, openCoordination } from "@lockstep/cluster";
import type { LeaseTimes } from "@lockstep/core";
import { systemClock } from "@lockstep/platform";

/**
 * A node's daemon, as far as the lease goes, for tests that stop and kill real processes. Takes its configuration as its
 * first argument, orders through standard input, and says what happens on standard output, a line each.
 */
export interface NodeConfig {
  readonly node: string;
  readonly others: readonly string[];
  readonly rank: number;
  readonly times: LeaseTimes;
  readonly coordination: CoordinationConfig;
  readonly program: string;
  readonly arguments: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
}

const config = JSON.parse(process.argv[2] ?? "") as NodeConfig;
const { node, others, rank, coordination } = config;
const { trustMs, waitMs, renewMs, callMs } = config.times;
const say = (message: object) => process.stdout.write(`${JSON.stringify(message)}\n`);
const instance = `${node}.${process.pid}`;
const driver = new LeaseDriver({
  lease: {
    node,
    instance,
    members: others,
    trustMs,
    waitMs,
    renewMs,
    callMs,
    pollMs: waitMs / 2,
    lockDelayMs: 0,
    automatic: true,
    failsafe: false,
  },
  guard: {
    virtualServer: "JOBS",
    instance,
    program: config.program,
    arguments: config.arguments,
    directory: "/",
    environment: config.environment,
    afterKill: [],
    coordination,
  },
  coordination: await openCoordination(coordination, systemClock),
  graceMs: 2000,
  note: (note) => say(note),
  exited: (token) => {
    say({ what: "exited", token });
    driver.restart(token);
  },
});
const take = () => driver.wish({ kind: "take", delayMs: rank * 100, force: false });
process.stdin.on("data", (order: Buffer) => {
  if (order.toString() === "leave\n") driver.wish({ kind: "leave", next: null });
  if (order.toString() === "take\n") take();
});
process.stdin.on("end", () => void driver.close().then(() => process.exit(0)));
take();
driver.cleaned();

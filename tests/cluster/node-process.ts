import {
  type Coordination,
  type CoordinationConfig,
  openCoordination,
  resourceFactories,
  VirtualServerHost,
} from "@lockstep/cluster";
import type { LeaseTimes, VirtualServerDefinition } from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import { openFileResource } from "./file-resource.ts";

/**
 * A node's daemon, as far as one virtual server goes, for tests that stop and kill real processes. Takes its configuration
 * as its first argument, orders through standard input, and says what happens on standard output, a line each.
 */
export interface NodeConfig {
  readonly node: string;
  readonly others: readonly string[];
  readonly rank: number;
  readonly times: LeaseTimes;
  readonly coordination: CoordinationConfig;
  readonly directory: string;
  readonly definition: VirtualServerDefinition;
}

const config = JSON.parse(process.argv[2] ?? "") as NodeConfig;
const { node, others, rank, coordination, directory, definition } = config;
const { trustMs, waitMs, renewMs, callMs } = config.times;
const say = (message: object) => process.stdout.write(`${JSON.stringify(message)}\n`);

/** A store that does not answer yet is asked again, as long as anybody waits for this process. */
async function openStore(): Promise<Coordination> {
  for (;;) {
    try {
      return await openCoordination(coordination, systemClock);
    } catch (error) {
      if (!isLockstepError(error, "COORDINATION_UNREACHABLE")) throw error;
    }
  }
}

process.stdin.once("end", () => process.exit(0)).resume();
const store = await openStore();
process.stdin.removeAllListeners("end");
const host = new VirtualServerHost({
  definition,
  lease: {
    node,
    instance: `${node}.${process.pid}`,
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
  coordination: store,
  coordinationConfig: coordination,
  directory,
  factories: { ...resourceFactories, "ip-address": openFileResource },
  clock: systemClock,
  beforeOnline: () => Promise.resolve(),
  listener: {
    noted: (note) => say(note),
    failoverWanted: (resource, problem) => say({ what: "wants-failover", resource, problem }),
    changed: () => {},
  },
});
const take = () => host.wish({ kind: "take", delayMs: rank * 100, force: false });
process.stdin.on("data", (order: Buffer) => {
  if (order.toString() === "leave\n") host.wish({ kind: "leave", next: null });
  if (order.toString() === "take\n") take();
});
process.stdin.on("end", () => void host.close().then(() => process.exit(0)));
take();

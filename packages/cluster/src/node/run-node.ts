import { randomUUID } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { type Logger, realDisk, systemClock } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import { bootClock } from "../boot-clock.ts";
import type { Coordination } from "../coordination/coordination.ts";
import { openCoordination } from "../coordination/open.ts";
import { followDrills } from "../drill/drill-desk.ts";
import { examineInRounds } from "../examination/rounds.ts";
import { VirtualServerHost } from "../host/virtual-server-host.ts";
import { resourceFactories } from "../resources/registry.ts";
import { OpenBelongings } from "../settings/server-belongings.ts";
import { readClusterKey } from "./cluster-key.ts";
import { loadNodeConfig } from "./node-config.ts";
import { NodeDaemon } from "./node-daemon.ts";
import { PeerChannel } from "./peer-channel.ts";

export interface RunNodeOptions {
  readonly configFile: string;
  readonly version: string;
  readonly log: Logger;
  /** Ends the daemon: everything goes offline in order, every lease is given back. */
  readonly signal: AbortSignal;
  /** Called once, when the daemon hears and says that it is there. */
  readonly ready: (node: ReadyNode) => void;
}

export interface ReadyNode {
  readonly node: string;
  /** `host:port` at which it hears the others. */
  readonly address: string;
}

const STORE_RETRY_MS = 1_000;

/**
 * Runs the daemon of a node until it is told to end. A store that does not answer at the beginning is waited for.
 * Throws NODE_CONFIG, NODE_LISTEN_FAILED, FILE_ACCESS_FAILED, COORDINATION_REFUSED.
 */
export async function runNode({ configFile, version, log, signal, ready }: RunNodeOptions): Promise<void> {
  const config = await loadNodeConfig(configFile);
  const key = await readClusterKey(config.keyFile);
  await mkdir(config.data, { recursive: true, mode: 0o700 });
  const instance = `${config.name}-${randomUUID()}`;
  const monotonic = bootClock();
  let daemon: NodeDaemon | null = null;
  const channel = new PeerChannel({
    node: config.name,
    key,
    log,
    clock: systemClock,
    answer: () => ({
      ...{ node: config.name, instance, version },
      monotonicMs: monotonic(),
      wallMs: systemClock.now(),
    }),
    heard: (_, server, event) => daemon?.hear(server, event),
  });
  const port = await channel.listen(config.address);
  try {
    const coordination = await openWhenThere(
      () => openCoordination(config.coordination, systemClock),
      log,
      signal,
    );
    if (coordination === null) return;
    try {
      daemon = new NodeDaemon({
        ...{ node: config.name, instance, version, coordination, channel, log },
        directory: config.data,
        coordinationConfig: config.coordination,
        clock: systemClock,
        factories: resourceFactories,
        guard: config.guard,
        makeHost: (options) => new VirtualServerHost(options),
        openBelongings: (definition, directory, noted) =>
          new OpenBelongings({
            ...{ definition, directory, noted, coordination },
            node: config.name,
            disk: realDisk,
            clock: systemClock,
            pushedConfig: config.pushedConfig,
          }),
      });
      await daemon.start();
      ready({ node: config.name, address: config.address.replace(/:0$/, `:${port}`) });
      const examining = examineInRounds(
        { config, version, documents: coordination.documents, clock: systemClock, log },
        signal,
      );
      const { name: node, data: directory } = config;
      const drilling = followDrills(
        {
          ...{ node, instance, directory, log, store: coordination, coordination: config.coordination },
          clock: systemClock,
          note: (news) => daemon?.note(news),
        },
        signal,
      );
      await untilAborted(signal);
      log.info("the daemon ends: everything goes offline");
      await daemon.close();
      await Promise.all([examining, drilling]);
    } finally {
      await coordination.close();
    }
  } finally {
    await channel.close();
  }
}

/** Null: told to end before it was there. */
async function openWhenThere(
  open: () => Promise<Coordination>,
  log: Logger,
  signal: AbortSignal,
): Promise<Coordination | null> {
  let isTold = false;
  while (!signal.aborted) {
    try {
      return await open();
    } catch (error) {
      if (!isLockstepError(error, "COORDINATION_UNREACHABLE")) throw error;
      if (!isTold) log.warn("the store does not answer yet", { error });
      isTold = true;
      await systemClock.sleep(STORE_RETRY_MS, signal);
    }
  }
  return null;
}

function untilAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

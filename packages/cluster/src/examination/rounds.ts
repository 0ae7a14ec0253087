import { NODE_EXAMINATION } from "@lockstep/core";
import type { Clock, Logger } from "@lockstep/platform";
import type { Documents } from "../coordination/documents.ts";
import { ClusterDocuments } from "../documents/cluster-documents.ts";
import type { NodeConfig } from "../node/node-config.ts";
import { Refresher } from "../node/refresher.ts";
import { examineNode } from "./examine-node.ts";

const EVERY_MS = 60_000;
const RETRY_MS = 10_000;
/** Beats that do not grow within this are those of a daemon that is gone, or so slow that it would be asked in vain. */
const BEATS_MS = 2_000;

export interface RoundsOptions {
  readonly config: Pick<NodeConfig, "name" | "address" | "data" | "keyFile">;
  readonly version: string;
  readonly documents: Documents;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * The daemon's own examination of its machine, laid down where everybody can read it: once a minute, and at once when a
 * virtual server is defined or changed. Goes on until the signal is aborted; then resolves.
 */
export async function examineInRounds(options: RoundsOptions, signal: AbortSignal): Promise<void> {
  const rounds = new Refresher({
    act: () => examineOnce(options, signal),
    failed: (error) => options.log.warn("this machine could not be examined", { error }),
    everyMs: EVERY_MS,
    retryMs: RETRY_MS,
    clock: options.clock,
  });
  signal.addEventListener("abort", () => rounds.end(), { once: true });
  if (signal.aborted) return;
  const watching = options.documents.watch("server/", () => rounds.request(), signal);
  await Promise.all([rounds.run(), watching]);
}

async function examineOnce(options: RoundsOptions, signal: AbortSignal): Promise<void> {
  const { config, version, documents, clock } = options;
  const cluster = new ClusterDocuments(documents);
  const [definition, members, servers, before] = await Promise.all([
    ...([cluster.readCluster(), cluster.members(), cluster.servers(), cluster.reports()] as const),
  ]);
  await clock.sleep(BEATS_MS, signal);
  if (signal.aborted) return;
  const after = await cluster.reports();
  const up = [...after.found.values()].filter(({ node, instance, beat }) => {
    const earlier = before.found.get(node);
    return earlier !== undefined && `${earlier.instance} ${earlier.beat}` !== `${instance} ${beat}`;
  });
  const findings = await examineNode({
    ...{ node: config.name, address: config.address, version },
    ...{ dataDirectory: config.data, keyFile: config.keyFile, cluster: definition },
    ...{ members: [...members.found.values()], reports: [...after.found.values()] },
    ...{ up: new Set(up.map(({ node }) => node)), servers: [...servers.found.values()], documents, clock },
  });
  if (signal.aborted) return;
  await cluster.change({ key: `examined/${config.name}`, kind: NODE_EXAMINATION }, () => ({
    ...{ node: config.name, at: clock.now(), findings },
  }));
}

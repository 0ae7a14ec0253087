import type { Clock, Logger } from "@lockstep/platform";
import type { Coordination } from "../coordination/coordination.ts";
import type { CoordinationConfig } from "../coordination/open.ts";
import { ClusterDocuments } from "../documents/cluster-documents.ts";
import type { HostedServer, HostNote, VirtualServerHostOptions } from "../host/host-types.ts";
import { ClusterMirror } from "./cluster-mirror.ts";
import { ExitBook } from "./exit-book.ts";
import { Heartbeat } from "./heartbeat.ts";
import { HistoryLog, type HistoryNews } from "./history-log.ts";
import { HostedServers, type OpenServerBelongings } from "./hosted-servers.ts";
import type { PeerChannel } from "./peer-channel.ts";
import type { PeerLeaseEvent } from "./peer-frames.ts";
import { Steering } from "./steering.ts";

/**
 * The daemon of one node: says that it is there, sees who else is, decides what it strives for (core/cluster-decision.ts)
 * and lets its virtual servers' hosts strive for it.
 *
 * It leads nobody and follows nobody: all daemons read the same documents and come to the same order. Nothing here is
 * needed for safety; that is the lease's and the guard's. A daemon that is slow, wrong or dead costs time, not truth.
 */
export interface NodeDaemonOptions {
  readonly node: string;
  /** This life of the daemon. */
  readonly instance: string;
  readonly version: string;
  /** Private to the daemon; survives it. */
  readonly directory: string;
  readonly coordination: Coordination;
  readonly coordinationConfig: CoordinationConfig | null;
  readonly clock: Clock;
  readonly log: Logger;
  readonly factories: VirtualServerHostOptions["factories"];
  readonly guard?: VirtualServerHostOptions["guard"];
  readonly makeHost: (options: VirtualServerHostOptions) => HostedServer;
  readonly openBelongings: OpenServerBelongings;
  /** To the daemons of the other nodes. */
  readonly channel: Pick<PeerChannel, "send">;
}

const HISTORY_CLOSE_MS = 3_000;

export class NodeDaemon {
  readonly #options: NodeDaemonOptions;
  readonly #mirror: ClusterMirror;
  readonly #history: HistoryLog;
  readonly #heartbeat: Heartbeat;
  readonly #exits: ExitBook;
  readonly #servers: HostedServers;
  readonly #steering: Steering;
  #running: Promise<void> | null = null;

  constructor(options: NodeDaemonOptions) {
    this.#options = options;
    const { node, coordination, directory, channel } = options;
    const documents = new ClusterDocuments(coordination.documents);
    this.#history = new HistoryLog({ ...options, documents: coordination.documents });
    const note = this.#history.add.bind(this.#history);
    this.#mirror = new ClusterMirror({ ...options, changed: () => this.#steering.request() });
    const shared = { ...options, mirror: this.#mirror, note };
    this.#heartbeat = new Heartbeat({
      ...shared,
      documents: coordination.documents,
      servers: () => this.#servers.reports(),
      looked: () => this.#steering.request(),
    });
    this.#exits = new ExitBook({ ...shared, documents });
    this.#servers = new HostedServers({
      ...options,
      directory,
      guard: options.guard,
      listener: {
        noted: (heard) => this.#noted(heard),
        failoverWanted: (server, resource, problem, question) =>
          void this.#steering.failoverWanted(server, resource, problem, question),
        changed: () => this.#steering.request(),
        measured: (term, ms) => this.#heartbeat.measured(term, ms),
        send: (member, server, event) => {
          const address = this.#mirror.members.get(member)?.address;
          if (address !== undefined && member !== node && (event.kind === "asked" || event.kind === "agreed"))
            channel.send(address, server, event);
        },
      },
    });
    this.#steering = new Steering({
      ...shared,
      documents,
      heartbeat: this.#heartbeat,
      servers: this.#servers,
    });
  }

  /** Begins; what goes on afterwards goes on until `close`. */
  async start(): Promise<void> {
    const { version, instance } = this.#options;
    await this.#exits.begin();
    this.#history.add({
      server: null,
      token: null,
      what: "daemon-began",
      detail: `version ${version}, ${instance}`,
    });
    this.#mirror.start();
    this.#running = this.#heartbeat.run();
  }

  /** A message of another node's daemon for one of our leases. */
  hear(server: string, event: PeerLeaseEvent): void {
    this.#servers.hear(server, event);
  }

  /** Writes something down that happened beside what the daemon does itself. */
  note(news: HistoryNews): void {
    this.#history.add(news);
  }

  /** Takes everything offline in order, gives every lease back, and says goodbye. */
  async close(): Promise<void> {
    this.#steering.end();
    this.#heartbeat.end();
    await this.#running;
    // First, so that nobody waits for us when our leases become free.
    await this.#heartbeat.leave();
    await this.#servers.close();
    await this.#mirror.close();
    await this.#exits.close();
    this.#history.add({ server: null, token: null, what: "daemon-ended", detail: "everything is offline" });
    await this.#history.close(HISTORY_CLOSE_MS);
  }

  #noted({ server, token, what, detail }: HostNote): void {
    if (what !== "took") {
      this.#history.add({ server, token, what, detail });
      return;
    }
    const { node, clock } = this.#options;
    const { present, former } = this.#mirror.lease(server);
    // What stood there until we took it: the mirror may have seen our record already, or not yet.
    const before = present?.record?.token === token ? former : present;
    const owner = before?.record?.node ?? null;
    const silentMs = before === null ? 0 : clock.monotonic() - before.seenAt;
    const isLost = owner !== null && owner !== node && silentMs >= this.#waitMs(server) / 2;
    const observed =
      owner === null || before === null
        ? ""
        : `; before: ${owner} with token ${before.record?.token}, last change at revision ${before.revision}, seen ${Math.round(silentMs)} ms ago`;
    this.#history.add({ server, token, what, detail: `${detail}${observed}` });
    if (isLost) this.#exits.lost(owner, server, silentMs);
  }

  #waitMs(server: string): number {
    const { servers, cluster } = this.#mirror;
    return (servers.get(server)?.lease ?? cluster?.lease)?.waitMs ?? 0;
  }
}

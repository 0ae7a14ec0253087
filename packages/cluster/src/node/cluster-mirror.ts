import type {
  ClusterDefinition,
  ClusterMember,
  ClusterOrder,
  FailoverRecord,
  LeaseRecord,
  NodeReport,
  Observation,
  ReadinessQuestion,
  VirtualServerDefinition,
} from "@lockstep/core";
import type { Clock, Logger } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import type { Coordination } from "../coordination/coordination.ts";
import {
  CLUSTER,
  type DocumentFolder,
  FAILOVERS,
  MEMBERS,
  ORDERS,
  READINESS,
  REPORTS,
  SERVERS,
} from "../documents/addresses.ts";
import { ClusterDocuments, documentInvalid } from "../documents/cluster-documents.ts";
import { Refresher } from "./refresher.ts";

/**
 * What a daemon knows of the cluster's documents and leases, kept up to date: by the store's hints at once, and by a look
 * of its own from time to time, because a hint may never come. While the store is away, what was known last holds.
 */
export interface MirrorOptions {
  readonly coordination: Coordination;
  readonly clock: Clock;
  readonly log: Logger;
  /** Something is no longer as it was. */
  readonly changed: () => void;
}

/** One look at a lease: what stands in the store, and since when, by our own clock. */
export interface SeenLease extends Observation {
  readonly seenAt: number;
}

const LOOK_MS = 5_000;
const RETRY_MS = 500;

export class ClusterMirror {
  readonly #options: MirrorOptions;
  readonly #documents: ClusterDocuments;
  readonly #ending = new AbortController();
  readonly #refreshers: Refresher[] = [];
  readonly #tasks: Promise<void>[] = [];
  readonly #follows: (() => void)[] = [];
  readonly #broken = new Map<string, string>();
  readonly #unread = new Set<string>(["cluster"]);
  readonly #watched = new Map<string, AbortController>();
  readonly #leases = new Map<string, SeenLease>();
  readonly #former = new Map<string, SeenLease>();
  #cluster: ClusterDefinition | null = null;
  #members: ReadonlyMap<string, ClusterMember> = new Map();
  #servers: ReadonlyMap<string, VirtualServerDefinition> = new Map();
  #orders: ReadonlyMap<string, ClusterOrder> = new Map();
  #failovers: ReadonlyMap<string, FailoverRecord> = new Map();
  #readiness: ReadonlyMap<string, ReadinessQuestion> = new Map();

  constructor(options: MirrorOptions) {
    this.#options = options;
    this.#documents = new ClusterDocuments(options.coordination.documents);
    const lookAtCluster = newest(
      () => this.#documents.read(CLUSTER),
      (found) => {
        this.#cluster = found;
      },
    );
    this.#follow(CLUSTER.key, { key: CLUSTER.key }, lookAtCluster);
    const lookAtMembers = this.#followFolder(MEMBERS, (found) => {
      this.#members = found;
    });
    const lookAtServers = this.#followFolder(SERVERS, (found) => {
      this.#servers = found;
      this.#watchLeases();
    });
    const lookAtFailovers = this.#followFolder(FAILOVERS, (found) => {
      this.#failovers = found;
    });
    // Whatever was changed before somebody ordered or asked something is known when it is judged whether that can be done.
    type Numbered = ReadonlyMap<string, { readonly number: number }>;
    const lookAround = async (known: Numbered, found: Numbered) => {
      if ([...found].every(([name, { number }]) => known.get(name)?.number === number)) return;
      // A definition that cannot be read is told of by its own look, and what was known of it holds.
      const cluster = lookAtCluster().catch((error: unknown) => {
        if (!isLockstepError(error, "CLUSTER_DOCUMENT_INVALID")) throw error;
      });
      await Promise.all([cluster, lookAtMembers(), lookAtServers(), lookAtFailovers()]);
    };
    this.#followFolder(
      ORDERS,
      (found) => {
        this.#orders = found;
      },
      (found) => lookAround(this.#orders, found),
    );
    this.#followFolder(
      READINESS,
      (found) => {
        this.#readiness = found;
      },
      (found) => lookAround(this.#readiness, found),
    );
  }

  /** Begins to look. */
  start(): void {
    for (const follow of this.#follows.splice(0)) follow();
  }

  /** Whether everything was read at least once, and there is a cluster. */
  get isReady(): boolean {
    return this.#unread.size === 0 && this.#cluster !== null;
  }

  get cluster(): ClusterDefinition | null {
    return this.#cluster;
  }

  get members(): ReadonlyMap<string, ClusterMember> {
    return this.#members;
  }

  get servers(): ReadonlyMap<string, VirtualServerDefinition> {
    return this.#servers;
  }

  get orders(): ReadonlyMap<string, ClusterOrder> {
    return this.#orders;
  }

  get failovers(): ReadonlyMap<string, FailoverRecord> {
    return this.#failovers;
  }

  /** Who was asked last whether it could take a virtual server, and what it said. */
  get readiness(): ReadonlyMap<string, ReadinessQuestion> {
    return this.#readiness;
  }

  leases(): ReadonlyMap<string, LeaseRecord | null> {
    return new Map([...this.#leases].map(([name, { record }]) => [name, record]));
  }

  /** What stands in the store, and what stood there under the token before. */
  lease(name: string): { readonly present: SeenLease | null; readonly former: SeenLease | null } {
    return { present: this.#leases.get(name) ?? null, former: this.#former.get(name) ?? null };
  }

  /** All reports as they stand in the store now. Rejects while it is away. */
  async reports(): Promise<ReadonlyMap<string, NodeReport>> {
    const { found, broken } = await this.#documents.list(REPORTS);
    for (const each of broken) this.#tell(each.key, documentInvalid(each));
    return found;
  }

  /** Looks again at what somebody here has just changed. */
  refresh(): void {
    for (const refresher of this.#refreshers) refresher.request();
  }

  async close(): Promise<void> {
    this.#ending.abort();
    for (const refresher of this.#refreshers) refresher.end();
    for (const watched of this.#watched.values()) watched.abort();
    await Promise.all(this.#tasks);
  }

  /** `before`: done between reading them and taking them for what is known. Returns what looks at them. */
  #followFolder<T>(
    folder: DocumentFolder<T>,
    take: (found: ReadonlyMap<string, T>) => void,
    before: (found: ReadonlyMap<string, T>) => Promise<void> = async () => {},
  ): () => Promise<void> {
    this.#unread.add(folder.prefix);
    let known: ReadonlyMap<string, T> = new Map();
    const look = newest(
      async () => {
        const listed = await this.#documents.list(folder);
        await before(listed.found);
        return listed;
      },
      ({ found, broken }) => {
        for (const each of broken) this.#tell(each.key, documentInvalid(each));
        // One that cannot be read is not one that is gone: what was known of it last holds.
        const kept = broken.flatMap(({ key }) => {
          const name = key.slice(folder.prefix.length);
          const value = known.get(name);
          return value === undefined ? [] : [[name, value] as const];
        });
        known = new Map([...found, ...kept]);
        take(known);
      },
    );
    this.#follow(folder.prefix, folder, look);
    return look;
  }

  #follow(
    name: string,
    below: { readonly prefix: string } | { readonly key: string },
    look: () => Promise<void>,
  ): void {
    const { clock, changed } = this.#options;
    const refresher = new Refresher({
      act: async () => {
        await look();
        this.#unread.delete(name);
        changed();
      },
      failed: (error) => this.#tell(name, error),
      everyMs: LOOK_MS,
      retryMs: RETRY_MS,
      clock,
    });
    this.#refreshers.push(refresher);
    this.#follows.push(() => {
      const watching = this.#documents.watch(below, () => refresher.request(), this.#ending.signal);
      this.#tasks.push(refresher.run(), watching);
    });
  }

  #watchLeases(): void {
    for (const name of this.#servers.keys()) {
      if (this.#watched.has(name) || this.#ending.signal.aborted) continue;
      const ending = new AbortController();
      this.#watched.set(name, ending);
      this.#tasks.push(
        this.#options.coordination.watch(name, (observation) => this.#see(name, observation), ending.signal),
      );
      void this.#lookAtLease(name);
    }
    for (const [name, ending] of this.#watched) {
      if (this.#servers.has(name)) continue;
      ending.abort();
      this.#watched.delete(name);
      this.#leases.delete(name);
      this.#former.delete(name);
    }
  }

  /** A watch tells of a record; that there is none has to be looked for. */
  async #lookAtLease(name: string): Promise<void> {
    try {
      this.#see(name, await this.#options.coordination.read(name));
    } catch (error) {
      this.#tell(`lease of ${name}`, error);
      await this.#options.clock.sleep(RETRY_MS, this.#ending.signal);
      if (this.#watched.has(name) && !this.#ending.signal.aborted) await this.#lookAtLease(name);
    }
  }

  #see(name: string, observation: Observation): void {
    const before = this.#leases.get(name);
    if (before !== undefined && before.revision >= observation.revision) return;
    const seen = { ...observation, seenAt: this.#options.clock.monotonic() };
    if (before !== undefined && before.record?.token !== observation.record?.token)
      this.#former.set(name, before);
    this.#leases.set(name, seen);
    const isSame =
      before?.record?.node === observation.record?.node &&
      before?.record?.instance === observation.record?.instance &&
      before?.record?.token === observation.record?.token;
    // A renewal changes nothing that anybody decides by.
    if (before === undefined || !isSame) this.#options.changed();
  }

  /** Says each trouble once, until it is another one. */
  #tell(where: string, error: unknown): void {
    const text = String(error);
    if (this.#broken.get(where) === text) return;
    this.#broken.set(where, text);
    this.#options.log.warn("the cluster's documents could not be read", { where, error });
  }
}

/** A look that may be taken twice at once: what was asked for first and answered last is not taken. */
function newest<T>(read: () => Promise<T>, take: (found: T) => void): () => Promise<void> {
  let [begun, taken] = [0, 0];
  return async () => {
    const number = ++begun;
    const found = await read();
    if (number < taken) return;
    taken = number;
    take(found);
  };
}

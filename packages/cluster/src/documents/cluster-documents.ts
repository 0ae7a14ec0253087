import type {
  ClusterDefinition,
  ClusterMember,
  ClusterOrder,
  DocumentFault,
  FailoverRecord,
  HistoryEntry,
  NodeReport,
  VirtualServerDefinition,
} from "@lockstep/core";
import { LockstepError } from "@lockstep/protocol/wire";
import type { Documents } from "../coordination/documents.ts";
import {
  CLUSTER,
  type DocumentAddress,
  type DocumentFolder,
  FAILOVERS,
  HISTORY,
  kindOf,
  MEMBERS,
  ORDERS,
  REPORTS,
  SERVERS,
} from "./addresses.ts";

/** The documents of a folder by the name of each. One that cannot be read is named and hides no other. */
export interface Listed<T> {
  readonly found: ReadonlyMap<string, T>;
  readonly broken: readonly BrokenDocument[];
}

export interface BrokenDocument {
  readonly key: string;
  readonly faults: readonly DocumentFault[];
}

/** Who changes one document at the same moment as others tries so often. */
const TRIES = 20;

/**
 * The documents of a cluster with their types, for the daemon and for the commands. Reading throws
 * COORDINATION_UNREACHABLE, and CLUSTER_DOCUMENT_INVALID for a single document that cannot be read.
 */
export class ClusterDocuments {
  readonly #documents: Documents;

  constructor(documents: Documents) {
    this.#documents = documents;
  }

  /** The cluster's definition. Throws CLUSTER_UNKNOWN. */
  async readCluster(): Promise<ClusterDefinition> {
    const definition = await this.read(CLUSTER);
    if (definition !== null) return definition;
    throw new LockstepError("CLUSTER_UNKNOWN", "there is no cluster below this prefix of the store", {
      hint: "Compare [coordination] with that of another node, or found the cluster with `lockstep cluster init`.",
    });
  }

  members(): Promise<Listed<ClusterMember>> {
    return this.list(MEMBERS);
  }

  reports(): Promise<Listed<NodeReport>> {
    return this.list(REPORTS);
  }

  servers(): Promise<Listed<VirtualServerDefinition>> {
    return this.list(SERVERS);
  }

  orders(): Promise<Listed<ClusterOrder>> {
    return this.list(ORDERS);
  }

  failovers(): Promise<Listed<FailoverRecord>> {
    return this.list(FAILOVERS);
  }

  /** What all nodes wrote down, by time; at one time by node and number. Null: of every virtual server. */
  async history(server: string | null = null): Promise<readonly HistoryEntry[]> {
    const { found } = await this.list(HISTORY);
    return [...found.values()]
      .filter((entry) => server === null || entry.server === server)
      .sort((a, b) => a.at - b.at || (a.node < b.node ? -1 : a.node > b.node ? 1 : 0) || a.number - b.number);
  }

  /** One document, or null where there is none. */
  async read<T>(address: DocumentAddress<T>): Promise<T | null> {
    return (await this.#find(address)).value;
  }

  /** All documents of a folder, as of one moment. */
  async list<T>(folder: DocumentFolder<T>): Promise<Listed<T>> {
    const { prefix } = folder;
    const found = new Map<string, T>();
    const broken: BrokenDocument[] = [];
    for (const [key, { text }] of await this.#documents.list(prefix)) {
      const name = key.slice(prefix.length);
      const parsed = kindOf(folder, name).parse(text);
      if (parsed.ok) found.set(name, parsed.value);
      else broken.push({ key, faults: parsed.faults });
    }
    return { found, broken };
  }

  /**
   * Changes one document by compare and swap: `change` gets what is there (null: nothing) and returns what is to be there
   * (null: nothing); it is called again when somebody else was faster, and may throw to leave everything as it is. The
   * very value it was given means no change. Returns what stands there then.
   *
   * Throws CLUSTER_CHANGED when others were faster again and again, CLUSTER_DOCUMENT_INVALID, DOCUMENT_TOO_LARGE.
   */
  async change<T>(
    address: DocumentAddress<T>,
    change: (present: T | null) => NoInfer<T> | null,
  ): Promise<T | null> {
    for (let tries = 0; tries < TRIES; tries++) {
      const { value, revision } = await this.#find(address);
      const changed = change(value);
      if (changed === value) return value;
      const text = changed === null ? null : address.kind.format(changed);
      if ((await this.#documents.write(address.key, revision, text)) !== null) return changed;
    }
    throw new LockstepError("CLUSTER_CHANGED", `${address.key} is being changed by others all the time`, {
      hint: "Look at what is there now and repeat the change.",
    });
  }

  /** Removes a document that may be broken. Returns whether there was one. */
  async remove(key: string): Promise<boolean> {
    for (let tries = 0; tries < TRIES; tries++) {
      const document = await this.#documents.read(key);
      if (document === null) return false;
      if ((await this.#documents.write(key, document.revision, null)) !== null) return true;
    }
    throw new LockstepError("CLUSTER_CHANGED", `${key} is being changed by others all the time`);
  }

  /** Tells that something below may have changed, as the port does. */
  watch(
    below: { readonly prefix: string } | { readonly key: string },
    tell: () => void,
    signal: AbortSignal,
  ) {
    return this.#documents.watch("prefix" in below ? below.prefix : below.key, tell, signal);
  }

  async #find<T>({ key, kind }: DocumentAddress<T>): Promise<{ value: T | null; revision: number }> {
    const document = await this.#documents.read(key);
    if (document === null) return { value: null, revision: 0 };
    const parsed = kind.parse(document.text);
    if (parsed.ok) return { value: parsed.value, revision: document.revision };
    throw documentInvalid({ key, faults: parsed.faults });
  }
}

/** A document that cannot be read, as an error. */
export function documentInvalid({ key, faults }: BrokenDocument): LockstepError {
  return new LockstepError("CLUSTER_DOCUMENT_INVALID", `the document ${key} of the cluster cannot be read`, {
    faults: faults.map(({ at, problem }) => ({ where: at === "" ? key : `${key}: ${at}`, problem })),
    hint: "All nodes must be of versions that understand each other, and each document must stand under its own name.",
  });
}

import type { LeaseTimes } from "./lease-proof.ts";
import type { Vote } from "./lease-votes.ts";
import type { FailbackPolicy } from "./placement.ts";
import type { QuarantinePolicy } from "./placement-quarantine.ts";
import type { FailoverLimit, ResourcePhase, ResourcePolicy } from "./resource-policy.ts";

/**
 * The documents of a cluster, as they stand in the coordination store. Each is changed by compare and swap on its
 * revision, so that of two administrators one is told that the other was faster.
 *
 * Whatever a time in them says is for people: nobody waits by a time that somebody else wrote.
 */

/** What holds for the whole cluster. */
export interface ClusterDefinition {
  readonly name: string;
  /** The times of every lease that has none of its own. */
  readonly lease: LeaseTimes;
  /** Members of the store that count, and on whose machine each runs; decides whether failovers may be automatic. */
  readonly votes: readonly Vote[];
  readonly quarantine: QuarantinePolicy;
  /** What becomes of a node whose configuration files differ from the cluster's. */
  readonly configPolicy: "block" | "warn";
  /** A digest of the key that all nodes share, by which a machine sees that its copy is right; null: none is kept. */
  readonly keyDigest: string | null;
}

/** A node that belongs to the cluster, whether it is up or not. */
export interface ClusterMember {
  readonly node: string;
  /** `host:port` at which its daemon hears the others. */
  readonly address: string;
  /** Paused: keeps what it has and takes nothing; stands here so that it survives a reboot. */
  readonly isPaused: boolean;
  /** When it left without saying so, wall-clock milliseconds; quarantine counts these. */
  readonly exits: readonly number[];
  /** Until when it is kept out, wall-clock milliseconds; null: it is not. */
  readonly quarantinedUntil: number | null;
}

/** What a daemon says of its node with each beat. Others see that it is up by the beat growing, on their own clock. */
export interface NodeReport {
  readonly node: string;
  readonly instance: string;
  readonly beat: number;
  /** Version of Lockstep. */
  readonly version: string;
  /** By virtual server: the hash of its configuration file on this node; null: there is none. */
  readonly configHashes: Readonly<Record<string, string | null>>;
  /** By virtual server: software revision of the service's installation on this node; null: none. */
  readonly revisions: Readonly<Record<string, number | null>>;
  /** What the daemon found out about this machine: how long a kill and a scheduling take here at worst. */
  readonly measured: { readonly stopMs: number; readonly guardDelayMs: number; readonly callMs: number };
  readonly servers: Readonly<Record<string, ServerReport>>;
  /** Wall-clock milliseconds, for people. */
  readonly at: number;
}

/** The settings of a virtual server as one node follows or keeps them (checkpoint.ts). */
export interface SettingsReport {
  /** `idle`: this node is not the owner. `fenced`: another one is, the store said so. */
  readonly state: "idle" | "following" | "failing" | "fenced";
  /** Number of the set that was stored or laid down last; null: none yet. */
  readonly number: number | null;
  readonly files: number;
  readonly sizeBytes: number;
  /** When that was, wall-clock milliseconds, for people. */
  readonly storedAt: number | null;
  /** What is not followed, or not stored, and why. */
  readonly problems: readonly string[];
}

/** One virtual server as one node sees it. */
export interface ServerReport {
  /** Null, or not there: nothing is said of them. */
  readonly settings?: SettingsReport | null;
  /** The times of its lease that this node goes by; they may lag behind what is wanted (lease-change.ts). */
  readonly lease?: LeaseTimes | null;
  readonly role: "cleaning" | "observing" | "owner" | "fenced" | "disabled";
  readonly token: number | null;
  readonly resources: Readonly<
    Record<string, { readonly phase: ResourcePhase; readonly problem: string | null }>
  >;
}

export const RESOURCE_TYPES = [
  "ip-address",
  "network-name",
  "generic-service",
  "file-share",
  "mount",
  "ocf",
] as const;
export type ResourceType = (typeof RESOURCE_TYPES)[number];

export type ResourceSetting = string | number | boolean | readonly string[];

export interface ResourceDefinition {
  readonly name: string;
  readonly type: ResourceType;
  /** As the type wants them; each type checks its own. */
  readonly settings: Readonly<Record<string, ResourceSetting>>;
  readonly policy: ResourcePolicy;
}

/** A virtual server as administrators define it. Its name is also the queue of a job service on it. */
export interface VirtualServerDefinition {
  readonly name: string;
  /** The cluster is enabled for it; if not, its service is stopped on every node (S6). */
  readonly isEnabled: boolean;
  /** What administrators want: brought online somewhere, or offline everywhere. */
  readonly wanted: "online" | "offline";
  /** In maintenance nothing is decided: no failure counts, no failover happens, nothing is moved. */
  readonly inMaintenance: boolean;
  readonly resources: readonly ResourceDefinition[];
  /** Most preferred first; empty: no preference. */
  readonly preferredOwners: readonly string[];
  readonly antiAffinity: readonly string[];
  readonly weight: number;
  readonly failback: FailbackPolicy;
  readonly failover: FailoverLimit;
  /** Null: the cluster's. */
  readonly lease: LeaseTimes | null;
  /** Waited on top of the lease after an unclean loss, where something cannot check tokens; milliseconds. */
  readonly lockDelayMs: number;
  /** While the store is away, stay for as long as every member agrees. */
  readonly failsafe: boolean;
  /** Inside the service the machine is the virtual server (S2). */
  readonly useNetworkName: boolean;
  /** Files and directories of the service that are replicated with it, absolute; more are found by convention. */
  readonly checkpoints: readonly string[];
  /** The service's configuration file, equal on all nodes, and the hash it should have; null: none, or not pushed yet. */
  readonly config: { readonly path: string; readonly hash: string | null } | null;
}

/** What an administrator wants of one virtual server once. The newest counts; a node carries each out at most once. */
export interface ClusterOrder {
  /** One more than the order before it. */
  readonly number: number;
  /** `online`: it failed, and somebody wants it tried again at once, wherever it is. */
  readonly kind: "move" | "failover" | "online";
  /** Null: wherever it belongs. */
  readonly to: string | null;
  readonly by: string;
  /** Wall-clock milliseconds, for people. */
  readonly at: number;
}

/**
 * Before a planned move: the owner asks whether another node could take a virtual server now, and goes on serving. The
 * newest question counts. It goes through the store, because that is what whoever takes over must reach.
 */
export interface ReadinessQuestion {
  /** One more than the question before it. */
  readonly number: number;
  readonly from: string;
  readonly to: string;
  /** Null: not answered yet. `problem`: what keeps it from coming online there; null: nothing is known. */
  readonly answer: { readonly problem: string | null } | null;
}

/** One line of the history: who saw what when, and why. `at`: wall-clock milliseconds, for people. */
export interface HistoryEntry {
  readonly node: string;
  /** Grows with each entry of the node. */
  readonly number: number;
  readonly at: number;
  readonly server: string | null;
  readonly token: number | null;
  readonly what: string;
  readonly detail: string;
}

/** What the next owner must know of the failovers of a virtual server, though the former one is gone. */
export interface FailoverRecord {
  /** When it failed over because of a failure, wall-clock milliseconds, within the period of its limit. */
  readonly at: readonly number[];
  /** The number of the newest order that was carried out or given up; 0: none yet. */
  readonly lastOrder: number;
  /** The life of the daemon that claimed it, so that it knows its claim again where the answer was lost. */
  readonly claimedBy?: string | null;
}

/** The configuration file of a service as an administrator pushed it to all nodes. */
export interface PushedConfig {
  readonly path: string;
  /** SHA-256 of the text in UTF-8, lower case hexadecimal. */
  readonly hash: string;
  readonly text: string;
}

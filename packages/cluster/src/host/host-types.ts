import type {
  LeaseEvent,
  LeaseOptions,
  LeaseWish,
  ResourceType,
  ServerReport,
  VirtualServerDefinition,
} from "@lockstep/core";
import type { Clock } from "@lockstep/platform";
import type { Coordination } from "../coordination/coordination.ts";
import type { CoordinationConfig } from "../coordination/open.ts";
import type { LeaseTuning } from "../lease-driver.ts";
import type { Resource, ResourceContext } from "../resources/resource.ts";
import type { ServiceLauncher } from "./service-launcher.ts";

/** One virtual server on one node, as the node's daemon sees it. */
export interface HostedServer {
  /** Straight to the lease; held back while this node must not own (not enabled, not wanted, something still ending). */
  wish(wish: LeaseWish): void;
  /**
   * Somebody changed the definition. Policies, wishes and switches take effect at once; of the resources only those whose
   * own settings changed, came or went are touched.
   */
  define(definition: VirtualServerDefinition): void;
  /** Nodes joined or left, or a switch or the times of the lease changed. */
  tune(tuning: LeaseTuning): void;
  /**
   * Before a planned move to this node, while another still owns: everything that takes time and changes nothing. Resolves
   * to what would keep it from coming online here; null: nothing is known. Within seconds, also where something hangs.
   */
  prepare(): Promise<string | null>;
  report(): ServerReport;
  /** The fencing token to show with each act, or null: this node must not act. Asked anew each time, never kept. */
  token(): number | null;
  /** Null: every resource. */
  maintenance(resource: string | null, on: boolean): void;
  /**
   * Answers `failoverWanted`: there is nowhere to go, or it happened too often. `askAgainMs`: when the same is asked once
   * more if it has not recovered by then; null: not for this failure.
   */
  stay(askAgainMs: number | null): void;
  /** Somebody wants what failed here tried again now. What runs goes on. */
  retry(): void;
  /** Failsafe: a message of another node's daemon. */
  hear(event: LeaseEvent): void;
  /** Takes everything offline in order, gives the lease back, ends the guard. */
  close(): Promise<void>;
}

export interface VirtualServerHostOptions {
  readonly definition: VirtualServerDefinition;
  /** `lease.node` is the node, `lease.instance` this life of its daemon. */
  readonly lease: LeaseOptions;
  readonly coordination: Coordination;
  /** Where the guard gives the lease back when the daemon is gone; null: nowhere, the others wait it out. */
  readonly coordinationConfig: CoordinationConfig | null;
  /** Private to this virtual server on this node; made if missing; survives the daemon. */
  readonly directory: string;
  readonly factories: ResourceFactories;
  readonly clock: Clock;
  /**
   * After the lease was won and before anything comes online: checkpoints laid down, configuration verified. When it
   * rejects, `failoverWanted(null, …)` follows. On the critical path of every move: whatever can be done before belongs
   * elsewhere.
   */
  readonly beforeOnline: (token: number) => Promise<void>;
  /** The part of `prepare` that is not the resources': newest checkpoints fetched, configuration verified. */
  readonly prepare?: () => Promise<void>;
  /** After everything went offline in order and before the lease is given back: the last changes go to the store. */
  readonly afterOffline?: (token: number) => Promise<void>;
  readonly listener: HostListener;
  readonly guard?: GuardTuning;
}

/** One failure under one token that waits for an answer. */
export interface FailoverQuestion {
  readonly token: number;
  /** False: the term is over, somebody had it tried again, or another failure waits; an answer would be about that. */
  isOpen(): boolean;
}

export interface HostListener {
  noted(note: HostNote): void;
  /** Restarts in place are used up. Answer by another wish, or by `stay`. Null: `beforeOnline` rejected. */
  failoverWanted(resource: string | null, problem: string, question: FailoverQuestion): void;
  /** What `report` returns may differ from before. */
  changed(): void;
  /** How long something took that the times of the lease must allow for. */
  measured?(term: "guardDelayMs" | "stopMs", ms: number): void;
  /** A message for the daemon of another node; only failsafe sends any. */
  send?(member: string, event: LeaseEvent): void;
}

/** What the daemon makes an entry of its history of. */
export interface HostNote {
  readonly server: string;
  readonly token: number | null;
  readonly what: string;
  readonly detail: string;
}

/** How the guard makes sure that it runs in time. */
export interface GuardTuning {
  /** A watchdog device that resets the machine when it is not fed; null: none. One guard of a machine can have it. */
  readonly watchdog?: string | null;
  /** Real-time priority, 1 to 99; null: the ordinary scheduling class. Where that is refused it says so. */
  readonly priority?: number | null;
}

/** What a resource gets here: its context, and whoever launches services under the guard. */
export interface HostedContext extends ResourceContext {
  readonly services: ServiceLauncher;
}

export type ResourceFactories = Readonly<Partial<Record<ResourceType, (context: HostedContext) => Resource>>>;

/** One time of owning. */
export interface Term {
  readonly token: number;
  isLeaving: boolean;
  isStarted: boolean;
  /** `beforeOnline` rejected, and nobody has answered yet. */
  isHeldBack: boolean;
}

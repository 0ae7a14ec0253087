/** The words of the lease (lease.ts): what stands in the store, what a node knows, what happens to it, what it does. */

/** What stands in the store for one virtual server. Every write of it differs from every other. */
export interface LeaseRecord {
  /** The node that may serve; null: given back on purpose, nobody serves. */
  readonly node: string | null;
  /** One life of the node's daemon: a daemon that begins anew is another instance. */
  readonly instance: string;
  /** The fencing token: one more with every change of owner, never less. */
  readonly token: number;
  /**
   * Which write of the instance this is, from 1; tells a late success of ours from a stranger's. WRITTEN_BY_GUARD: none
   * of its own.
   */
  readonly write: number;
  /** In a record that was given back: the node that is to take it first. */
  readonly next: string | null;
}

/** One look at the store. `revision` differs after each write of the record; null and 0 before the first. */
export interface Observation {
  readonly record: LeaseRecord | null;
  readonly revision: number;
}

/** All times in milliseconds. lease-proof.ts says which of them fit together. */
export interface LeaseOptions {
  readonly node: string;
  readonly instance: string;
  /** The other nodes that may own this virtual server; all of them, for failsafe asks all of them. */
  readonly members: readonly string[];
  /** V: how long the owner trusts one renewal, from before it was sent. */
  readonly trustMs: number;
  /** T: how long the others wait, from when they saw it. */
  readonly waitMs: number;
  /** R: from one renewal to the next. */
  readonly renewMs: number;
  /** C: after this a call to the store counts as unanswered. */
  readonly callMs: number;
  /** How often a node that does not own looks at the store without being told to. */
  readonly pollMs: number;
  /** Waited on top of T after an owner was lost, where something cannot check tokens; not after a release. */
  readonly lockDelayMs: number;
  /** False: an owner that was lost is replaced on demand only (lease-votes.ts says when that must be so). */
  readonly automatic: boolean;
  /** While the store is away, stay for as long as every member agrees. */
  readonly failsafe: boolean;
}

/** What the node is to strive for. */
export type LeaseWish =
  /** Own it. `delayMs`: how long better candidates go first. `force`: somebody demanded a failover by hand. */
  | { readonly kind: "take"; readonly delayMs: number; readonly force: boolean }
  /** Neither take it nor give it up: maintenance. */
  | { readonly kind: "keep" }
  /** Do not own it; give it up in order, and to whom first. */
  | { readonly kind: "leave"; readonly next: string | null };

export type LostReason =
  /** No renewal succeeded in time. */
  | "deadline"
  /** The store names somebody else. */
  | "overtaken"
  /** The guard is gone, or has ended the service. */
  | "guard";

/** A call to the store that is not answered yet. There is one at most. */
export interface OpenCall {
  readonly call: number;
  readonly kind: "read" | "renew" | "take" | "give-back";
  readonly sentAt: number;
  /** What it writes. */
  readonly record: LeaseRecord | null;
}

/** A look at the store, and since when it looked like this: from when we SAW it. */
export interface Seen extends Observation {
  readonly since: number;
}

/** A renewal whose answer never came: it may have happened, or may still happen. */
export interface UnansweredRenewal {
  readonly write: number;
  readonly sentAt: number;
}

export type LeaseRole =
  /** The daemon begins: what a former life left behind must go first. */
  | { readonly kind: "cleaning" }
  | { readonly kind: "observing"; readonly seen: Seen | null; readonly pollAt: number }
  | {
      readonly kind: "owner";
      readonly token: number;
      readonly revision: number;
      /** Until when we may serve. */
      readonly deadline: number;
      readonly renewAt: number;
      readonly unanswered: readonly UnansweredRenewal[];
      readonly phase: "arming" | "starting" | "serving" | "leaving";
      readonly failsafe: FailsafeRound | null;
    }
  /** Lost. Nothing is done until the service is certainly gone, and then the store is looked at afresh. */
  | { readonly kind: "fenced"; readonly token: number; readonly reason: LostReason };

export type OwnerRole = Extract<LeaseRole, { kind: "owner" }>;

/** One question to all members, while the store does not answer. */
export interface FailsafeRound {
  readonly round: number;
  readonly sentAt: number;
  readonly agreed: readonly string[];
}

export interface LeaseState {
  readonly role: LeaseRole;
  readonly wish: LeaseWish;
  /** Since when it is to be taken: better candidates go first from then on, also where it was free long before. */
  readonly takeSince: number;
  readonly open: OpenCall | null;
  readonly calls: number;
  readonly writes: number;
  readonly rounds: number;
  /** The highest token that this life has seen. A record with a lower one: the store has forgotten who owned since. */
  readonly tokenMax: number;
  /** An owner without a store was promised that we take nothing before this. */
  readonly promisedUntil: number;
}

export type LeaseEvent =
  /** Time went by. Wanted at nextLeaseWake at the latest. */
  | { readonly kind: "tick" }
  /** What a former life of this node left (service, address, announcer) is gone. */
  | { readonly kind: "cleaned" }
  | { readonly kind: "wish"; readonly wish: LeaseWish }
  /** Answers of the store, by the number of the call. */
  | { readonly kind: "read"; readonly call: number; readonly observation: Observation }
  | { readonly kind: "swapped"; readonly call: number; readonly revision: number }
  | { readonly kind: "refused"; readonly call: number; readonly observation: Observation }
  | { readonly kind: "failed"; readonly call: number }
  /** The store's change stream told something. A hint: it may come late or never. */
  | { readonly kind: "seen"; readonly observation: Observation }
  | { readonly kind: "armed"; readonly token: number }
  | { readonly kind: "started"; readonly token: number }
  /** Service, address and announcer of this token are certainly gone. */
  | { readonly kind: "stopped"; readonly token: number }
  | { readonly kind: "guard-lost" }
  /** An owner without a store asks whether it may stay. */
  | { readonly kind: "asked"; readonly member: string; readonly token: number; readonly round: number }
  | { readonly kind: "agreed"; readonly member: string; readonly token: number; readonly round: number };

/** To be carried out in order. */
export type LeaseEffect =
  | { readonly kind: "read"; readonly call: number }
  | {
      readonly kind: "swap";
      readonly call: number;
      /** The write happens only if the record is still at this revision; 0: if there is none. */
      readonly expected: number;
      readonly record: LeaseRecord;
      /** The owner changes: the fence moves to the record's token in the same transaction. */
      readonly takes: boolean;
    }
  /** Tell the guard. Nothing of the virtual server may be touched before it has answered. */
  | { readonly kind: "arm"; readonly token: number; readonly deadline: number }
  | { readonly kind: "extend"; readonly token: number; readonly deadline: number }
  | { readonly kind: "start"; readonly token: number }
  /** Take everything offline in order; the lease goes on meanwhile. */
  | { readonly kind: "leave"; readonly token: number }
  /** End everything of this token now, whatever that breaks. */
  | { readonly kind: "stop"; readonly token: number; readonly reason: LostReason }
  | { readonly kind: "ask"; readonly round: number; readonly token: number }
  | {
      readonly kind: "agree";
      readonly member: string;
      readonly token: number;
      readonly round: number;
    }
  | { readonly kind: "note"; readonly note: LeaseNote };

/** Who saw what when, for the history. `at`: the node's own clock. */
export interface LeaseNote {
  readonly at: number;
  readonly what: "saw" | "took" | "lost" | "gave-back" | "stays-without-store" | "promised";
  readonly node: string | null;
  readonly token: number;
  readonly revision: number | null;
  readonly reason?: LostReason;
  readonly deadline?: number;
}

export interface LeaseTransition {
  readonly state: LeaseState;
  readonly effects: readonly LeaseEffect[];
}

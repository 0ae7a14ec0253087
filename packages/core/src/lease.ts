import { type LeaseDraft, look, note, swap } from "./lease-draft.ts";
import { gainOwnership, onAgreed, onOwnerAnswer, onOwnerSeen, renewIfDue } from "./lease-owner.ts";
import type {
  LeaseEffect,
  LeaseEvent,
  LeaseOptions,
  LeaseRecord,
  LeaseState,
  LeaseTransition,
  LeaseWish,
  LostReason,
  OpenCall,
  Seen,
} from "./lease-types.ts";

/**
 * The lease of one virtual server, as one node sees it.
 *
 * The problem: exactly one of several nodes may serve, although each may freeze, die, lose any message, be cut off in one
 * direction, and has a clock of its own. A node can never know that another one is dead.
 *
 * What we do:
 * - A record in a store that compares and swaps. The owner renews by writing it anew. An answer counts from the moment
 *   BEFORE the request was sent: the store may have done it at any time since.
 * - Nobody reads a time that somebody else wrote. The others start their own clock when they SEE a change, and may swap
 *   after `waitMs` without one. Silence proves nothing; that the record is still the one they saw is proven by the swap.
 * - Clocks only grow, and only their rates matter; lease-proof.ts says which times fit together.
 * - `mayServe` is asked before each act, with the time of the act. There is no flag that somebody could forget to clear.
 * - The end of the lease outranks every event. Who slept stops before it reads what came meanwhile.
 * - A guard in a process of its own (lease-guard.ts) ends the service at the deadline, also when we are frozen.
 * - The token grows with each owner. It goes with everything that the service changes outside and is refused there when
 *   it is old: the only protection when a whole machine freezes, which no inequality covers.
 * - A store that was set back tells a lower token than was seen: then T is waited, whatever it says, and the next token is
 *   above all that were seen. Who has seen none, because its daemon has just begun, cannot know.
 * - A lost owner waits until its service is certainly gone, then looks afresh. A record of its own that it does not serve
 *   under it may swap at once, because it knows that nobody serves.
 *
 * Failsafe: while the store is away an owner may ask ALL other nodes. Who agrees promises to take nothing for `waitMs`;
 * a promise is forgotten only by a restart, after which a node waits as long anyway. A majority would not do: the members
 * who agree need not be those on whose side the store comes back.
 *
 * Not promised: that somebody serves while most of the store is away.
 */
export function startLease(): LeaseState {
  return {
    role: { kind: "cleaning" },
    wish: { kind: "keep" },
    takeSince: 0,
    open: null,
    calls: 0,
    writes: 0,
    rounds: 0,
    tokenMax: 0,
    promisedUntil: Number.NEGATIVE_INFINITY,
  };
}

/**
 * Whether this node may act as the owner at this moment. To be asked before each act, with the time of that act.
 * `now`: milliseconds of the clock that drives stepLease.
 */
export function mayServe(state: LeaseState, now: number): boolean {
  const { role } = state;
  return role.kind === "owner" && role.phase !== "arming" && now < role.deadline;
}

/** The token to show outside, or null when this node may not act now. */
export function leaseToken(state: LeaseState, now: number): number | null {
  return mayServe(state, now) && state.role.kind === "owner" ? state.role.token : null;
}

/** One transition. `now`: milliseconds of a clock that only grows and that a suspended machine does not stop. */
export function stepLease(
  state: LeaseState,
  event: LeaseEvent,
  now: number,
  options: LeaseOptions,
): LeaseTransition {
  const effects: LeaseEffect[] = [];
  const draft: LeaseDraft = { state, effects, now, options };
  expire(draft);
  take(draft, event);
  giveUpCall(draft);
  proceed(draft);
  return { state: draft.state, effects };
}

/** When the next transition is due though nothing happens; null: never. */
export function nextLeaseWake(state: LeaseState, options: LeaseOptions): number | null {
  const wakes: number[] = [];
  const { role, open } = state;
  if (open !== null) wakes.push(open.sentAt + options.callMs);
  if (role.kind === "owner") {
    wakes.push(role.deadline);
    if (open === null && role.phase !== "arming") wakes.push(role.renewAt);
  }
  if (role.kind === "observing" && open === null) {
    wakes.push(role.pollAt);
    const at = takeAt(state, role.seen, options);
    if (at !== null) wakes.push(at);
  }
  const wake = Math.min(...wakes);
  return Number.isFinite(wake) ? wake : null;
}

/** Before everything else: no event may revive what has ended. */
function expire(draft: LeaseDraft): void {
  const { role } = draft.state;
  if (role.kind === "owner" && draft.now >= role.deadline) lose(draft, "deadline");
}

function lose(draft: LeaseDraft, reason: LostReason): void {
  const { role } = draft.state;
  if (role.kind !== "owner") return;
  const { token, revision, deadline } = role;
  draft.effects.push({ kind: "stop", token, reason });
  note(draft, { what: "lost", node: draft.options.node, token, revision, reason, deadline });
  draft.state = { ...draft.state, role: { kind: "fenced", token, reason }, open: null };
}

function take(draft: LeaseDraft, event: LeaseEvent): void {
  const { state } = draft;
  switch (event.kind) {
    case "tick":
      return;
    case "cleaned":
      if (state.role.kind === "cleaning") observeAfresh(draft);
      return;
    case "wish":
      draft.state = {
        ...state,
        wish: event.wish,
        takeSince: event.wish.kind === "take" && state.wish.kind !== "take" ? draft.now : state.takeSince,
      };
      return;
    case "read":
    case "swapped":
    case "refused":
    case "failed": {
      // An answer to a call that was given up says nothing that the next look would not say better.
      if (state.open?.call !== event.call) return;
      const { open } = state;
      draft.state = { ...state, open: null };
      onAnswer(draft, event, open);
      return;
    }
    case "seen":
      if (state.role.kind === "owner") {
        if (onOwnerSeen(draft, event.observation)) lose(draft, "overtaken");
      } else if (
        state.role.kind === "observing" &&
        event.observation.revision > (state.role.seen?.revision ?? 0)
      )
        look(draft, event.observation);
      return;
    case "armed":
      if (state.role.kind !== "owner" || state.role.token !== event.token || state.role.phase !== "arming")
        return;
      draft.state = { ...state, role: { ...state.role, phase: "starting" } };
      draft.effects.push({ kind: "start", token: event.token });
      return;
    case "started":
      if (state.role.kind === "owner" && state.role.token === event.token && state.role.phase === "starting")
        draft.state = { ...state, role: { ...state.role, phase: "serving" } };
      return;
    case "stopped":
      onStopped(draft, event.token);
      return;
    case "guard-lost":
      lose(draft, "guard");
      return;
    case "asked":
      onAsked(draft, event);
      return;
    case "agreed":
      onAgreed(draft, event);
      return;
  }
}

function onAnswer(
  draft: LeaseDraft,
  event: Extract<LeaseEvent, { kind: "read" | "swapped" | "refused" | "failed" }>,
  open: OpenCall,
): void {
  const { role } = draft.state;
  if (role.kind === "owner") {
    if (onOwnerAnswer(draft, event, open)) lose(draft, "overtaken");
    return;
  }
  if (role.kind !== "observing") return;
  switch (event.kind) {
    case "read":
    case "refused":
      look(draft, event.observation);
      return;
    case "failed": {
      // After a swap whose fate is unknown, look before anything else; but do not race against a store that is away.
      const pollAt = Math.max(draft.now, open.sentAt + Math.min(draft.options.callMs, draft.options.pollMs));
      draft.state = { ...draft.state, role: { ...role, pollAt } };
      return;
    }
    case "swapped":
      onSwapped(draft, event.revision, open);
      return;
  }
}

function onSwapped(draft: LeaseDraft, revision: number, { kind, record, sentAt }: OpenCall): void {
  const { role } = draft.state;
  if (role.kind !== "observing" || record === null) return;
  const { token } = record;
  if (kind === "give-back") note(draft, { what: "gave-back", node: draft.options.node, token, revision });
  // The change stream was faster, and tells of something that came after.
  if (role.seen !== null && role.seen.revision > revision) return;
  look(draft, { record, revision });
  if (kind === "give-back") return;
  const deadline = sentAt + draft.options.trustMs;
  // Too late, or promised to somebody meanwhile: the record is ours and nobody serves; it is taken again or given back.
  if (draft.now >= deadline || draft.now < draft.state.promisedUntil) return;
  gainOwnership(draft, { token, revision, deadline, sentAt });
}

/** An owner that leaves gives back; one that was lost, or whose guard ended the service, looks afresh. */
function onStopped(draft: LeaseDraft, token: number): void {
  const { role } = draft.state;
  if (role.kind === "fenced" && role.token === token) observeAfresh(draft);
  if (role.kind !== "owner" || role.token !== token) return;
  if (role.phase !== "leaving") {
    lose(draft, "guard");
    observeAfresh(draft);
  } else {
    const { node, instance } = draft.options;
    const record: LeaseRecord = { node, instance, token, write: draft.state.writes, next: null };
    // A renewal may still be on its way; then the release is refused, shows where we are, and is sent again.
    draft.state = {
      ...draft.state,
      open: null,
      role: {
        kind: "observing",
        seen: { record, revision: role.revision, since: draft.now },
        pollAt: draft.now + draft.options.pollMs,
      },
    };
  }
}

function observeAfresh(draft: LeaseDraft): void {
  draft.state = {
    ...draft.state,
    open: null,
    role: { kind: "observing", seen: null, pollAt: draft.now },
  };
}

function onAsked(draft: LeaseDraft, asked: Extract<LeaseEvent, { kind: "asked" }>): void {
  const { state, options, now } = draft;
  if (!options.failsafe || state.role.kind === "owner" || state.open?.kind === "take") return;
  const seen = state.role.kind === "observing" ? state.role.seen : null;
  const record = seen?.record ?? null;
  if (record !== null && record.token > asked.token) return;
  if (record !== null && record.token === asked.token && record.node !== asked.member) return;
  const promisedUntil = Math.max(state.promisedUntil, now + options.waitMs);
  draft.state = { ...state, promisedUntil };
  draft.effects.push({ kind: "agree", member: asked.member, token: asked.token, round: asked.round });
  note(draft, { what: "promised", node: asked.member, token: asked.token, revision: seen?.revision ?? null });
}

function giveUpCall(draft: LeaseDraft): void {
  const { open } = draft.state;
  if (open === null || draft.now < open.sentAt + draft.options.callMs) return;
  draft.state = { ...draft.state, open: null };
  onAnswer(draft, { kind: "failed", call: open.call }, open);
}

/** Does what is due. */
function proceed(draft: LeaseDraft): void {
  const { state, now } = draft;
  if (state.role.kind === "owner") {
    leaveIfWished(draft);
    renewIfDue(draft);
    return;
  }
  if (state.role.kind !== "observing" || state.open !== null) return;
  const { seen, pollAt } = state.role;
  const at = takeAt(state, seen, draft.options);
  if (seen !== null && at !== null && now >= at) takeFrom(draft, seen);
  else if (seen !== null && isToBeGivenBack(state, seen, draft.options, now)) giveBack(draft, seen);
  else if (now >= pollAt) {
    const call = state.calls + 1;
    draft.state = {
      ...state,
      calls: call,
      open: { call, kind: "read", sentAt: now, record: null },
      role: { ...state.role, pollAt: now + draft.options.pollMs },
    };
    draft.effects.push({ kind: "read", call });
  }
}

function leaveIfWished(draft: LeaseDraft): void {
  const { role, wish } = draft.state;
  if (role.kind !== "owner" || wish.kind !== "leave" || role.phase === "leaving") return;
  draft.state = { ...draft.state, role: { ...role, phase: "leaving" } };
  draft.effects.push({ kind: "leave", token: role.token });
}

const isOurs = (record: LeaseRecord, { instance }: LeaseOptions) =>
  record.node !== null && record.instance === instance;

/** A record of ours that we do not serve under and do not want. */
const isToBeGivenBack = (state: LeaseState, seen: Seen, options: LeaseOptions, now: number) =>
  seen.record !== null &&
  isOurs(seen.record, options) &&
  state.wish.kind !== "take" &&
  (!isForgetful(seen, state) || now >= seen.since + options.waitMs);

/**
 * The store was set back: restored from a backup, or a database of which a replica took over that lagged behind. What it
 * says of the owner is of then; whoever owned last may still serve, and learns of it by its next renewal at the latest.
 */
const isForgetful = ({ record }: Seen, { tokenMax }: LeaseState) => (record?.token ?? 0) < tokenMax;

/** When this node may swap itself in, by its own clock; null: not as things stand. */
function takeAt(state: LeaseState, seen: Seen | null, options: LeaseOptions): number | null {
  if (seen === null || state.wish.kind !== "take") return null;
  const at = freeAt(seen, state.wish, state.takeSince, options);
  const { waitMs, lockDelayMs } = options;
  const since = isForgetful(seen, state) ? seen.since + waitMs + lockDelayMs : Number.NEGATIVE_INFINITY;
  return Math.max(state.promisedUntil, at, since);
}

function freeAt(
  { record, since }: Seen,
  { delayMs, force }: Extract<LeaseWish, { kind: "take" }>,
  takeSince: number,
  options: LeaseOptions,
): number {
  // One that nobody has been wanting is free for all at the same moment: the better candidates still go first.
  if (record === null) return Math.max(since, takeSince) + delayMs;
  if (isOurs(record, options)) return since;
  if (record.node === null) {
    if (record.next === options.node) return since;
    return record.next === null ? Math.max(since, takeSince) + delayMs : since + options.waitMs + delayMs;
  }
  if (!options.automatic && !force) return Number.POSITIVE_INFINITY;
  return since + options.waitMs + options.lockDelayMs + delayMs;
}

function takeFrom(draft: LeaseDraft, { record, revision }: Seen): void {
  const { node, instance } = draft.options;
  // Above whatever was given, also where the store has forgotten it.
  const token = Math.max(record?.token ?? 0, draft.state.tokenMax) + 1;
  swap(draft, "take", revision, { node, instance, token, write: draft.state.writes + 1, next: null });
}

function giveBack(draft: LeaseDraft, { record, revision }: Seen): void {
  const { wish, writes } = draft.state;
  const next = wish.kind === "leave" ? wish.next : null;
  const token = record?.token ?? 0;
  swap(draft, "give-back", revision, {
    node: null,
    instance: draft.options.instance,
    token,
    write: writes + 1,
    next,
  });
}

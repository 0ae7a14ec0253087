import { type LeaseDraft, note, swap } from "./lease-draft.ts";
import type { LeaseEvent, Observation, OpenCall, OwnerRole } from "./lease-types.ts";

/** What an owner does with its lease: renew it, learn what became of a renewal, ask the members while the store is away. */

export function gainOwnership(
  draft: LeaseDraft,
  gained: {
    readonly token: number;
    readonly revision: number;
    readonly deadline: number;
    readonly sentAt: number;
  },
): void {
  const { token, revision, deadline, sentAt } = gained;
  draft.state = {
    ...draft.state,
    role: {
      kind: "owner",
      token,
      revision,
      deadline,
      renewAt: sentAt + draft.options.renewMs,
      unanswered: [],
      phase: "arming",
      failsafe: null,
    },
  };
  note(draft, { what: "took", node: draft.options.node, token, revision, deadline });
  draft.effects.push({ kind: "arm", token, deadline });
}

export function renewIfDue(draft: LeaseDraft): void {
  const { role, open, writes } = draft.state;
  if (role.kind !== "owner" || open !== null || draft.now < role.renewAt) return;
  // An owner whose guard does not answer lets its lease end rather than keep others from serving.
  if (role.phase === "arming") return;
  const { node, instance, renewMs } = draft.options;
  const write = writes + 1;
  draft.state = {
    ...draft.state,
    role: {
      ...role,
      renewAt: draft.now + renewMs,
      unanswered: [...role.unanswered, { write, sentAt: draft.now }],
    },
  };
  swap(draft, "renew", role.revision, { node, instance, token: role.token, write, next: null });
}

/** Returns whether somebody else owns by now. */
export function onOwnerAnswer(
  draft: LeaseDraft,
  event: Extract<LeaseEvent, { kind: "read" | "swapped" | "refused" | "failed" }>,
  open: OpenCall,
): boolean {
  const { role } = draft.state;
  if (role.kind !== "owner") return false;
  switch (event.kind) {
    case "read":
      return false;
    case "swapped":
      renewed(draft, role, event.revision, open.sentAt);
      return false;
    case "refused":
      return onRefused(draft, role, event.observation);
    case "failed": {
      const { callMs, renewMs } = draft.options;
      const renewAt = Math.max(draft.now, open.sentAt + Math.min(callMs, renewMs));
      draft.state = { ...draft.state, role: { ...role, renewAt } };
      askMembers(draft);
      return false;
    }
  }
}

/** A renewal whose answer was lost may have changed the revision; then the record is still ours. */
function onRefused(draft: LeaseDraft, role: OwnerRole, { record, revision }: Observation): boolean {
  if (record === null || record.node === null || record.instance !== draft.options.instance) return true;
  if (record.token !== role.token) return true;
  const ours = role.unanswered.find(({ write }) => write === record.write);
  // Counts from when that one was sent, not from when we learned of it.
  renewed(draft, role, revision, ours?.sentAt ?? Number.NEGATIVE_INFINITY);
  if (draft.state.role.kind === "owner")
    draft.state = { ...draft.state, role: { ...draft.state.role, renewAt: draft.now } };
  return false;
}

function renewed(draft: LeaseDraft, role: OwnerRole, revision: number, sentAt: number): void {
  draft.state = {
    ...draft.state,
    // Renewals that are still on their way expect an older revision and can no longer happen.
    role: { ...role, revision, unanswered: [], failsafe: null },
  };
  extend(draft, sentAt + draft.options.trustMs);
}

function extend(draft: LeaseDraft, deadline: number): void {
  const { role } = draft.state;
  if (role.kind !== "owner" || deadline <= role.deadline) return;
  draft.state = { ...draft.state, role: { ...role, deadline } };
  draft.effects.push({ kind: "extend", token: role.token, deadline });
}

/** The change stream: whether it shows that somebody else owns, or that our guard gave the lease back. */
export function onOwnerSeen(draft: LeaseDraft, { record, revision }: Observation): boolean {
  const { role } = draft.state;
  if (role.kind !== "owner" || record === null || revision <= role.revision) return false;
  return record.node === null || record.instance !== draft.options.instance || record.token !== role.token;
}

function askMembers(draft: LeaseDraft): void {
  const { role, rounds } = draft.state;
  if (role.kind !== "owner" || !draft.options.failsafe || draft.options.members.length === 0) return;
  const round = rounds + 1;
  draft.state = {
    ...draft.state,
    rounds: round,
    role: { ...role, failsafe: { round, sentAt: draft.now, agreed: [] } },
  };
  draft.effects.push({ kind: "ask", round, token: role.token });
}

/** One member agreed. When all have, the owner may stay as long as after a renewal sent when it asked. */
export function onAgreed(draft: LeaseDraft, event: Extract<LeaseEvent, { kind: "agreed" }>): void {
  const { role } = draft.state;
  if (role.kind !== "owner" || role.token !== event.token || role.failsafe?.round !== event.round) return;
  const agreed = role.failsafe.agreed.includes(event.member)
    ? role.failsafe.agreed
    : [...role.failsafe.agreed, event.member];
  const isAgreed = draft.options.members.every((member) => agreed.includes(member));
  const failsafe = isAgreed ? null : { ...role.failsafe, agreed };
  draft.state = { ...draft.state, role: { ...role, failsafe } };
  if (!isAgreed) return;
  const { token, revision } = role;
  extend(draft, role.failsafe.sentAt + draft.options.trustMs);
  note(draft, { what: "stays-without-store", node: draft.options.node, token, revision });
}

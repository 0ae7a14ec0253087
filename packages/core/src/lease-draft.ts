import type {
  LeaseEffect,
  LeaseNote,
  LeaseOptions,
  LeaseRecord,
  LeaseState,
  Observation,
} from "./lease-types.ts";

/** One transition of the lease while it is made. */
export interface LeaseDraft {
  state: LeaseState;
  readonly effects: LeaseEffect[];
  readonly now: number;
  readonly options: LeaseOptions;
}

export function note(draft: LeaseDraft, what: Omit<LeaseNote, "at">): void {
  draft.effects.push({ kind: "note", note: { at: draft.now, ...what } });
}

/** A node that does not own takes in what stands in the store. Its clock starts when this differs from before. */
export function look(draft: LeaseDraft, observation: Observation): void {
  const { role } = draft.state;
  if (role.kind !== "observing" || (role.seen !== null && isSameLook(role.seen, observation))) return;
  const { record, revision } = observation;
  const before = role.seen?.record ?? null;
  if (record !== null && (record.token !== before?.token || record.node !== before.node))
    note(draft, { what: "saw", node: record.node, token: record.token, revision });
  draft.state = {
    ...draft.state,
    tokenMax: Math.max(draft.state.tokenMax, record?.token ?? 0),
    role: { ...role, seen: { ...observation, since: draft.now } },
  };
}

/** A store that was set back may give a revision twice. */
const isSameLook = (a: Observation, b: Observation) =>
  a.revision === b.revision &&
  a.record?.instance === b.record?.instance &&
  a.record?.token === b.record?.token &&
  a.record?.write === b.record?.write;

/** Sends a write; there is never more than one call open. */
export function swap(
  draft: LeaseDraft,
  kind: "renew" | "take" | "give-back",
  expected: number,
  record: LeaseRecord,
): void {
  const call = draft.state.calls + 1;
  draft.state = {
    ...draft.state,
    calls: call,
    writes: record.write,
    open: { call, kind, sentAt: draft.now, record },
  };
  draft.effects.push({ kind: "swap", call, expected, record, takes: kind === "take" });
}

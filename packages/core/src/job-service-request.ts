import { change, type Draft, usedSlots } from "./job-service-draft.ts";
import type {
  Held,
  OpenRequest,
  ServiceQueue,
  ServiceQueueOptions,
  ServiceRequest,
  SlotCount,
} from "./job-service-types.ts";

/**
 * When the next exchange leaves, and what it says.
 *
 * At most two are open at once: one that waits at the hub for steps, and one that has something to say. The second makes
 * the hub end the first. While the second is under way, whatever piles up goes together in the next one: under load the
 * batches grow by themselves, and without load a result travels alone and at once.
 */
const RESULTS_MAX = 1000;
const RESULT_BYTES_MAX = 512 * 1024;
const WANT_MAX = 1000;
const WAIT_MS_MAX = 30_000;
/** How long the hub may take to answer what it can answer at once. */
const ANSWER_MS_MIN = 5000;

const LEASE_MARGIN_SHARE = 15;
const LEASE_MARGIN_MS_MAX = 2000;

/** So long before the end of the lease work stops: the time that stopping takes, and clocks that run differently. */
export function leaseMarginMs(leaseMs: number): number {
  return Math.min(LEASE_MARGIN_MS_MAX, Math.ceil(leaseMs / LEASE_MARGIN_SHARE));
}

/** Sends the next request where there is one to be sent now. */
export function sendNext(draft: Draft, now: number, options: ServiceQueueOptions): void {
  const { state } = draft;
  if (state.replaced || (state.away !== null && state.away.retryAt !== null)) return;
  if (state.open.some(({ waitMs }) => waitMs === 0)) return;
  const all = [...draft.held.values()];
  const results = takeResults(all);
  const urgent =
    results.length > 0 ||
    state.speakUp ||
    !state.heard ||
    all.some(({ stage, startSaid }) => stage === "confirming" && startSaid === null);
  if (!urgent && (state.open.length > 0 || (state.hollow !== null && now < state.hollow.restUntil))) return;
  const started = all.filter(
    ({ stage, startSaid }) => (stage === "confirming" || stage === "running") && startSaid === null,
  );
  const sequence = state.sequence + 1;
  const waitMs = urgent ? 0 : chooseWait(state, all, options);
  const answerMs = Math.max(ANSWER_MS_MIN, Math.floor(state.leaseMs / 3));
  const margin = leaseMarginMs(state.leaseMs);
  const request: OpenRequest = {
    sequence,
    sentAt: now,
    // What an answer grants counts from now, so one that comes after the lease grants nothing.
    giveUpAt: now + Math.min(waitMs + answerMs, Math.max(state.leaseMs - margin, 1)),
    waitMs,
    // Work that is being stopped may still do something, so its claim is not given away yet.
    holding: [...draft.held.keys(), ...draft.stopping.keys()],
    started: started.map(({ claim }) => claim),
    results: results.map(({ claim }) => claim),
    want: chooseWant(draft, options),
  };
  state.sequence = sequence;
  state.speakUp = false;
  state.open = [...state.open, request];
  for (const held of started) change(draft, held, { startSaid: sequence });
  for (const held of results) change(draft, held, { resultIn: sequence });
  const message: ServiceRequest = {
    sequence,
    answered: answeredUpTo(state.open),
    holding: request.holding,
    started: request.started,
    results: results.flatMap(({ result }) => (result === null ? [] : [result])),
    want: request.want,
    waitMs,
    giveUpAt: request.giveUpAt,
  };
  draft.effects.push({ kind: "send", request: message });
}

/** Everything before the oldest open request was answered or given up; answers of those will not be listened to. */
function answeredUpTo(open: readonly OpenRequest[]): number {
  return Math.min(...open.map(({ sequence }) => sequence)) - 1;
}

function takeResults(all: readonly Held[]): Held[] {
  const taken: Held[] = [];
  let bytes = 0;
  for (const held of all) {
    if (held.stage !== "ended" || held.resultIn !== null) continue;
    bytes += held.resultBytes;
    if (taken.length === RESULTS_MAX || (taken.length > 0 && bytes > RESULT_BYTES_MAX)) break;
    taken.push(held);
  }
  return taken;
}

/** With work in hand there must be time for a second try before the lease ends. */
function chooseWait(
  state: Pick<ServiceQueue, "leaseMs">,
  all: readonly Held[],
  options: ServiceQueueOptions,
): number {
  const share = all.some(({ stage }) => stage !== "ended") ? 3 : 2;
  return Math.max(1, Math.min(WAIT_MS_MAX, options.requestIntervalMs, Math.floor(state.leaseMs / share)));
}

/**
 * How many more steps can be taken: the free slots, and some that lie ready when one ends: as many again, more where
 * steps are so short that the slots ran dry between two answers. Requests that are open may still bring what they asked
 * for.
 */
function chooseWant(draft: Draft, options: ServiceQueueOptions): SlotCount {
  const { state } = draft;
  if (state.drain !== null || state.journalRetryAt !== null || !state.heard)
    return { internal: 0, external: 0 };
  const taken = { ...usedSlots({ held: draft.held, stopping: draft.stopping }) };
  for (const { stage, step } of draft.held.values())
    if (stage === "queued" && step !== null) taken[step.execution] += 1;
  let room = options.resultQueueLimit - draft.held.size;
  let asked = 0;
  for (const { want } of state.open) {
    taken.internal += want.internal;
    taken.external += want.external;
    asked += want.internal;
    room -= want.internal + want.external;
  }
  const { slots } = options;
  const wished = {
    internal: slots.internal === 0 ? 0 : Math.max(slots.internal, state.ahead.internal),
    external: slots.external === 0 ? 0 : Math.max(slots.external, state.ahead.external),
  };
  const share = Math.min(1, options.requestQueueLimit / Math.max(1, wished.internal + wished.external));
  const capacity = (kind: keyof SlotCount) => {
    const all = slots[kind] + Math.floor(wished[kind] * share);
    return Math.max(0, Math.min(all - taken[kind], WANT_MAX));
  };
  const want = shareRoom(
    { internal: capacity("internal"), external: capacity("external") },
    room,
    state.sequence,
  );
  // An update step comes alone, and must find a way in past steps that take long.
  return state.updating && asked === 0 ? { ...want, internal: Math.max(1, want.internal) } : want;
}

/** Where there is not room for both kinds, neither may starve the other, not even when there is room for one step. */
function shareRoom(want: SlotCount, room: number, turn: number): SlotCount {
  if (want.internal + want.external <= room) return want;
  const half = Math.max(0, turn % 2 === 0 ? Math.ceil(room / 2) : Math.floor(room / 2));
  const internal = Math.min(want.internal, Math.max(half, room - want.external));
  return { internal, external: Math.max(0, Math.min(want.external, room - internal)) };
}

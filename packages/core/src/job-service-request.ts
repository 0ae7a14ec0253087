import { change, type Draft, usedSlots } from "./job-service-draft.ts";
import type {
  Held,
  OpenRequest,
  ServiceQueueOptions,
  ServiceRequest,
  SlotCount,
} from "./job-service-types.ts";

/**
 * When the next exchange leaves, and what it says.
 *
 * Usually at most two are open at once: one that waits at the hub for steps, and one that has something to say. The second
 * makes the hub end the first. While the second is under way, whatever piles up goes together in the next one: under load
 * the batches grow by themselves, and without load a result travels alone and at once. Where many have piled up, the next
 * one leaves before the answer is there: the hub reads it while the database is at work on the one before.
 */
const RESULTS_MAX = 1000;
const RESULT_BYTES_MAX = 512 * 1024;
const WANT_MAX = 1000;
const WAIT_MS_MAX = 30_000;
/** Requests with something to say that are open at once, and how many results make the second one worth its while. */
const TELLING_MAX = 2;
const MANY_RESULTS = 250;
/**
 * Steps that began later than this go untold in a request with results: most of them are over before the next one, and
 * each start that is told is one more change of a row in the database. The request that waits tells all.
 */
const START_UNTOLD_MS = 50;
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
  let told = 0;
  for (const { waitMs } of state.open) if (waitMs === 0) told += 1;
  if (told >= TELLING_MAX || (told > 0 && draft.held.untold.size < MANY_RESULTS)) return;
  const results = takeResults(draft.held.untold.values());
  const beginning = [...draft.held.in("confirming").values(), ...draft.held.in("running").values()];
  const urgent =
    results.length > 0 ||
    state.speakUp ||
    !state.heard ||
    beginning.some(({ stage, startSaid }) => stage === "confirming" && startSaid === null);
  if (!urgent && (state.open.length > 0 || (state.hollow !== null && now < state.hollow.restUntil))) return;
  const waitMs = urgent ? 0 : chooseWait(draft, options);
  const isToBeTold = ({ stage, begunAt }: Held) =>
    waitMs > 0 || stage === "confirming" || now - begunAt >= START_UNTOLD_MS;
  const started = beginning.filter((held) => held.startSaid === null && isToBeTold(held));
  const sequence = state.sequence + 1;
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

function takeResults(untold: Iterable<Held>): Held[] {
  const taken: Held[] = [];
  let bytes = 0;
  for (const held of untold) {
    bytes += held.resultBytes;
    if (taken.length === RESULTS_MAX || (taken.length > 0 && bytes > RESULT_BYTES_MAX)) break;
    taken.push(held);
  }
  return taken;
}

/** With work in hand there must be time for a second try before the lease ends. */
function chooseWait({ state, held }: Draft, options: ServiceQueueOptions): number {
  const share = held.size > held.in("ended").size ? 3 : 2;
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
  for (const { step } of draft.held.in("queued").values()) if (step !== null) taken[step.execution] += 1;
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

import { change, type Draft, drop, giveBack, giveUp, openDraft, usedSlots } from "./job-service-draft.ts";
import { HeldClaims, heldClaims, UPDATE_COMPONENT } from "./job-service-held.ts";
import { leaseMarginMs, sendNext } from "./job-service-request.ts";
import type {
  Drain,
  Held,
  OpenRequest,
  ServiceAnswer,
  ServiceEvent,
  ServiceQueue,
  ServiceQueueOptions,
  ServiceResult,
  ServiceStep,
  ServiceTransition,
} from "./job-service-types.ts";

export { heldClaims, UPDATE_COMPONENT } from "./job-service-held.ts";

/**
 * One queue of a job service: what it says to the hub, what it works on, and when it must stop.
 *
 * The problem: requests and answers get lost, come late, twice and out of order; the service dies, or freezes and wakes
 * up much later; and all the while no step may be lost, none may run under a claim that has ended, and one that must not
 * run twice must not.
 *
 * What we do:
 * - Requests are numbered. Each says up to which number we still listen (`answered`), so the hub knows which of the
 *   claims that it gave never arrived. An answer to a request that we have given up is not looked at, because the hub may
 *   have given its steps away since.
 * - Each claim has its own lease, counted from the SENDING of the newest request that listed it and was answered. A
 *   lease of the whole service would not do: an answer that renews it says nothing about a claim that was on its way to
 *   us when the request left.
 * - The end of a lease outranks every event. Whoever was frozen stops its work before it reads anything.
 * - A step that must not run twice begins only when the hub has confirmed that it knows of the start. Until then its
 *   claim can still be given back or lost without harm.
 * - A result is kept until the hub says what became of it; when that takes long, it is written down first.
 *
 * Not promised: that a step runs once. The hub gives one out again when its service dies, and the fencing number of the
 * claim sees to it that only one result counts.
 */
const LEASE_MS_GUESS = 30_000;
const BACK_OFF_FIRST_MS = 250;
const BACK_OFF_MS_MAX = 15_000;
const RETRY_AFTER_MS_MAX = 10 * 60_000;
const RETRY_AFTER_SPREAD = 0.1;
const JOURNAL_RETRY_MS = 5000;
const HOLLOW_MS = 1000;
const REST_FIRST_MS = 20;
const REST_MS_MAX = 5000;
const AHEAD_MAX = 1000;
/** By a few times, so that few round trips are made on the way to what is right. */
const AHEAD_GROWTH = 4;
/** A fetched step that has waited longer than this was fetched too early: another time it stays with the hub. */
const AHEAD_WAIT_MS = 500;

/** A queue that begins, with the results that a former run of the service left behind. */
export function startServiceQueue(left: readonly ServiceResult[]): ServiceQueue {
  const held = new HeldClaims(left.map(leftover));
  return {
    sequence: 0,
    heard: false,
    leaseMs: LEASE_MS_GUESS,
    open: [],
    held,
    stopping: new Map(),
    drain: null,
    away: null,
    hollow: null,
    ahead: { internal: 0, external: 0 },
    journalRetryAt: null,
    updating: false,
    replaced: false,
    speakUp: false,
  };
}

function leftover(result: ServiceResult): Held {
  return {
    claim: result.claim,
    id: result.step,
    step: null,
    stage: "ended",
    leaseUntil: 0,
    startSaid: "known",
    result,
    resultBytes: JSON.stringify(result).length,
    resultIn: null,
    endedAt: 0,
    arrivedAt: 0,
    begunAt: 0,
    journal: "safe",
    givingBack: false,
  };
}

/**
 * One transition. The former state is used up: its claims are changed where they are. `now`: milliseconds of a clock
 * that only grows and that a suspended machine does not stop.
 */
export function stepServiceQueue(
  state: ServiceQueue,
  event: ServiceEvent,
  now: number,
  options: ServiceQueueOptions,
): ServiceTransition {
  const draft = openDraft(state);
  expire(draft, now);
  take(draft, event, now);
  drainFurther(draft, now);
  beginSteps(draft, now, options);
  writeDown(draft, now, options);
  sendNext(draft, now, options);
  tellDrained(draft);
  return { state: draft.state, effects: draft.effects };
}

/**
 * When a worker process ends by itself, by the same clock: after the service had its chance to end it, and before the
 * lease is over. It is what ends the work of a service that is frozen.
 */
export function workerDeadline(state: ServiceQueue, held: Held): number {
  return held.leaseUntil - leaseMarginMs(state.leaseMs) / 2;
}

/** When the next transition is due though nothing happens; null: never. */
export function nextServiceWake(state: ServiceQueue, options: ServiceQueueOptions): number | null {
  const claims = heldClaims(state);
  let wake = claims.leaseFloor - leaseMarginMs(state.leaseMs);
  if (state.journalRetryAt === null) wake = Math.min(wake, claims.firstUnwrittenAt + options.journalDelayMs);
  for (const { giveUpAt } of state.open) wake = Math.min(wake, giveUpAt);
  if (!state.replaced) wake = Math.min(wake, state.away?.retryAt ?? wake);
  if (state.journalRetryAt !== null) wake = Math.min(wake, state.journalRetryAt);
  if (state.hollow !== null && state.open.length === 0 && state.away === null && !state.replaced)
    wake = Math.min(wake, state.hollow.restUntil);
  const { drain } = state;
  if (drain !== null && [...claims.in("running").values()].some((held) => isToBeStopped(held, drain)))
    wake = Math.min(wake, drain.limitAt);
  return Number.isFinite(wake) ? wake : null;
}

/** At the limit of a drain. A step that must not run twice is not cut short for an update. */
const isToBeStopped = (held: Held, drain: Drain) =>
  held.stage === "running" &&
  !held.givingBack &&
  !isUpdate(held) &&
  (drain.for === "stop" || held.step?.onCrash === "rerun");

const isUpdate = ({ step }: Held) => step?.component === UPDATE_COMPONENT;

function expire(draft: Draft, now: number): void {
  const { away } = draft.state;
  if (away !== null && away.retryAt !== null && now >= away.retryAt)
    draft.state.away = { ...away, retryAt: null };
  const margin = leaseMarginMs(draft.state.leaseMs);
  if (now >= draft.held.leaseFloor - margin && now >= draft.held.findLeaseFloor() - margin)
    for (const held of [...draft.held.values()])
      if (held.stage !== "ended" && now >= held.leaseUntil - margin) {
        // The hub may know of the start, and only we know that it never came to it.
        if (held.stage === "confirming") giveBack(draft, held, now, "not begun, because the hub was away");
        else drop(draft, held, "lease");
      }
  for (const request of draft.state.open)
    if (now >= request.giveUpAt) {
      giveUp(draft, request);
      draft.effects.push({ kind: "cancel", sequence: request.sequence });
      backOff(draft, now, null, 0.5);
    }
}

function take(draft: Draft, event: ServiceEvent, now: number): void {
  const { state } = draft;
  switch (event.kind) {
    case "tick":
      return;
    case "answer": {
      const request = state.open.find(({ sequence }) => sequence === event.sequence);
      if (request !== undefined) takeAnswer(draft, request, event.answer, now);
      return;
    }
    case "failed": {
      const request = state.open.find(({ sequence }) => sequence === event.sequence);
      if (request === undefined) return;
      giveUp(draft, request);
      if (event.reason === "away") backOff(draft, now, event.retryAfterMs, event.random);
      else if (event.reason === "replaced") takeReplaced(draft);
      return;
    }
    case "ended":
      takeEnd(draft, event, now);
      return;
    case "journalled":
      state.journalRetryAt = null;
      for (const held of find(draft, event.claims)) change(draft, held, { journal: "safe" });
      return;
    case "journal-failed":
      state.journalRetryAt = now + JOURNAL_RETRY_MS;
      for (const held of find(draft, event.claims)) change(draft, held, { journal: "none" });
      return;
    case "drain": {
      // A stop outranks an update; told twice, the earlier limit holds.
      const limitAt = Math.min(now + event.limitMs, state.drain?.limitAt ?? Number.POSITIVE_INFINITY);
      if (state.drain?.for === "stop") return;
      state.drain = { for: event.for, limitAt, done: false };
      state.speakUp = true;
      return;
    }
    case "resume":
      if (state.drain?.for !== "update") return;
      state.drain = null;
      state.speakUp = true;
      return;
  }
}

function find(draft: Draft, claims: readonly number[]): Held[] {
  return claims.flatMap((claim) => draft.held.get(claim) ?? []);
}

function takeAnswer(draft: Draft, request: OpenRequest, answer: ServiceAnswer, now: number): void {
  const { state } = draft;
  // Whatever the answer does not speak of was not heard.
  giveUp(draft, request);
  state.heard = true;
  state.away = null;
  state.leaseMs = answer.leaseMs;
  state.updating = answer.updating;
  restAfter(state, request, answer, now);
  const written: number[] = [];
  for (const { claim } of answer.results) {
    const held = draft.held.get(claim);
    if (held?.stage !== "ended") continue;
    draft.held.delete(claim);
    if (held.journal !== "none") written.push(claim);
  }
  // In one go: each is a line in a file.
  if (written.length > 0) draft.effects.push({ kind: "forget", claims: written });
  const confirmed = new Set(answer.confirmed);
  const lost = new Set(answer.lost);
  for (const claim of request.started)
    if (!confirmed.has(claim) && draft.held.get(claim)?.stage !== "ended") lost.add(claim);
  // A result on its way in another request gets its own verdict.
  for (const held of find(draft, [...lost])) if (held.resultIn === null) drop(draft, held, "lost");
  const leaseUntil = request.sentAt + answer.leaseMs;
  for (const claim of request.holding) {
    const held = draft.held.get(claim);
    if (held === undefined) continue;
    draft.held.renew(held, leaseUntil);
    if (confirmed.size > 0 && confirmed.has(claim)) change(draft, held, { startSaid: "known" });
  }
  if (now >= leaseUntil - leaseMarginMs(answer.leaseMs)) return;
  fetchFurtherAhead(draft, request, answer.steps);
  for (const step of answer.steps)
    if (!draft.held.has(step.claim) && !draft.stopping.has(step.claim))
      draft.held.set(step.claim, received(step, leaseUntil, now));
}

function restAfter(
  state: Draft["state"],
  request: OpenRequest,
  { results, confirmed, lost, steps }: ServiceAnswer,
  now: number,
): void {
  // A later request ends the one that waits; only whoever was left alone came back too soon.
  if (request.waitMs === 0 || state.sequence !== request.sequence) return;
  const isHollow = results.length + confirmed.length + lost.length + steps.length === 0;
  if (!isHollow || now - request.sentAt > Math.min(HOLLOW_MS, request.waitMs / 2)) {
    state.hollow = null;
    return;
  }
  const count = (state.hollow?.count ?? 0) + 1;
  state.hollow = {
    count,
    restUntil: now + Math.min(REST_FIRST_MS * 2 ** Math.min(count - 1, 10), REST_MS_MAX),
  };
}

/** The hub had all that was asked for, and meanwhile the slots ran dry: more the next time. */
function fetchFurtherAhead(draft: Draft, { want }: OpenRequest, steps: readonly ServiceStep[]): void {
  for (const kind of ["internal", "external"] as const) {
    if (want[kind] === 0 || steps.filter(({ execution }) => execution === kind).length < want[kind]) continue;
    if (draft.held.first(kind, 1).length > 0) continue;
    draft.state.ahead = {
      ...draft.state.ahead,
      [kind]: Math.min(AHEAD_MAX, Math.max(want[kind], draft.state.ahead[kind] * AHEAD_GROWTH)),
    };
  }
}

function received(step: ServiceStep, leaseUntil: number, now: number): Held {
  return {
    claim: step.claim,
    id: step.id,
    step,
    stage: "queued",
    leaseUntil,
    startSaid: null,
    result: null,
    resultBytes: 0,
    resultIn: null,
    endedAt: 0,
    arrivedAt: now,
    begunAt: 0,
    journal: "none",
    givingBack: false,
  };
}

function takeEnd(draft: Draft, event: Extract<ServiceEvent, { kind: "ended" }>, now: number): void {
  draft.stopping.delete(event.claim);
  const held = draft.held.get(event.claim);
  if (held?.stage !== "running") return;
  // Work that was stopped on our own account did not fail; if it was done just before, that counts.
  if (held.givingBack && event.result?.outcome !== "success")
    giveBack(draft, held, now, "stopped because the service ends");
  else if (event.result === null) {
    drop(draft, { ...held, stage: "queued" }, "lost");
    draft.state.speakUp = true;
  } else
    change(draft, held, {
      stage: "ended",
      result: event.result,
      resultBytes: event.bytes,
      endedAt: now,
    });
}

/** Another service has the queue, or another run of this one: whatever we had is theirs. Results stay written down. */
function takeReplaced(draft: Draft): void {
  const { state } = draft;
  for (const held of [...draft.held.values()]) if (held.stage !== "ended") drop(draft, held, "replaced");
  for (const { sequence } of state.open) draft.effects.push({ kind: "cancel", sequence });
  state.open = [];
  state.replaced = true;
  draft.effects.push({ kind: "replaced" });
}

function backOff(draft: Draft, now: number, retryAfterMs: number | null, random: number): void {
  const failures = (draft.state.away?.failures ?? 0) + 1;
  const pause = Math.min(BACK_OFF_FIRST_MS * 2 ** Math.min(failures - 1, 20), BACK_OFF_MS_MAX);
  const drawn = pause * (0.5 + 0.5 * random);
  // All who were turned away together would come back together.
  const asked = Math.min(retryAfterMs ?? 0, RETRY_AFTER_MS_MAX) * (1 + RETRY_AFTER_SPREAD * random);
  draft.state.away = { failures, retryAt: now + Math.ceil(Math.max(drawn, asked)) };
}

function drainFurther(draft: Draft, now: number): void {
  const { drain } = draft.state;
  if (drain === null) return;
  const over = now >= drain.limitAt;
  for (const held of [...draft.held.values()]) {
    const { step } = held;
    if (step === null || held.stage === "ended" || (drain.for === "update" && isUpdate(held))) continue;
    if (held.stage !== "running" || isUpdate(held))
      giveBack(draft, held, now, "not begun because the service ends");
    else if (over && isToBeStopped(held, drain)) {
      if (step.onCrash === "freeze") drop(draft, held, "drain");
      else {
        change(draft, held, { givingBack: true });
        draft.effects.push({ kind: "stop", claim: held.claim, reason: "drain" });
      }
    }
  }
}

function beginSteps(draft: Draft, now: number, options: ServiceQueueOptions): void {
  const { state } = draft;
  for (const held of [...draft.held.in("confirming").values()])
    if (held.startSaid === "known") {
      change(draft, held, { stage: "running", begunAt: now });
      draft.effects.push({ kind: "begin", claim: held.claim });
    }
  if (draft.held.in("queued").size === 0) return;
  if (state.drain?.for !== "stop")
    for (const held of draft.held.queuedUpdates()) {
      change(draft, held, { stage: "running", begunAt: now });
      draft.effects.push({ kind: "update", claim: held.claim });
    }
  if (state.drain !== null || state.journalRetryAt !== null) return;
  if (draft.held.in("ended").size >= options.resultQueueLimit) return;
  const used = usedSlots(draft);
  for (const kind of ["internal", "external"] as const)
    for (const held of draft.held.first(kind, options.slots[kind] - used[kind])) {
      if (now - held.arrivedAt > AHEAD_WAIT_MS)
        state.ahead = { ...state.ahead, [kind]: Math.floor(state.ahead[kind] / 2) };
      if (held.step?.onCrash === "freeze") change(draft, held, { stage: "confirming" });
      else {
        change(draft, held, { stage: "running", begunAt: now });
        draft.effects.push({ kind: "begin", claim: held.claim });
      }
    }
}

/**
 * Writes down what the hub has not taken yet: at once where the loss would need a person or where the hub is away, else
 * after a moment. A result that is lost before that costs what a service costs that dies just before the step ends.
 */
function writeDown(draft: Draft, now: number, options: ServiceQueueOptions): void {
  const { state } = draft;
  if (state.journalRetryAt !== null && now < state.journalRetryAt) return;
  const isAll = state.away !== null || state.drain !== null || state.journalRetryAt !== null;
  const due = draft.held.unwritten(isAll ? Number.POSITIVE_INFINITY : now - options.journalDelayMs);
  if (due.length === 0 && state.journalRetryAt === null) return;
  for (const held of due) change(draft, held, { journal: "asked" });
  if (state.journalRetryAt !== null) state.journalRetryAt = now + JOURNAL_RETRY_MS;
  draft.effects.push({
    kind: "journal",
    results: due.flatMap(({ result }) => (result === null ? [] : [result])),
  });
}

/** Nothing is under way any more, and what is not delivered is written down. */
function tellDrained(draft: Draft): void {
  const { state } = draft;
  const { drain } = state;
  if (drain === null || drain.done || draft.stopping.size > 0) return;
  // What was asked for may still arrive, and would have to wait for the end of our lease.
  if (state.away === null && state.open.some(({ want }) => want.internal + want.external > 0)) return;
  for (const held of draft.held.values()) {
    if (drain.for === "update" && isUpdate(held) && held.stage === "running") continue;
    // The hub is heard first; where it cannot be, the next run delivers.
    if (held.stage !== "ended" || held.journal !== "safe" || state.away === null) return;
  }
  state.drain = { ...drain, done: true };
  draft.effects.push({ kind: "drained", for: drain.for });
}

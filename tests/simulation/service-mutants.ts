import type { Held, ServiceEffect, ServiceQueue, ServiceTransition } from "@lockstep/core";
import { REAL_MACHINE, type ServiceMachine } from "./service-faults.ts";

/**
 * A job service with one thing left out or done wrong. The simulation must tell each from the real one; else either the
 * thing is needless, or the simulation is too weak to prove anything. They sit around the decision, so that what ships
 * stays as it is.
 */
export interface ServiceMutant {
  readonly name: string;
  readonly machine: ServiceMachine;
}

type Step = ServiceMachine["step"];

function mutant(name: string, step: (real: Step) => Step, start = REAL_MACHINE.start): ServiceMutant {
  return { name, machine: { start, step: step(REAL_MACHINE.step) } };
}

/** Changes what the real decision says. */
const afterwards = (name: string, alter: (result: ServiceTransition) => ServiceTransition) =>
  mutant(name, (real) => (state, event, now, options) => alter(real(state, event, now, options)));

/** Changes one kind of effect. */
const effects = (name: string, alter: (effect: ServiceEffect) => readonly ServiceEffect[]) =>
  afterwards(name, ({ state, effects }) => ({ state, effects: effects.flatMap(alter) }));

function mapHeld(state: ServiceQueue, alter: (held: Held) => Held | null): ServiceQueue {
  const held = new Map<number, Held>();
  for (const each of state.held.values()) {
    const altered = alter(each);
    if (altered !== null) held.set(altered.claim, altered);
  }
  return { ...state, held };
}

export const SERVICE_MUTANTS: readonly ServiceMutant[] = [
  mutant("counts the lease from the answer", (real) => (state, event, now, options) => {
    if (event.kind !== "answer") return real(state, event, now, options);
    const open = state.open.map((each) =>
      each.sequence === event.sequence ? { ...each, sentAt: now, giveUpAt: Number.POSITIVE_INFINITY } : each,
    );
    return real({ ...state, open }, event, now, options);
  }),
  mutant("never ends a lease", (real) => (state, event, now, options) => {
    const { state: next, effects } = real(state, event, now, options);
    return { state: mapHeld(next, (held) => ({ ...held, leaseUntil: Number.MAX_SAFE_INTEGER })), effects };
  }),
  mutant("renews every lease with every answer", (real) => (state, event, now, options) => {
    const request =
      event.kind === "answer" ? state.open.find(({ sequence }) => sequence === event.sequence) : undefined;
    const { state: next, effects } = real(state, event, now, options);
    if (request === undefined || event.kind !== "answer") return { state: next, effects };
    const until = Math.max(now, request.sentAt) + event.answer.leaseMs;
    return { state: mapHeld(next, (held) => ({ ...held, leaseUntil: until })), effects };
  }),
  mutant("looks at events before the lease", (real) => (state, event, now, options) => {
    const before = event.kind === "ended" ? Math.min(now, ...[...state.held.values()].map(beforeEnd)) : now;
    return real(state, event, before, options);
  }),
  afterwards("begins what must not run twice without the hub's word", ({ state, effects }) => {
    const begun = [...state.held.values()].filter(({ stage }) => stage === "confirming");
    return {
      state: mapHeld(state, (held) => (begun.includes(held) ? { ...held, stage: "running" } : held)),
      effects: [...effects, ...begun.map(({ claim }) => ({ kind: "begin", claim }) as const)],
    };
  }),
  effects("says that it gave up what it still listens to", (effect) =>
    effect.kind === "send"
      ? [{ ...effect, request: { ...effect.request, answered: effect.request.sequence - 1 } }]
      : [effect],
  ),
  effects("never says what it gave up", (effect) =>
    effect.kind === "send" ? [{ ...effect, request: { ...effect.request, answered: 0 } }] : [effect],
  ),
  mutant("listens to answers that it gave up", (real) => {
    const given = new Map<number, ServiceQueue["open"][number]>();
    return (state, event, now, options) => {
      for (const request of state.open) given.set(request.sequence, request);
      const late = event.kind === "answer" ? given.get(event.sequence) : undefined;
      const isOpen = late !== undefined && state.open.some(({ sequence }) => sequence === late.sequence);
      if (late === undefined || isOpen) return real(state, event, now, options);
      const open = [...state.open, { ...late, sentAt: now, giveUpAt: now + 60_000 }];
      return real({ ...state, open }, event, now, options);
    };
  }),
  effects("does not say that it holds steps which wait", (effect) =>
    effect.kind === "send"
      ? [{ ...effect, request: { ...effect.request, holding: effect.request.started } }]
      : [effect],
  ),
  afterwards("takes a sent result for delivered", ({ state, effects }) => ({
    state: mapHeld(state, (held) => (held.resultIn === null ? held : null)),
    effects,
  })),
  mutant(
    "forgets what its former run wrote down",
    (real) => real,
    () => REAL_MACHINE.start([]),
  ),
  effects("drops what it wrote down when it sends it", (effect) =>
    effect.kind === "send"
      ? [{ kind: "forget", claims: effect.request.results.map(({ claim }) => claim) }, effect]
      : [effect],
  ),
  mutant("goes on with what the hub calls lost", (real) => (state, event, now, options) => {
    if (event.kind !== "answer") return real(state, event, now, options);
    const request = state.open.find(({ sequence }) => sequence === event.sequence);
    const answer = { ...event.answer, lost: [], confirmed: request?.started ?? [] };
    return real(state, { ...event, answer }, now, options);
  }),
  effects("lets work go on whose claim has ended", (effect) => (effect.kind === "stop" ? [] : [effect])),
  afterwards("gives away the claim before the work has stopped", ({ state, effects }) => ({
    state,
    effects: effects.map((effect) => {
      if (effect.kind !== "send") return effect;
      const holding = effect.request.holding.filter((claim) => !state.stopping.has(claim));
      return { ...effect, request: { ...effect.request, holding } };
    }),
  })),
  afterwards("frees the slot before the work has stopped", ({ state, effects }) => ({
    state: { ...state, stopping: new Map() },
    effects,
  })),
  effects("asks for more than it has room for", (effect) =>
    effect.kind === "send"
      ? [{ ...effect, request: { ...effect.request, want: { internal: 40, external: 40 } } }]
      : [effect],
  ),
  mutant("gives back steps that it goes on with", (real) => (state, event, now, options) => {
    const { state: next, effects } = real(state, event, now, options);
    if (event.kind !== "drain") return { state: next, effects };
    const given = mapHeld(next, (held) =>
      held.stage === "running" && held.step?.component !== "AutoUpdate"
        ? {
            ...held,
            stage: "ended",
            result: { step: held.id, claim: held.claim, outcome: "given-back" },
          }
        : held,
    );
    return { state: given, effects };
  }),
  mutant(
    "asks for a step again that began and must not run twice",
    (real) => (state, event, now, options) => {
      if (event.kind !== "ended" || event.result !== null) return real(state, event, now, options);
      const held = state.held.get(event.claim);
      if (held === undefined) return real(state, event, now, options);
      const result = { step: held.id, claim: held.claim, outcome: "given-back" } as const;
      return real(state, { ...event, result }, now, options);
    },
  ),
  mutant("begins steps while results cannot be written down and the limit is reached", (real) => {
    const loose: Step = (state, event, now, options) =>
      real({ ...state, journalRetryAt: null }, event, now, {
        ...options,
        resultQueueLimit: Number.MAX_SAFE_INTEGER,
      });
    return loose;
  }),
  mutant("stops asking after the hub was away", (real) => (state, event, now, options) => {
    const { state: next, effects } = real(state, event, now, options);
    if ((next.away?.failures ?? 0) < 3) return { state: next, effects };
    return { state: { ...next, replaced: true }, effects: effects.filter(({ kind }) => kind !== "send") };
  }),
];

const beforeEnd = ({ stage, leaseUntil }: Held) =>
  stage === "running" ? leaseUntil - 5000 : Number.POSITIVE_INFINITY;

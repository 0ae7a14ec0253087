import type { ServiceAnswer, ServiceRequest, ServiceStep } from "@lockstep/core";
import type { Prng } from "@lockstep/testing";

/**
 * A model of the hub's half of the exchange, as small as the contract in packages/protocol/src/api-jobs.ts allows: one
 * queue, claims with growing numbers, a lease, results that count once. It is written anew and knows nothing of the
 * service's half.
 */
export interface ModelStep {
  readonly id: number;
  readonly onCrash: "rerun" | "freeze";
  readonly execution: "internal" | "external";
  readonly priority: number;
  readonly component: string;
  /** Becomes ready when this one has ended well; null: at once. */
  readonly after: number | null;
  state: "waiting" | "ready" | "loaded" | "processing" | "finished" | "frozen" | "missing";
  claim: number;
  claimSequence: number;
  instance: string;
  readyAt: number;
  recorded: number;
}

/** How a claim ended other than by its result. */
export interface ClaimEnd {
  readonly at: number;
  readonly why: "lease" | "takeover" | "not-held" | "by-hand" | "result";
}

export type HubReply =
  | { readonly kind: "answer"; readonly answer: ServiceAnswer }
  | { readonly kind: "refused"; readonly reason: "stale" | "replaced" };

interface Waiter {
  readonly instance: string;
  readonly request: ServiceRequest;
  readonly until: number;
  readonly reply: (reply: HubReply) => void;
}

export class ModelHub {
  readonly steps = new Map<number, ModelStep>();
  readonly ends = new Map<number, ClaimEnd>();
  readonly owners = new Map<number, ModelStep>();
  readonly leaseMs: number;
  updating = false;
  #claim = 0;
  #instance = "";
  readonly #former = new Set<string>();
  #answered = 0;
  #leaseUntil = 0;
  #waiters: Waiter[] = [];

  constructor(leaseMs: number) {
    this.leaseMs = leaseMs;
  }

  add(step: Omit<ModelStep, "claim" | "claimSequence" | "instance" | "recorded">): void {
    this.steps.set(step.id, { ...step, claim: 0, claimSequence: 0, instance: "", recorded: 0 });
  }

  /** Everything that is in memory alone is gone; what the database holds stays. */
  restart(): void {
    this.#waiters = [];
  }

  /** Leases that ended, deferred steps that are due, waits that are over. */
  tick(now: number): void {
    if (now >= this.#leaseUntil)
      for (const step of this.steps.values())
        if ((step.state === "loaded" || step.state === "processing") && step.instance === this.#instance)
          this.#crash(step, now, "lease");
    for (const waiter of [...this.#waiters])
      if (now >= waiter.until || this.#waiters.some((each) => this.#isNewer(each.request, waiter.request)))
        this.#endWait(waiter, now);
      else if (this.#ready(now).length > 0) this.#endWait(waiter, now);
  }

  #isNewer(a: ServiceRequest, b: ServiceRequest): boolean {
    return a.sequence > b.sequence;
  }

  exchange(instance: string, request: ServiceRequest, now: number, reply: (reply: HubReply) => void): void {
    if (instance !== this.#instance) {
      if (this.#former.has(instance)) {
        reply({ kind: "refused", reason: "replaced" });
        return;
      }
      this.#takeOver(instance, request, now);
    }
    if (request.sequence <= this.#answered) {
      reply({ kind: "refused", reason: "stale" });
      return;
    }
    this.#answered = Math.max(this.#answered, request.answered);
    this.#leaseUntil = now + this.leaseMs;
    for (const waiter of [...this.#waiters])
      if (waiter.instance !== instance || this.#isNewer(request, waiter.request)) this.#endWait(waiter, now);
    const holding = new Set(request.holding);
    for (const step of this.steps.values())
      if (
        (step.state === "loaded" || step.state === "processing") &&
        step.instance === instance &&
        step.claimSequence <= request.answered &&
        !holding.has(step.claim)
      )
        this.#crash(step, now, "not-held");
    const results = request.results.map(({ claim, outcome, deferMs }) => {
      const step = this.owners.get(claim);
      if (step === undefined) throw new Error(`a result for the claim ${claim}, which was never given`);
      if (step.claim !== claim) return { claim, verdict: "refused" as const };
      if (step.state !== "loaded" && step.state !== "processing") {
        const known = this.ends.get(claim)?.why === "result";
        return { claim, verdict: known ? ("known" as const) : ("refused" as const) };
      }
      this.ends.set(claim, { at: now, why: "result" });
      if (outcome === "success" || outcome === "error") {
        step.recorded += 1;
        step.state = "finished";
        for (const next of this.steps.values()) if (next.after === step.id) next.state = "ready";
      } else {
        step.state = "ready";
        step.readyAt = outcome === "deferred" ? now + (deferMs ?? 0) : now;
      }
      return { claim, verdict: "recorded" as const };
    });
    const confirmed = request.started.filter((claim) => {
      const step = this.owners.get(claim);
      if (step?.claim !== claim || (step.state !== "loaded" && step.state !== "processing")) return false;
      step.state = "processing";
      return true;
    });
    const delivered = new Set(request.results.map(({ claim }) => claim));
    const lost = request.holding.filter((claim) => {
      const step = this.owners.get(claim);
      const ours = step?.claim === claim && (step.state === "loaded" || step.state === "processing");
      return !ours && !delivered.has(claim);
    });
    const steps = this.#claimSteps(instance, request, now);
    const answer = { leaseMs: this.leaseMs, updating: this.updating, results, confirmed, lost, steps };
    const hasToSay = results.length + confirmed.length + lost.length + steps.length > 0;
    if (hasToSay || request.waitMs === 0) {
      reply({ kind: "answer", answer });
      return;
    }
    this.#waiters.push({ instance, request, until: now + request.waitMs, reply });
  }

  /** Whether nothing can go on without a person. */
  isAtRest(): boolean {
    return [...this.steps.values()].every(
      ({ state, after }) =>
        state === "finished" ||
        state === "frozen" ||
        state === "missing" ||
        (state === "waiting" && this.steps.get(after ?? 0)?.state !== "finished"),
    );
  }

  /** A person counts a step that is being worked on as done. */
  endByHand(now: number, chance: Pick<Prng, "pick">): void {
    const step = chance.pick(
      [...this.steps.values()].filter(({ state }) => state === "loaded" || state === "processing"),
    );
    if (step === undefined || step.component === "AutoUpdate") return;
    this.ends.set(step.claim, { at: now, why: "by-hand" });
    step.state = "finished";
    for (const next of this.steps.values()) if (next.after === step.id) next.state = "ready";
  }

  #endWait(waiter: Waiter, now: number): void {
    this.#waiters = this.#waiters.filter((each) => each !== waiter);
    if (waiter.instance !== this.#instance) {
      waiter.reply({ kind: "refused", reason: "replaced" });
      return;
    }
    if (waiter.request.sequence <= this.#answered) {
      waiter.reply({ kind: "refused", reason: "stale" });
      return;
    }
    const steps = this.#claimSteps(waiter.instance, waiter.request, now);
    const empty = { leaseMs: this.leaseMs, updating: this.updating, results: [], confirmed: [], lost: [] };
    waiter.reply({ kind: "answer", answer: { ...empty, steps } });
  }

  #takeOver(instance: string, request: ServiceRequest, now: number): void {
    const carried = new Set([...request.holding, ...request.results.map(({ claim }) => claim)]);
    for (const step of this.steps.values())
      if (step.state === "loaded" || step.state === "processing") {
        if (carried.has(step.claim)) {
          step.instance = instance;
          step.claimSequence = request.sequence;
        } else this.#crash(step, now, "takeover");
      }
    this.#former.add(this.#instance);
    this.#instance = instance;
    this.#answered = 0;
  }

  #crash(step: ModelStep, now: number, why: ClaimEnd["why"]): void {
    this.ends.set(step.claim, { at: now, why });
    if (step.state === "loaded" || step.onCrash === "rerun") {
      step.state = "ready";
      step.readyAt = now;
    } else step.state = why === "not-held" ? "missing" : "frozen";
  }

  #ready(now: number): ModelStep[] {
    return [...this.steps.values()]
      .filter((step) => step.state === "ready" && step.readyAt <= now)
      .filter((step) => !this.updating || step.component === "AutoUpdate")
      .sort((a, b) => b.priority - a.priority || a.id - b.id);
  }

  #claimSteps(instance: string, request: ServiceRequest, now: number): ServiceStep[] {
    const left = { ...request.want };
    const given: ServiceStep[] = [];
    // A lease that ran out while the request waited gives nothing.
    if (now >= this.#leaseUntil) return given;
    for (const step of this.#ready(now)) {
      if (left[step.execution] === 0) continue;
      left[step.execution] -= 1;
      this.#claim += 1;
      Object.assign(step, {
        state: "loaded",
        claim: this.#claim,
        claimSequence: request.sequence,
        instance,
      } satisfies Partial<ModelStep>);
      this.owners.set(this.#claim, step);
      const { id, onCrash, execution, priority, component } = step;
      given.push({ id, claim: this.#claim, onCrash, execution, priority, component });
    }
    return given;
  }
}

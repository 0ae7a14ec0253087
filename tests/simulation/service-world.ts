import {
  type Held,
  nextServiceWake,
  type ServiceEffect,
  type ServiceEvent,
  type ServiceQueue,
  type ServiceQueueOptions,
  type ServiceResult,
  startServiceQueue,
  workerDeadline,
} from "@lockstep/core";
import { Prng } from "@lockstep/testing";
import {
  CALM_MS,
  drawOptions,
  drawRates,
  FAULTY_MS,
  type FaultRates,
  HUB_TICK_MS,
  LEASE_MS,
  noCounts,
  REAL_MACHINE,
  type RunCounts,
  type ServiceMachine,
  type Work,
} from "./service-faults.ts";
import { type HubReply, ModelHub } from "./service-hub.ts";
import { ServiceOracle, STOPPING_MS, violate } from "./service-oracle.ts";
import { Agenda } from "./service-time.ts";

/**
 * One job service, its workers, its disk, a model hub and the network between them, in virtual time. Everything is drawn
 * from one seed, the rates of the faults too. First a time with faults, then one without, in which everything must come
 * to its end.
 *
 * What must never happen is looked for where it happens (service-oracle.ts), not in the outcome.
 */
export class ServiceWorld {
  readonly counts = noCounts();
  readonly #machine: ServiceMachine;
  readonly #prng: Prng;
  readonly #hub = new ModelHub(LEASE_MS);
  readonly #queue = new Agenda();
  readonly #oracle = new ServiceOracle(this.#hub);
  readonly #rates: FaultRates;
  readonly #rate: number;
  readonly #offset: number;
  readonly #options: ServiceQueueOptions;
  #now = 0;
  #faulty = true;
  #hubDown = false;
  // The service.
  #life = 0;
  #instance = "";
  #state: ServiceQueue = startServiceQueue([]);
  #running = false;
  #frozenSince: number | null = null;
  #woken: { at: number; since: number } | null = null;
  #missed: (() => void)[] = [];
  #works = new Map<number, Work>();
  #disk = new Map<number, ServiceResult>();
  #diskFreeAt = 0;
  #leftovers = 0;
  #journalFailed = false;
  #wakeAt = Number.POSITIVE_INFINITY;
  /** Instances that the hub has heard of. */
  readonly #known = new Set<string>();

  constructor(seed: number, machine: ServiceMachine = REAL_MACHINE) {
    this.#machine = machine;
    this.#prng = new Prng(seed);
    const prng = this.#prng.fork();
    this.#rates = drawRates(prng);
    this.#options = drawOptions(prng);
    // Clocks of machines differ by less than this; the margin of the lease is larger.
    this.#rate = 0.99 + 0.02 * prng.next();
    this.#offset = prng.below(1_000_000);
    this.#plan(prng);
  }

  #plan(prng: Prng): void {
    const count = 5 + prng.below(40);
    for (let id = 1; id <= count; id++) {
      const after = id > 1 && prng.chance(0.4) ? 1 + prng.below(id - 1) : null;
      const at = prng.below(FAULTY_MS);
      const add = () =>
        this.#hub.add({
          id,
          onCrash: prng.chance(0.35) ? "freeze" : "rerun",
          execution: prng.chance(0.5) ? "internal" : "external",
          priority: 1 + prng.below(15),
          component: "Work",
          after,
          state: after === null || this.#hub.steps.get(after)?.state === "finished" ? "ready" : "waiting",
          readyAt: this.#now,
        });
      this.#at(prng.chance(0.5) ? 0 : at, add);
    }
    if (prng.chance(0.4))
      this.#at(prng.below(FAULTY_MS), () => {
        this.#hub.updating = true;
        this.#hub.add({
          id: 1000,
          onCrash: "rerun",
          execution: "internal",
          priority: 15,
          component: "AutoUpdate",
          after: null,
          state: "ready",
          readyAt: this.#now,
        });
      });
    for (let at = prng.below(4); at > 0; at--)
      this.#at(prng.below(FAULTY_MS), () => this.#freeze(1 + prng.below(2 * LEASE_MS)));
    for (let at = this.#rates.crash; at > 0; at--) this.#at(prng.below(FAULTY_MS), () => this.#crash());
    for (let at = prng.below(3); at > 0; at--)
      this.#at(prng.below(FAULTY_MS), () => this.#restartHub(prng.below(2 * LEASE_MS)));
    for (let at = prng.below(3); at > 0; at--)
      this.#at(prng.below(FAULTY_MS), () => {
        if (!this.#hubDown) this.#hub.endByHand(this.#now, prng);
      });
    if (prng.chance(0.4)) this.#at(prng.below(FAULTY_MS), () => this.#drain());
    this.#at(FAULTY_MS, () => {
      this.#faulty = false;
    });
  }

  /** Runs to the end. Throws what must never happen. */
  run(): RunCounts {
    this.#begin();
    this.#tickHub();
    while (!this.#queue.isEmpty) {
      const next = this.#queue.next();
      this.#now = next.at;
      next.run();
    }
    this.counts.frozen = this.#oracle.demandAllEnded(this.#running ? this.#state.held.size : 0);
    return this.counts;
  }

  #begin(): void {
    if (this.#running) return;
    this.#wakeAt = Number.POSITIVE_INFINITY;
    this.#life += 1;
    this.#running = true;
    this.#frozenSince = null;
    this.#missed = [];
    this.#works = new Map();
    this.#instance = `life ${this.#life}`;
    this.#leftovers = this.#disk.size;
    this.#journalFailed = false;
    this.#state = this.#machine.start([...this.#disk.values()]);
    this.#take({ kind: "tick" });
  }

  #local(): number {
    return this.#offset + this.#now * this.#rate;
  }

  #take(event: ServiceEvent): void {
    if (!this.#running) return;
    if (this.#frozenSince !== null) {
      this.#missed.push(() => this.#take(event));
      return;
    }
    if (event.kind === "journalled") this.#journalFailed = false;
    if (event.kind === "journal-failed") this.#journalFailed = true;
    const { state, effects } = this.#machine.step(this.#state, event, this.#local(), this.#options);
    this.#state = state;
    for (const effect of effects) this.#carryOut(effect);
    for (const work of this.#works.values()) {
      const held = this.#state.held.get(work.claim);
      if (held !== undefined) work.deadline = this.#deadlineOf(held);
    }
    this.#oracle.demandRoom(
      [...this.#works.values()],
      [...this.#state.held.values()],
      this.#options,
      this.#leftovers,
      this.#now,
    );
    const wake = nextServiceWake(this.#state, this.#options);
    if (wake === null) return;
    const at = Math.max((wake - this.#offset) / this.#rate, this.#now + 1);
    if (at >= this.#wakeAt && this.#wakeAt > this.#now) return;
    this.#wakeAt = at;
    this.#inLife(at, () => {
      if (this.#wakeAt === at) this.#wakeAt = Number.POSITIVE_INFINITY;
      this.#take({ kind: "tick" });
    });
  }

  #deadlineOf(held: Held): number {
    return (workerDeadline(this.#state, held) - this.#offset) / this.#rate;
  }

  #carryOut(effect: ServiceEffect): void {
    switch (effect.kind) {
      case "send":
        this.#send(effect.request);
        return;
      case "begin":
        this.#beginWork(effect.claim);
        return;
      case "stop": {
        if (effect.reason === "lease") this.counts.leasesLost += 1;
        const work = this.#works.get(effect.claim);
        if (work !== undefined) this.#stopWork(work, 1 + this.#prng.below(STOPPING_MS));
        else if (this.#hub.owners.get(effect.claim)?.component === "AutoUpdate")
          this.#inLife(this.#now + 1, () =>
            this.#take({ kind: "ended", claim: effect.claim, result: null, bytes: 0 }),
          );
        else violate(`claim ${effect.claim} is stopped and never began`);
        return;
      }
      case "journal": {
        const claims = effect.results.map(({ claim }) => claim);
        const fails = this.#faulty && this.#rates.diskFull && this.#prng.chance(0.5);
        this.#atDisk(() => {
          if (!fails)
            for (const result of effect.results) {
              this.#disk.set(result.claim, result);
              this.#oracle.written(result.claim);
              this.counts.journalled += 1;
            }
          this.#take({ kind: fails ? "journal-failed" : "journalled", claims });
        });
        return;
      }
      case "forget":
        this.#atDisk(() => {
          for (const claim of effect.claims) this.#disk.delete(claim);
        });
        return;
      case "update":
        this.#beginUpdate(effect.claim);
        return;
      case "drained":
        this.#endOfDrain(effect.for);
        return;
      case "replaced":
        violate("the only service of a queue was replaced");
        return;
      case "dropped":
        return;
      case "cancel":
        return;
    }
  }

  #beginWork(claim: number): void {
    const step = this.#hub.owners.get(claim);
    if (step === undefined) throw new Error(`claim ${claim} was never given`);
    if (this.#works.has(claim)) violate(`claim ${claim} began twice`);
    this.counts.begun += 1;
    this.#oracle.begins(step, claim);
    if (this.#journalFailed && step.onCrash === "rerun")
      violate(`claim ${claim} began though results cannot be kept`);
    const held = this.#state.held.get(claim);
    const work: Work = {
      step: { ...step, claim },
      claim,
      stoppedAt: null,
      deadline: held === undefined ? 0 : this.#deadlineOf(held),
      done: false,
    };
    this.#works.set(claim, work);
    const duration = this.#prng.chance(0.7) ? this.#prng.below(500) : this.#prng.below(2 * LEASE_MS);
    this.#inLife(this.#now + duration, () => this.#endWork(work));
    if (step.execution !== "external") return;
    this.#watchWorker(work);
    if (this.#faulty && this.#prng.chance(this.#rates.workerCrash))
      this.#inLife(this.#now + this.#prng.below(duration + 1), () => this.#stopWork(work, 0));
  }

  /** An external worker knows its own lease and needs nobody to stop it. */
  #watchWorker(work: Work): void {
    this.#inLife(Math.max(work.deadline, this.#now + 1), () => {
      if (work.done || work.stoppedAt !== null) return;
      if (this.#now >= work.deadline) this.#stopWork(work, 0);
      else this.#watchWorker(work);
    });
  }

  #endWork(work: Work, workedUntil = this.#now): void {
    if (work.stoppedAt !== null || work.done) return;
    if (this.#frozenSince !== null && work.step.execution === "internal") {
      // Frozen, it did nothing; its last act comes when the service wakes.
      const since = this.#frozenSince;
      this.#missed.push(() => this.#endWork(work, since));
      return;
    }
    work.done = true;
    this.#oracle.demandInLease(work.claim, workedUntil);
    this.#oracle.completed(work.claim);
    const outcome = this.#prng.pick(["success", "success", "success", "error", "deferred"] as const);
    const result: ServiceResult = {
      step: work.step.id,
      claim: work.claim,
      // A step that began must not be asked for again where it must not run twice.
      outcome: work.step.onCrash === "freeze" && outcome === "deferred" ? "success" : outcome,
      ...(outcome === "deferred" ? { deferMs: 1000 } : {}),
    };
    this.#take({ kind: "ended", claim: work.claim, result, bytes: 100 });
  }

  #stopWork(work: Work, afterMs: number): void {
    if (work.done || work.stoppedAt !== null) return;
    // Who was frozen did nothing meanwhile.
    const internal = work.step.execution === "internal";
    // A worker dies a little later. Work inside the service stops at the next turn, and stood still as long as that did.
    const at = this.#now + afterMs;
    const workedUntil = !internal ? at : this.#woken?.at === this.#now ? this.#woken.since : this.#now;
    work.stoppedAt = at;
    this.#inLife(at, () => {
      this.#oracle.demandInLease(work.claim, workedUntil);
      this.#take({ kind: "ended", claim: work.claim, result: null, bytes: 0 });
    });
  }

  #beginUpdate(claim: number): void {
    const step = this.#hub.owners.get(claim);
    if (step === undefined) throw new Error("an update that nobody gave");
    this.#oracle.begins(step, claim);
    this.counts.updates += 1;
    this.#take({ kind: "drain", for: "update", limitMs: 10_000 });
  }

  #endOfDrain(why: "stop" | "update"): void {
    for (const work of this.#works.values())
      if (!work.done && (work.stoppedAt === null || work.stoppedAt > this.#now))
        violate(`drained while claim ${work.claim} still runs`);
    // The update step's result is written down, then the service ends; its next run tells it.
    this.#inLife(this.#now + 5, () => this.#end(why));
  }

  #end(why: "stop" | "update"): void {
    if (this.#frozenSince !== null) {
      this.#missed.push(() => this.#end(why));
      return;
    }
    if (why === "update")
      for (const { claim, id, step, stage } of this.#state.held.values())
        if (step?.component === "AutoUpdate" && stage === "running") {
          this.#oracle.completed(claim);
          this.#disk.set(claim, { step: id, claim, outcome: "success" });
          this.#hub.updating = false;
        }
    this.#running = false;
    this.#life += 1;
    this.#at(this.#now + this.#prng.below(LEASE_MS), () => this.#begin());
  }

  #drain(): void {
    if (!this.#running) return;
    this.counts.drains += 1;
    this.#take({ kind: "drain", for: "stop", limitMs: this.#prng.below(20_000) });
  }

  #crash(): void {
    if (!this.#running) return;
    this.counts.crashes += 1;
    for (const work of this.#works.values())
      if (!work.done && work.stoppedAt === null)
        this.#oracle.demandInLease(work.claim, this.#frozenSince ?? this.#now);
    this.#running = false;
    this.#life += 1;
    this.#at(this.#now + 1 + this.#prng.below(LEASE_MS * 2), () => this.#begin());
  }

  #freeze(ms: number): void {
    if (!this.#running || this.#frozenSince !== null) return;
    this.counts.freezes += 1;
    this.#frozenSince = this.#now;
    this.#inLife(this.#now + ms, () => {
      this.#woken = { at: this.#now, since: this.#frozenSince ?? this.#now };
      this.#frozenSince = null;
      const missed = this.#missed;
      this.#missed = [];
      // Nothing says in which order what piled up is looked at.
      for (const run of this.#prng.chance(0.5) ? missed : missed.reverse()) run();
      this.#take({ kind: "tick" });
    });
  }

  #send(request: Parameters<ModelHub["exchange"]>[1]): void {
    this.counts.exchanges += 1;
    for (const result of request.results) this.#oracle.tells(result);
    const instance = this.#instance;
    const life = this.#life;
    const copies = this.#faulty && this.#prng.chance(this.#rates.duplicate) ? 2 : 1;
    if (copies > 1) this.counts.duplicates += 1;
    for (let copy = 0; copy < copies; copy++) {
      if (this.#loses()) {
        this.counts.requestsLost += 1;
        this.#failLater(request.sequence, life);
        continue;
      }
      this.#at(this.#now + this.#delay(), () => {
        // What nobody ever answered and whose sender is dead does not come back from the dead.
        if (life !== this.#life && !this.#known.has(instance)) return;
        if (this.#hubDown) {
          this.#failLater(request.sequence, life);
          return;
        }
        this.#known.add(instance);
        this.#hub.exchange(instance, request, this.#now, (reply) =>
          this.#answer(reply, request.sequence, life),
        );
      });
    }
  }

  #answer(reply: HubReply, sequence: number, life: number): void {
    if (this.#loses()) {
      this.counts.answersLost += 1;
      this.#failLater(sequence, life);
      return;
    }
    const copies = this.#faulty && this.#prng.chance(this.#rates.duplicate) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++)
      this.#at(this.#now + this.#delay(), () => {
        if (this.#life !== life) return;
        if (reply.kind === "refused") {
          this.#take({ kind: "failed", sequence, reason: reply.reason, retryAfterMs: null, random: 0.5 });
          return;
        }
        for (const { claim, verdict } of reply.answer.results) {
          if (verdict === "refused") this.counts.refused += 1;
          this.#oracle.told(claim);
        }
        const listens =
          this.#frozenSince === null && this.#state.open.some((each) => each.sequence === sequence);
        for (const claim of reply.answer.lost) {
          this.#oracle.told(claim);
          if (listens) this.#oracle.toldLost(claim, this.#now);
        }
        this.#take({ kind: "answer", sequence, answer: reply.answer });
      });
  }

  /** A connection that breaks is noticed, sometimes; else the time limit of the request has to do. */
  #failLater(sequence: number, life: number): void {
    if (this.#prng.chance(0.5)) return;
    this.#at(this.#now + this.#delay(), () => {
      if (this.#life !== life) return;
      this.#take({ kind: "failed", sequence, reason: "away", retryAfterMs: null, random: this.#prng.next() });
    });
  }

  #loses(): boolean {
    return this.#faulty && this.#prng.chance(this.#rates.loss);
  }

  #delay(): number {
    if (this.#faulty && this.#prng.chance(this.#rates.slow)) return this.#prng.below(2 * LEASE_MS);
    return 1 + this.#prng.below(20);
  }

  #tickHub(): void {
    if (!this.#hubDown) this.#hub.tick(this.#now);
    if (this.#faulty || !this.#isAtRest()) this.#at(this.#now + HUB_TICK_MS, () => this.#tickHub());
    else this.#queue.clear();
  }

  #isAtRest(): boolean {
    if (!this.#running || this.#state.held.size > 0 || this.#disk.size > 0) return false;
    return this.#hub.isAtRest();
  }

  #restartHub(downMs: number): void {
    if (this.#hubDown) return;
    this.counts.restartsOfHub += 1;
    this.#hub.restart();
    this.#hubDown = true;
    this.#at(this.#now + downMs, () => {
      this.#hubDown = false;
    });
  }

  /** One disk does one thing after the other. */
  #atDisk(run: () => void): void {
    this.#diskFreeAt = Math.max(this.#diskFreeAt, this.#now) + 1 + this.#prng.below(50);
    this.#inLife(this.#diskFreeAt, run);
  }

  #inLife(at: number, run: () => void): void {
    const life = this.#life;
    this.#at(at, () => {
      if (this.#life === life) run();
    });
  }

  #at(at: number, run: () => void): void {
    if (at <= FAULTY_MS + CALM_MS) this.#queue.add(at, run);
  }
}

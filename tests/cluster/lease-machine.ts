import {
  type GuardEvent,
  type LeaseEffect,
  type LeaseEvent,
  type LeaseOptions,
  type LeaseState,
  type LeaseWish,
  mayServe,
  nextLeaseWake,
  startLease,
} from "@lockstep/core";
import { DriftingClock } from "@lockstep/testing";
import { SimGuard } from "./lease-guard-process.ts";
import type { Truth } from "./lease-oracle.ts";
import { type ActingMachine, OwnerActs } from "./lease-owner-acts.ts";
import type { LeaseWorld } from "./lease-world.ts";

/** A daemon that is scheduled needs this long at most. */
const DAEMON_DELAY_MS = 5;
const LEAVE_MS = 300;
const CLEANING_POLL_MS = 20;
const CHANGE_EVERY_MS = 90;

/**
 * One machine: a daemon that runs the lease which ships, its guard process, the service and the address as they truly
 * are, and one clock for all of them. Each process can be frozen or killed by itself, and the machine as a whole.
 */
export class SimMachine implements Truth, ActingMachine {
  readonly name: string;
  readonly clock: DriftingClock;
  service: number | null = null;
  address: number | null = null;
  isAsleep = false;
  excusedUntil = 0;
  readonly #world: LeaseWorld;
  readonly #others: readonly string[];
  #boots = 0;
  #asleepFor: (() => void)[] = [];
  // The daemon.
  #isUp = false;
  #life = 0;
  #options: LeaseOptions;
  #state: LeaseState = startLease();
  #wish: LeaseWish = { kind: "keep" };
  #isFrozen = false;
  #missed: (() => void)[] = [];
  #wakeAt = Number.POSITIVE_INFINITY;
  readonly #acts = new OwnerActs(this);
  #guard: SimGuard | null = null;
  #lastToken = 0;
  /** Two faults of one machine at once are more than a guard can cover. */
  #sparedUntil = 0;

  constructor(world: LeaseWorld, name: string, names: readonly string[]) {
    this.#world = world;
    this.name = name;
    this.#others = names.filter((other) => other !== name);
    this.clock = new DriftingClock(world.agenda, world.prng.below(1_000_000), this.#drawRate());
    this.#options = this.#drawOptions();
  }

  #drawRate(): number {
    const { clockError } = this.#world.scenario.times;
    const { prng } = this.#world;
    return prng.pick([1 - clockError, 1 + clockError, 1 - clockError + 2 * clockError * prng.next()]);
  }

  #drawOptions(): LeaseOptions {
    const { times, automatic, failsafe } = this.#world.scenario;
    const { trustMs, waitMs, renewMs, callMs } = times;
    return {
      node: this.name,
      instance: `${this.name}#${this.#life}`,
      members: this.#others,
      trustMs,
      waitMs,
      renewMs,
      callMs,
      pollMs: waitMs / 2,
      lockDelayMs: 0,
      automatic,
      failsafe,
    };
  }

  get options(): LeaseOptions {
    return this.#options;
  }

  get world(): LeaseWorld {
    return this.#world;
  }

  maySay(): boolean {
    return this.#isUp && mayServe(this.#state, this.clock.now());
  }

  describe(): string {
    const role =
      this.#state.role.kind === "owner" ? `owner, ${this.#state.role.phase}` : this.#state.role.kind;
    return `${this.name} ${this.#isUp ? role : "down"}, service ${this.service}, address ${this.address}`;
  }

  // Life and death.

  boot(): void {
    if (this.#isUp) return;
    this.#life += 1;
    this.#isUp = true;
    this.#isFrozen = false;
    this.#missed = [];
    this.#wakeAt = Number.POSITIVE_INFINITY;
    this.#acts.end();
    this.#options = this.#drawOptions();
    this.#state = startLease();
    this.#clean();
  }

  /** A former life's guard is given time to finish; what nobody guards any more is ended here. */
  #clean(): void {
    this.inDaemon(this.#world.prng.next() * CLEANING_POLL_MS, () => {
      if (this.#guard?.isUp === true) {
        this.#clean();
        return;
      }
      if (this.service !== null || this.address !== null) {
        const { stopMs } = this.#world.scenario.times;
        this.inDaemon(this.#world.prng.next() * stopMs, () => {
          this.endService();
          this.#clean();
        });
        return;
      }
      this.#guard = new SimGuard(this, this.#lastToken);
      this.#take({ kind: "wish", wish: this.#wish });
      this.#take({ kind: "cleaned" });
    });
  }

  killDaemon(restartAt: number): void {
    if (!this.#isUp || this.#isSpared()) return;
    this.#isUp = false;
    this.#guard?.tell({ kind: "closed" });
    this.#world.agenda.plan(restartAt, () => this.boot());
  }

  freezeDaemon(until: number): void {
    if (!this.#isUp || this.#isFrozen || this.#isSpared()) return;
    this.#isFrozen = true;
    const life = this.#life;
    this.#world.agenda.plan(until, () => {
      if (this.#life === life) this.#thawDaemon();
    });
  }

  #thawDaemon(): void {
    if (!this.#isFrozen) return;
    this.#isFrozen = false;
    const missed = this.#missed;
    this.#missed = [];
    this.#runAnyhow(missed);
  }

  /** Nothing says in which order what piled up is looked at. */
  #runAnyhow(missed: (() => void)[]): void {
    const { prng } = this.#world;
    if (prng.chance(0.7))
      for (let at = missed.length - 1; at > 0; at--) {
        const other = prng.below(at + 1);
        const [a, b] = [missed[at], missed[other]];
        if (a === undefined || b === undefined) continue;
        missed[at] = b;
        missed[other] = a;
      }
    for (const run of missed) run();
  }

  /** The guard, if its daemon could cover for it now. */
  #coveredGuard(): SimGuard | null {
    const guard = this.#guard;
    if (guard === null || !guard.isUp || !this.#isUp || this.#isFrozen || this.isAsleep) return null;
    return this.#isSpared() || this.#world.agenda.now <= this.excusedUntil ? null : guard;
  }

  freezeGuard(until: number): void {
    const guard = this.#coveredGuard();
    if (guard === null) return;
    const { guardDelayMs, stopMs } = this.#world.scenario.times;
    this.#sparedUntil = until + guardDelayMs + stopMs;
    guard.freeze();
    this.#world.agenda.plan(until, () => guard.thaw());
  }

  killGuard(): void {
    const guard = this.#coveredGuard();
    if (guard === null) return;
    const { guardDelayMs, stopMs } = this.#world.scenario.times;
    this.#sparedUntil = this.#world.agenda.now + guardDelayMs + stopMs + DAEMON_DELAY_MS;
    guard.isUp = false;
    this.inDaemon(this.#world.prng.next() * guardDelayMs, () => {
      this.#take({ kind: "guard-lost" });
      // Whatever the lease made of it: nobody guards what is left.
      this.inDaemon(this.#world.prng.next() * stopMs, () => {
        this.endService();
        this.#guard = new SimGuard(this, this.#lastToken);
        this.#take({ kind: "stopped", token: this.#lastToken });
      });
    });
  }

  #isSpared(): boolean {
    return this.#world.agenda.now < this.#sparedUntil;
  }

  /** Sleeps as a whole, as a paused virtual machine does. */
  freezeAll(until: number): void {
    if (this.isAsleep || this.#isSpared()) return;
    this.isAsleep = true;
    const boots = this.#boots;
    this.#world.agenda.plan(until, () => {
      if (this.#boots === boots) this.#thawAll();
    });
  }

  #thawAll(): void {
    if (!this.isAsleep) return;
    const { guardDelayMs, stopMs } = this.#world.scenario.times;
    this.isAsleep = false;
    this.excusedUntil = this.#world.agenda.now + guardDelayMs + stopMs;
    const missed = this.#asleepFor;
    this.#asleepFor = [];
    this.#runAnyhow(missed);
    this.#guard?.look();
    this.#world.agenda.plan(this.excusedUntil + 1, () => {
      if (!this.isAsleep) this.#world.oracle.demandAlone(this, this.#world.agenda.now);
    });
  }

  /** Power is cut: nothing is left but what is on its way through the network. */
  lose(bootAt: number): void {
    this.#boots += 1;
    this.#isUp = false;
    this.isAsleep = false;
    this.#asleepFor = [];
    if (this.#guard !== null) this.#guard.isUp = false;
    this.service = null;
    this.address = null;
    this.#world.agenda.plan(bootAt, () => this.boot());
  }

  changeRate(): void {
    this.clock.setRate(this.#drawRate());
    this.#guard?.look();
    this.#wakeAt = Number.POSITIVE_INFINITY;
    this.#planWake();
  }

  heal(): void {
    this.#thawAll();
    this.#guard?.thaw();
    this.#thawDaemon();
    this.boot();
  }

  // What its processes do in time.

  /** On this machine, unless it was lost meanwhile; when it sleeps, after that. */
  onMachine(ms: number, run: () => void): void {
    const boots = this.#boots;
    const attempt = () => {
      if (this.#boots !== boots) return;
      if (this.isAsleep) this.#asleepFor.push(attempt);
      else run();
    };
    this.#world.agenda.after(ms, attempt);
  }

  /** In this life of the daemon; when it is frozen, after that. */
  inDaemon(ms: number, run: () => void): void {
    const life = this.#life;
    const attempt = () => {
      if (this.#life !== life || !this.#isUp) return;
      if (this.#isFrozen) this.#missed.push(attempt);
      else run();
    };
    this.onMachine(ms, attempt);
  }

  /** Something reaches the daemon of whatever life. */
  hear(event: LeaseEvent): void {
    this.inDaemon(0, () => this.#take(event));
  }

  wish(wish: LeaseWish): void {
    this.#wish = wish;
    if (this.#isUp) this.hear({ kind: "wish", wish });
  }

  #take(event: LeaseEvent): void {
    const { state, effects } = this.#world.rules.step(this.#state, event, this.clock.now(), this.#options);
    this.#state = state;
    for (const effect of effects) this.#carryOut(effect);
    this.#planWake();
  }

  #planWake(): void {
    if (!this.#isUp) return;
    const wake = nextLeaseWake(this.#state, this.#options);
    if (wake === null) return;
    const { agenda, prng } = this.#world;
    const due = Math.max(this.clock.trueTime(wake), agenda.now);
    if (due >= this.#wakeAt) return;
    this.#wakeAt = due;
    this.inDaemon(due - agenda.now + prng.next() * DAEMON_DELAY_MS, () => {
      if (this.#wakeAt === due) this.#wakeAt = Number.POSITIVE_INFINITY;
      this.#take({ kind: "tick" });
    });
  }

  #carryOut(effect: LeaseEffect): void {
    const world = this.#world;
    switch (effect.kind) {
      case "read": {
        const { call } = effect;
        world.callStore(
          this.name,
          null,
          this.#answer(({ record, revision }) => ({ kind: "read", call, observation: { record, revision } })),
        );
        return;
      }
      case "swap": {
        const { call } = effect;
        world.callStore(
          this.name,
          effect,
          this.#answer(({ swapped, record, revision }) =>
            swapped
              ? { kind: "swapped", call, revision }
              : { kind: "refused", call, observation: { record, revision } },
          ),
        );
        return;
      }
      case "arm":
        this.#lastToken = effect.token;
        this.#guard?.tell(effect);
        return;
      case "extend":
        this.#guard?.tell(effect);
        return;
      case "start": {
        const owners = world.machines.filter((machine) => machine.maySay()).map(({ name }) => name);
        world.oracle.demandOneOwner(owners, world.agenda.now);
        this.#acts.begin(effect.token);
        return;
      }
      case "leave":
        this.#leave(effect.token);
        return;
      case "stop":
        if (effect.reason === "deadline") world.counts.lostByDeadline += 1;
        else if (effect.reason === "overtaken") world.counts.lostByOvertaking += 1;
        else world.counts.lostByGuard += 1;
        this.#acts.end();
        this.#guard?.tell({ kind: "kill", token: effect.token });
        this.#killService(effect.token);
        return;
      case "ask":
        for (const to of this.#others)
          world.sendToMember(this.name, to, {
            kind: "asked",
            member: this.name,
            token: effect.token,
            round: effect.round,
          });
        return;
      case "agree":
        world.sendToMember(this.name, effect.member, { ...effect, kind: "agreed", member: this.name });
        return;
      case "note":
        if (effect.note.what === "gave-back") world.counts.givenBackByOwner += 1;
        if (effect.note.what === "stays-without-store") world.counts.stayedWithoutStore += 1;
        if (effect.note.what !== "saw") world.say(`${this.name} ${effect.note.what} ${effect.note.token}`);
        return;
    }
  }

  /** The answer to a request of this life; a later life knows nothing of the request. */
  #answer<T>(toEvent: (result: T) => LeaseEvent): (result: T) => void {
    const life = this.#life;
    return (result) => {
      if (this.#life === life) this.hear(toEvent(result));
    };
  }

  // What the daemon does as the owner.

  mayServeNow(): boolean {
    return mayServe(this.#state, this.clock.now());
  }

  tellGuard(event: GuardEvent): void {
    this.#guard?.tell(event);
  }

  takeAddress(token: number): void {
    this.address = token;
    this.#world.oracle.demandAlone(this, this.#world.agenda.now);
  }

  announce(): void {
    this.#world.oracle.announced(this, this.#world.agenda.now);
  }

  touched(token: number): void {
    this.#acts.touched(token);
  }

  #leave(token: number): void {
    this.#acts.end();
    this.#acts.later(this.#world.prng.next() * LEAVE_MS, () => {
      if (this.service !== null) this.#guard?.tell({ kind: "exited", service: "service" });
      this.endService();
      this.#guard?.tell({ kind: "release", token, resource: "address" });
      this.#guard?.tell({ kind: "disarm", token });
    });
  }

  // The service, as the guard starts and ends it.

  beginService(token: number): void {
    this.service = token;
    this.#world.say(`${this.name} serves under token ${token}`);
    this.#world.oracle.demandAlone(this, this.#world.agenda.now);
    this.#work(token);
    this.hear({ kind: "started", token });
  }

  #work(token: number): void {
    this.onMachine(this.#world.prng.next() * 2 * CHANGE_EVERY_MS, () => {
      if (this.service !== token) return;
      this.#world.change(this.name, token);
      this.#work(token);
    });
  }

  /** A daemon that is awake does not wait for its guard, which may die at this moment. */
  #killService(token: number): void {
    this.inDaemon(this.#world.prng.next() * this.#world.scenario.times.stopMs, () => {
      if (this.service === token || this.address === token) this.endService();
    });
  }

  endService(takesAddress = true): void {
    if (this.service !== null) this.#world.say(`${this.name} ends its service`);
    this.service = null;
    if (takesAddress) this.address = null;
  }
}

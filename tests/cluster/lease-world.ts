import type { LeaseEvent, LeaseRecord, LeaseWish } from "@lockstep/core";
import { Prng, SimAgenda, SimNetwork, SimRecordStore, type SimSwap } from "@lockstep/testing";
import {
  drawScenario,
  type LeaseCounts,
  type LeaseRules,
  type LeaseScenario,
  noLeaseCounts,
  REAL_RULES,
  STRIKES,
  type Strike,
} from "./lease-faults.ts";
import { SimMachine } from "./lease-machine.ts";
import { LeaseOracle, LeaseViolation } from "./lease-oracle.ts";

const STORE = "store";
const DOWNSTREAM = "downstream";
/** How much longer each next candidate waits, so that they do not collide. */
const RANK_MS = 20;
/** How long the calm lasts after progress was demanded, in lease times. */
const CALM_WAITS = 4;

/**
 * Several machines, each with a daemon, a guard, a service and a clock of its own; a store; something outside that the
 * service changes; and a network that all of it passes. Everything follows from one seed. First a time with faults; then
 * all heal, and within two lease times one machine must serve, and go on serving.
 */
export class LeaseWorld {
  readonly counts: LeaseCounts = noLeaseCounts();
  readonly scenario: LeaseScenario;
  readonly rules: LeaseRules;
  readonly prng: Prng;
  readonly agenda = new SimAgenda();
  readonly network: SimNetwork;
  readonly oracle: LeaseOracle;
  readonly machines: readonly SimMachine[];
  /** What happened, in words, if anybody wants to know. */
  readonly trace: string[] | null;
  readonly #store = new SimRecordStore<LeaseRecord>();
  #storeAwayUntil = 0;
  #seenOutside = 0;

  constructor(seed: number, rules: LeaseRules = REAL_RULES, traces = false) {
    this.prng = new Prng(seed);
    this.rules = rules;
    this.trace = traces ? [] : null;
    this.scenario = drawScenario(this.prng.fork());
    this.network = new SimNetwork(this.agenda, this.prng.fork(), this.scenario.network);
    const names = Array.from({ length: this.scenario.nodes }, (_, index) => `node${index + 1}`);
    this.machines = names.map((name) => new SimMachine(this, name, names));
    this.oracle = new LeaseOracle(this.machines);
    this.#store.watch((record, revision) => this.#tellAll(record, revision));
  }

  /** Runs to the end. Throws what must never happen. */
  run(): LeaseCounts {
    const { faultyMs, strikes, times } = this.scenario;
    const prng = this.prng.fork();
    for (const machine of this.machines) {
      machine.boot();
      this.agenda.after(0, () => machine.wish(this.#candidate(machine)));
    }
    for (const strike of STRIKES)
      for (let left = strikes[strike]; left > 0; left--)
        this.agenda.plan(prng.next() * faultyMs, () => this.#strike(strike, prng));
    this.agenda.runUntil(faultyMs);
    this.#heal();
    this.agenda.runUntil(faultyMs + 2 * times.waitMs);
    const owner = this.#demandProgress();
    this.agenda.runUntil(faultyMs + (2 + CALM_WAITS) * times.waitMs);
    const after = this.#demandProgress();
    if (after !== owner)
      throw new LeaseViolation(`${this.agenda.now}: moved from ${owner} to ${after} for nothing`);
    this.#count();
    return this.counts;
  }

  say(text: string): void {
    this.trace?.push(`${this.agenda.now.toFixed(1).padStart(9)} ${text}`);
  }

  /** The wishes of a healthy cluster: everybody would own, some a little later. */
  #candidate(machine: SimMachine, force = false): LeaseWish {
    return { kind: "take", delayMs: this.machines.indexOf(machine) * RANK_MS, force };
  }

  // Faults.

  #strike(strike: Strike, prng: Prng): void {
    const { agenda, scenario } = this;
    const { waitMs } = scenario.times;
    const owner = this.machines.find(({ service }) => service !== null);
    // Whoever serves is the one whose faults teach most.
    const machine = owner !== undefined && prng.chance(0.7) ? owner : prng.pick(this.machines);
    if (machine === undefined) return;
    const ms = prng.next() * (prng.chance(0.5) ? waitMs : 3 * waitMs);
    const until = Math.min(agenda.now + ms, scenario.faultyMs);
    this.say(`${strike} ${machine.name} until ${until.toFixed(0)}`);
    switch (strike) {
      case "daemonFrozen":
        machine.freezeDaemon(until);
        return;
      case "daemonKilled":
        machine.killDaemon(until);
        return;
      case "guardKilled":
        machine.killGuard();
        return;
      case "guardFrozen":
        machine.freezeGuard(until);
        return;
      case "machineFrozen":
        machine.freezeAll(until);
        return;
      case "machineLost":
        machine.lose(until);
        return;
      case "clockChanged":
        machine.changeRate();
        return;
      case "cutOneWay":
      case "cutBothWays": {
        const other = prng.pick([STORE, STORE, DOWNSTREAM, ...this.machines.map(({ name }) => name)]);
        const isOut = prng.chance(0.5);
        if (isOut || strike === "cutBothWays") this.network.cut(machine.name, other, until);
        if (!isOut || strike === "cutBothWays") this.network.cut(other, machine.name, until);
        return;
      }
      case "storeAway":
        this.#storeAwayUntil = Math.max(this.#storeAwayUntil, until);
        return;
      case "move": {
        const next = prng.chance(0.7) ? (prng.pick(this.machines)?.name ?? null) : null;
        machine.wish({ kind: "leave", next });
        agenda.plan(until, () => machine.wish(this.#candidate(machine)));
        return;
      }
      case "maintenance":
        for (const each of this.machines) {
          each.wish({ kind: "keep" });
          agenda.plan(until, () => each.wish(this.#candidate(each)));
        }
        return;
    }
  }

  #heal(): void {
    this.say("heals");
    this.#storeAwayUntil = 0;
    this.network.heal();
    for (const machine of this.machines) {
      machine.heal();
      machine.wish(this.#candidate(machine, true));
    }
  }

  #demandProgress(): string {
    const { now } = this.agenda;
    const serving = this.machines.filter((machine) => machine.service !== null && machine.maySay());
    const [first] = serving;
    if (serving.length !== 1 || first === undefined)
      throw new LeaseViolation(
        `${now}: ${serving.length} serve, though all has healed: ${this.machines.map((each) => each.describe()).join("; ")}`,
      );
    if (first.address !== first.service) throw new LeaseViolation(`${now}: ${first.name} has no address`);
    return `${first.name} under token ${first.service}`;
  }

  // The store and what lies outside.

  /** One request to the store and its answer. */
  callStore(
    from: string,
    request: { readonly expected: number; readonly record: LeaseRecord; readonly takes: boolean } | null,
    answer: (result: SimSwap<LeaseRecord>) => void,
  ): void {
    this.network.send(from, STORE, () => {
      if (this.agenda.now < this.#storeAwayUntil) return;
      this.agenda.after(this.prng.next() * this.scenario.commitMs, () => {
        if (this.agenda.now < this.#storeAwayUntil) return;
        const result = request === null ? this.#store.read() : this.#swap(request);
        this.network.send(STORE, from, () => answer(result));
      });
    });
  }

  #swap(request: { expected: number; record: LeaseRecord; takes: boolean }): SimSwap<LeaseRecord> {
    const { record, takes } = request;
    const expected = this.rules.compares ? request.expected : this.#store.read().revision;
    const result = this.#store.swap(expected, record, takes && this.rules.compares ? record.token : null);
    if (result.swapped && takes) {
      this.counts.taken += 1;
      this.say(`${record.node} takes token ${record.token}`);
      this.oracle.taken(record.token, record.node ?? "nobody", this.agenda.now);
    }
    return result;
  }

  #tellAll(record: LeaseRecord, revision: number): void {
    for (const machine of this.machines)
      this.network.send(STORE, machine.name, () =>
        machine.hear({ kind: "seen", observation: { record, revision } }),
      );
  }

  sendToMember(from: string, to: string, event: LeaseEvent): void {
    const machine = this.machines.find(({ name }) => name === to);
    this.network.send(from, to, () => machine?.hear(event));
  }

  /** Something that the service changes outside, under its token. */
  change(from: string, token: number): void {
    this.network.send(from, DOWNSTREAM, () => {
      if (this.rules.checksTokens && token < this.#seenOutside) {
        this.counts.oldTokensRefused += 1;
        return;
      }
      this.#seenOutside = Math.max(this.#seenOutside, token);
      this.counts.effectsAccepted += 1;
      this.oracle.accepted(token, from, this.agenda.now);
    });
  }

  #count(): void {
    const { counts, network } = this;
    counts.messagesLost = network.counts.lost;
    counts.messagesLate = network.counts.slow;
    counts.messagesTwice = network.counts.duplicated;
    counts.messagesCut = network.counts.cut;
    counts.servedBySleepers = this.oracle.excused;
  }
}

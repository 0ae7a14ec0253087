import {
  type GuardEffect,
  type GuardEvent,
  type GuardState,
  nextGuardWake,
  startGuard,
  WRITTEN_BY_GUARD,
} from "@lockstep/core";
import type { SimMachine } from "./lease-machine.ts";

const GIVE_BACK_TRIES = 3;

/**
 * The guard process of a simulated machine: the decision that ships, a pipe from the daemon, and a scheduler that lets it
 * run late by up to the guard delay that the lease was proven with.
 */
export class SimGuard {
  isUp = true;
  readonly #machine: SimMachine;
  readonly #instance: string;
  readonly #pipe: GuardEvent[] = [];
  #state: GuardState = startGuard();
  #isFrozen = false;

  constructor(machine: SimMachine, tokenMax: number) {
    this.#machine = machine;
    this.#instance = machine.options.instance;
    this.#state = { kind: "idle", tokenMax, closed: false };
  }

  /** Writes into its pipe. */
  tell(event: GuardEvent): void {
    if (!this.isUp) return;
    this.#pipe.push(event);
    this.#turnAt(0);
  }

  freeze(): void {
    this.#isFrozen = true;
  }

  thaw(): void {
    if (!this.#isFrozen) return;
    this.#isFrozen = false;
    this.#turnAt(0);
  }

  /** Its deadline may have come nearer: the clock runs faster now, or slept. */
  look(): void {
    const wake = nextGuardWake(this.#state);
    if (wake === null) return;
    const { clock, world } = this.#machine;
    this.#turnAt(Math.max(0, clock.trueTime(wake) - world.agenda.now));
  }

  #turnAt(ms: number): void {
    const { prng, scenario } = this.#machine.world;
    this.#machine.onMachine(ms + prng.next() * scenario.times.guardDelayMs, () => this.#turn());
  }

  /** First all that was told, then the clock. */
  #turn(): void {
    if (!this.isUp || this.#isFrozen) return;
    const before = nextGuardWake(this.#state);
    for (const event of this.#pipe.splice(0)) this.#take(event);
    this.#take({ kind: "tick" });
    if (nextGuardWake(this.#state) !== before) this.look();
  }

  #take(event: GuardEvent): void {
    const machine = this.#machine;
    const { state, effects } = machine.world.rules.guard(this.#state, event, machine.clock.now());
    this.#state = state;
    for (const effect of effects) this.#carryOut(effect);
  }

  #carryOut(effect: GuardEffect): void {
    const machine = this.#machine;
    const { world } = machine;
    switch (effect.kind) {
      case "armed":
        machine.hear({ kind: "armed", token: effect.token });
        return;
      case "spawn":
        machine.beginService(effect.token);
        return;
      case "kill":
        if (effect.why !== "told") world.counts.guardKills += 1;
        world.say(`guard of ${machine.name} kills ${effect.token}: ${effect.why}`);
        machine.onMachine(world.prng.next() * world.scenario.times.stopMs, () => {
          if (!this.isUp) return;
          machine.endService(effect.touched.includes("address"));
          this.tell({ kind: "gone", isClean: true });
        });
        return;
      case "touched":
        machine.touched(effect.token);
        return;
      case "exited":
        return;
      case "stopped":
        machine.hear({ kind: "stopped", token: effect.token });
        return;
      case "give-back":
        this.#giveBack(effect.token, GIVE_BACK_TRIES);
        return;
      case "exit":
        this.isUp = false;
        return;
    }
  }

  /** Reads, and swaps what still names its daemon. Answers may get lost; it tries a few times and then leaves it. */
  #giveBack(token: number, tries: number): void {
    if (tries === 0) return;
    const { world, name } = this.#machine;
    let isAnswered = false;
    world.callStore(name, null, ({ record, revision }) => {
      if (isAnswered || record === null || record.instance !== this.#instance || record.token !== token)
        return;
      if (record.node === null) return;
      isAnswered = true;
      const given = { ...record, node: null, next: null, write: WRITTEN_BY_GUARD };
      world.callStore(name, { expected: revision, record: given, takes: false }, ({ swapped }) => {
        if (swapped) world.counts.givenBackByGuard += 1;
      });
    });
    this.#machine.onMachine(world.scenario.times.callMs, () => {
      if (!isAnswered) this.#giveBack(token, tries - 1);
    });
  }
}

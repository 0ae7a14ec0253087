import type { GuardEvent } from "@lockstep/core";
import type { LeaseWorld } from "./lease-world.ts";

const ACT_MS = 25;
const ANNOUNCE_EVERY_MS = 150;

type Act = "touch" | "address" | "announce" | "launch";
const START: readonly Act[] = ["touch", "address", "announce", "launch", "announce", "announce"];
const AGAIN: readonly Act[] = ["announce", "announce", "announce"];

/** What acts happen on. */
export interface ActingMachine {
  readonly world: LeaseWorld;
  inDaemon(ms: number, run: () => void): void;
  mayServeNow(): boolean;
  tellGuard(event: GuardEvent): void;
  takeAddress(token: number): void;
  announce(): void;
}

/** What a simulated daemon does outside while it owns: one act after another, each a little later, each asking first. */
export class OwnerActs {
  readonly #machine: ActingMachine;
  /** What a daemon that caches would believe. */
  #flag = false;
  #sequence = 0;
  /** What goes on when the guard has answered. */
  #onTouched: { readonly token: number; readonly go: () => void } | null = null;

  constructor(machine: ActingMachine) {
    this.#machine = machine;
  }

  begin(token: number): void {
    this.#flag = true;
    this.#sequence += 1;
    this.#act(START, token, this.#sequence, true);
  }

  end(): void {
    this.#flag = false;
    this.#sequence += 1;
  }

  /** Runs this later, unless another begin or end comes before. */
  later(ms: number, run: () => void): void {
    const sequence = this.#sequence;
    this.#machine.inDaemon(ms, () => {
      if (this.#sequence === sequence) run();
    });
  }

  /** The guard knows how to take the address away. */
  touched(token: number): void {
    this.#machine.inDaemon(0, () => {
      const waiting = this.#onTouched;
      if (waiting?.token !== token) return;
      this.#onTouched = null;
      waiting.go();
    });
  }

  #act(acts: readonly Act[], token: number, sequence: number, isFirst: boolean): void {
    const [act, ...rest] = acts;
    const { world } = this.#machine;
    if (act === undefined) {
      this.#machine.inDaemon(ANNOUNCE_EVERY_MS, () => {
        if (this.#sequence === sequence) this.#act(AGAIN, token, sequence, true);
      });
      return;
    }
    this.#machine.inDaemon(1 + world.prng.next() * (ACT_MS - 1), () => {
      if (this.#sequence !== sequence) return;
      if (!this.#mayAct(isFirst)) {
        world.counts.actsRefused += 1;
        return;
      }
      const goOn = () => this.#act(rest, token, sequence, false);
      if (act === "touch" && world.rules.touches) {
        this.#onTouched = { token, go: goOn };
        this.#machine.tellGuard({ kind: "touch", token, resource: "address" });
        return;
      }
      this.#do(act, token);
      goOn();
    });
  }

  #mayAct(isFirst: boolean): boolean {
    switch (this.#machine.world.rules.asks) {
      case "before-each-act":
        return this.#machine.mayServeNow();
      case "once-a-sequence":
        return !isFirst || this.#machine.mayServeNow();
      case "a-flag":
        return this.#flag;
    }
  }

  #do(act: Act, token: number): void {
    switch (act) {
      case "touch":
        return;
      case "address":
        this.#machine.takeAddress(token);
        return;
      case "announce":
        this.#machine.announce();
        return;
      case "launch":
        this.#machine.tellGuard({ kind: "launch", token, service: "service" });
        return;
    }
  }
}

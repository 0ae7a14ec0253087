import {
  type LeaseEffect,
  type LeaseEvent,
  type LeaseNote,
  type LeaseOptions,
  type LeaseState,
  type LeaseWish,
  leaseToken,
  mayServe,
  nextLeaseWake,
  startLease,
  stepLease,
} from "@lockstep/core";
import { isLockstepError } from "@lockstep/protocol/wire";
import { bootClock } from "./boot-clock.ts";
import type { Coordination } from "./coordination/coordination.ts";
import { type Guard, startGuardProcess } from "./guard/guard-client.ts";
import type { FromGuard, GuardConfig } from "./guard/messages.ts";

/**
 * The lease of one virtual server as a node's daemon drives it: calls the store, tells the guard, and decides nothing.
 *
 * No call is waited for in the loop: a renewal that hangs must not stop the clock. The state stands before its effects are
 * carried out, because an effect may call back.
 */
export interface LeaseDriverOptions {
  readonly lease: LeaseOptions;
  readonly guard: GuardConfig;
  readonly coordination: Coordination;
  /** How long the service may take to end by itself when the virtual server leaves. */
  readonly graceMs: number;
  readonly note: (note: LeaseNote) => void;
  /** The service ended by itself, or could not be started, while we own. */
  readonly exited: (token: number) => void;
  /** A message for the daemon of another node; only failsafe sends any. */
  readonly send?: (member: string, event: LeaseEvent) => void;
}

export class LeaseDriver {
  readonly #options: LeaseDriverOptions;
  readonly #now = bootClock();
  readonly #ending = new AbortController();
  #state: LeaseState = startLease();
  #guard: Guard;
  #timer: NodeJS.Timeout | undefined;
  #grace: NodeJS.Timeout | undefined;
  #watching: Promise<void>;
  #lastToken = 0;
  #leaving: number | null = null;

  constructor(options: LeaseDriverOptions) {
    this.#options = options;
    this.#guard = this.#startGuard();
    this.#watching = options.coordination.watch(
      options.guard.virtualServer,
      (observation) => this.#apply({ kind: "seen", observation }),
      this.#ending.signal,
    );
  }

  /** What a former life left is gone. */
  cleaned(): void {
    this.#apply({ kind: "cleaned" });
  }

  wish(wish: LeaseWish): void {
    this.#apply({ kind: "wish", wish });
  }

  /** Something from another node's daemon. */
  hear(event: LeaseEvent): void {
    this.#apply(event);
  }

  /** To be asked before each act. */
  mayServe(): boolean {
    return mayServe(this.#state, this.#now());
  }

  /** The token to show with each act, or null when there must be none. */
  token(): number | null {
    return leaseToken(this.#state, this.#now());
  }

  /** Starts the service again under the same lease, after it ended by itself. */
  restart(token: number): void {
    if (this.token() === token) this.#guard.tell({ kind: "launch", token });
  }

  /** Ends the service and everything else, and gives the lease back. */
  async close(): Promise<void> {
    this.#ending.abort();
    clearTimeout(this.#timer);
    clearTimeout(this.#grace);
    await this.#guard.close();
    await this.#watching;
  }

  #apply(event: LeaseEvent): void {
    if (this.#ending.signal.aborted) return;
    const { state, effects } = stepLease(this.#state, event, this.#now(), this.#options.lease);
    this.#state = state;
    for (const effect of effects) this.#carryOut(effect);
    this.#plan();
  }

  #plan(): void {
    clearTimeout(this.#timer);
    const wake = nextLeaseWake(this.#state, this.#options.lease);
    if (wake === null) return;
    this.#timer = setTimeout(() => this.#apply({ kind: "tick" }), Math.max(0, Math.ceil(wake - this.#now())));
  }

  #carryOut(effect: LeaseEffect): void {
    const { coordination, guard, note, send, lease } = this.#options;
    switch (effect.kind) {
      case "read": {
        const { call } = effect;
        this.#ask(
          call,
          coordination
            .read(guard.virtualServer)
            .then((observation) => ({ kind: "read", call, observation }) as const),
        );
        return;
      }
      case "swap": {
        const { call } = effect;
        this.#ask(
          call,
          coordination
            .swap(guard.virtualServer, effect)
            .then((answer) =>
              answer.swapped
                ? ({ kind: "swapped", call, revision: answer.revision } as const)
                : ({ kind: "refused", call, observation: answer.observation } as const),
            ),
        );
        return;
      }
      case "arm":
        this.#lastToken = effect.token;
        this.#guard.tell(effect);
        return;
      case "extend":
        this.#guard.tell(effect);
        return;
      case "start":
        // Carried out at once; still the guard looks at the clock again before it launches.
        if (this.mayServe()) this.#guard.tell({ kind: "launch", token: effect.token });
        return;
      case "leave":
        this.#leave(effect.token);
        return;
      case "stop":
        // Both: the guard may die at this moment, and so may we.
        this.#guard.tell({ kind: "kill", token: effect.token });
        void this.#guard.endService();
        return;
      case "ask":
        for (const member of lease.members)
          send?.(member, { kind: "asked", member: lease.node, token: effect.token, round: effect.round });
        return;
      case "agree":
        send?.(effect.member, {
          kind: "agreed",
          member: lease.node,
          token: effect.token,
          round: effect.round,
        });
        return;
      case "note":
        note(effect.note);
        return;
    }
  }

  /** An answer becomes an event; a failure too, and any other error is a fault of ours. */
  #ask(call: number, answer: Promise<LeaseEvent>): void {
    void answer
      .catch((error: unknown): LeaseEvent => {
        if (!isLockstepError(error)) throw error;
        return { kind: "failed", call };
      })
      .then((event) => this.#apply(event));
  }

  #leave(token: number): void {
    this.#leaving = token;
    this.#guard.tell({ kind: "terminate", token });
    // The guard kills what has not ended by then.
    this.#grace = setTimeout(() => this.#guard.tell({ kind: "disarm", token }), this.#options.graceMs);
  }

  #startGuard(): Guard {
    const guard: Guard = startGuardProcess(this.#options.guard, {
      heard: (message) => {
        if (guard === this.#guard) this.#heard(message);
      },
      lost: () => {
        if (guard === this.#guard) this.#guardLost();
      },
    });
    return guard;
  }

  #heard(message: FromGuard): void {
    const { token } = message;
    switch (message.kind) {
      case "armed":
        this.#apply({ kind: "armed", token });
        return;
      case "spawned":
        this.#apply({ kind: "started", token });
        return;
      case "failed":
        return;
      case "stopped":
        if (message.why !== "exited") {
          clearTimeout(this.#grace);
          this.#leaving = null;
          this.#apply({ kind: "stopped", token });
        } else if (this.#leaving === token) this.#guard.tell({ kind: "disarm", token });
        else this.#options.exited(token);
        return;
    }
  }

  /** Its last resort kills the service too; a new guard begins when nothing is left. */
  #guardLost(): void {
    this.#apply({ kind: "guard-lost" });
    const lost = this.#guard;
    void lost.endService().then(() => {
      if (this.#ending.signal.aborted) return;
      this.#guard = this.#startGuard();
      this.#apply({ kind: "stopped", token: this.#lastToken });
    });
  }
}

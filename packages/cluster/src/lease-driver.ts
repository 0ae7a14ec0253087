import {
  type LeaseEffect,
  type LeaseEvent,
  type LeaseNote,
  type LeaseOptions,
  type LeaseRole,
  type LeaseState,
  type LeaseWish,
  type LostReason,
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
import type { FromGuard, GuardConfig, ToGuard } from "./guard/messages.ts";

/**
 * The lease of one virtual server as a node's daemon drives it: calls the store, tells the guard, and decides nothing.
 * What is served under the lease it does not know; the hooks do.
 *
 * No call is waited for in the loop: a renewal that hangs must not stop the clock. The state stands before its effects are
 * carried out, because an effect may call back.
 */
export interface LeaseDriverOptions {
  readonly lease: LeaseOptions;
  readonly guard: GuardConfig;
  readonly coordination: Coordination;
  readonly hooks: LeaseHooks;
}

/** What of a lease may change while it is held. */
export type LeaseTuning = Omit<LeaseOptions, "node" | "instance">;

export interface LeaseHooks {
  /** The lease is ours and the guard armed: begin. Each act asks `token()` again. */
  start(token: number): void;
  /** Take everything offline in order, then call `left`; the lease goes on meanwhile. */
  leave(token: number): void;
  /** It is lost: end everything now. Resolves when nothing is left that is not the guard's to end. Never rejects. */
  stop(token: number, reason: LostReason): Promise<void>;
  /** The guard said something of a resource or of itself. */
  heard(message: FromGuard): void;
  /** A guard was started: the first, or one in place of one that was lost. */
  guarded(guard: Guard): void;
  /** The state of the lease may differ from before. */
  changed(): void;
  note(note: LeaseNote): void;
  /** How long something took that the times of the lease must allow for. */
  measured(term: "guardDelayMs" | "stopMs", ms: number): void;
  /** A message for the daemon of another node; only failsafe sends any. */
  send?(member: string, event: LeaseEvent): void;
}

/** How often the guard is asked, so that one that is frozen is found before it is needed. */
const GUARD_ASKED_MS = 2_000;
/**
 * One that has not answered after so many turns is replaced; the others take over long before. Turns of our own, not time:
 * when the whole machine stood still, the guard had none to answer in.
 */
const GUARD_SILENT_TURNS = 3;
/** Before another one in the place of one that never was there: whatever keeps it from beginning takes the whole daemon. */
const GUARD_AGAIN_MS = 500;

interface Ending {
  readonly token: number;
  /** What the daemon itself ends. */
  readonly done: Promise<unknown>;
}

export class LeaseDriver {
  readonly #options: LeaseDriverOptions;
  readonly #now = bootClock();
  readonly #closing = new AbortController();
  #lease: LeaseOptions;
  #state: LeaseState = startLease();
  #guard: Guard;
  #timer: NodeJS.Timeout | undefined;
  #silence: NodeJS.Timeout | undefined;
  #watching: Promise<void>;
  readonly #asking: NodeJS.Timeout;
  /** Who waits for the guard to answer; and for how many turns it has not, null: it was not asked. */
  #pongs: (() => void)[] = [];
  #silentTurns: number | null = null;
  /** One that is still being started may take long on a busy machine, and owns nothing. */
  #isGuardReady = false;
  #lastToken = 0;
  #ending: Ending | null = null;
  /** The token whose rest the guard was told to end, so that it can be given back; `isLeft`: until that is gone. */
  #abandoned: { readonly token: number; readonly isLeft: Promise<void> | null } | null = null;

  constructor(options: LeaseDriverOptions) {
    this.#options = options;
    this.#lease = options.lease;
    this.#guard = this.#startGuard();
    this.#watching = options.coordination.watch(
      options.guard.virtualServer,
      (observation) => this.#apply({ kind: "seen", observation }),
      this.#closing.signal,
    );
    this.#asking = setInterval(() => this.#askGuard(), GUARD_ASKED_MS);
  }

  /** What a former life left is gone. */
  cleaned(): void {
    this.#apply({ kind: "cleaned" });
  }

  wish(wish: LeaseWish): void {
    this.#apply({ kind: "wish", wish });
  }

  /** Takes effect with the next step. Which times may follow which is for the caller to know (core/lease-change.ts). */
  tune(tuning: LeaseTuning): void {
    this.#lease = { ...this.#lease, ...tuning };
    this.#apply({ kind: "tick" });
  }

  /** Something from another node's daemon. */
  hear(event: LeaseEvent): void {
    this.#apply(event);
  }

  /** Everything is online under this token; for those who look. */
  started(token: number): void {
    this.#apply({ kind: "started", token });
  }

  /** Everything is offline in order. The guard ends and undoes what is left all the same; then the lease is given back. */
  left(token: number): void {
    this.#abandoned = { token, isLeft: null };
    this.tell({ kind: "disarm", token });
    this.#expectAnswer();
  }

  /**
   * Not everything would go offline in order: the guard ends the rest, and the lease is given back. What the guard cannot
   * end either keeps the lease here until `isLeft` resolves.
   */
  abandon(token: number, isLeft: Promise<void>): void {
    this.#abandoned = { token, isLeft };
    this.tell({ kind: "kill", token });
    this.#expectAnswer();
  }

  /** To the guard. */
  tell(message: ToGuard): void {
    this.#guard.tell(message);
  }

  /** Resolves when the guard says that it is there; one that is frozen never does. */
  guardAnswers(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#pongs.push(resolve);
    this.tell({ kind: "ping" });
    return promise;
  }

  get role(): LeaseRole {
    return this.#state.role;
  }

  /** Whether others must still take it that we own: owning, ending, or giving back. */
  get isHolding(): boolean {
    const { role } = this.#state;
    if (role.kind !== "observing") return role.kind !== "cleaning";
    const record = role.seen?.record ?? null;
    return record !== null && record.node !== null && record.instance === this.#lease.instance;
  }

  /** To be asked before each act. */
  mayServe(): boolean {
    return mayServe(this.#state, this.#now());
  }

  /** The token to show with each act, or null when there must be none. */
  token(): number | null {
    return leaseToken(this.#state, this.#now());
  }

  /** The guard ends what is left and gives the lease back. */
  async close(): Promise<void> {
    this.#closing.abort();
    clearTimeout(this.#timer);
    clearInterval(this.#silence);
    clearInterval(this.#asking);
    await this.#guard.close();
    await this.#watching;
  }

  #apply(event: LeaseEvent): void {
    if (this.#closing.signal.aborted) return;
    const { state, effects } = stepLease(this.#state, event, this.#now(), this.#lease);
    this.#state = state;
    for (const effect of effects) this.#carryOut(effect);
    this.#plan();
    if (effects.length > 0) this.#options.hooks.changed();
  }

  #plan(): void {
    clearTimeout(this.#timer);
    const wake = nextLeaseWake(this.#state, this.#lease);
    if (wake === null) return;
    this.#timer = setTimeout(() => this.#apply({ kind: "tick" }), Math.max(0, Math.ceil(wake - this.#now())));
  }

  #carryOut(effect: LeaseEffect): void {
    const { coordination, guard, hooks } = this.#options;
    const lease = this.#lease;
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
        this.tell(effect);
        return;
      case "extend":
        this.tell(effect);
        return;
      case "start":
        if (this.mayServe()) hooks.start(effect.token);
        return;
      case "leave":
        hooks.leave(effect.token);
        return;
      case "stop":
        this.#end(effect.token, effect.reason);
        return;
      case "ask":
        for (const member of lease.members)
          hooks.send?.(member, {
            kind: "asked",
            member: lease.node,
            token: effect.token,
            round: effect.round,
          });
        return;
      case "agree":
        hooks.send?.(effect.member, {
          kind: "agreed",
          member: lease.node,
          token: effect.token,
          round: effect.round,
        });
        return;
      case "note":
        hooks.note(effect.note);
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

  /** Both: the guard may die at this moment, and so may we. */
  #end(token: number, reason: LostReason): void {
    this.tell({ kind: "kill", token });
    const done = Promise.all([this.#guard.endServices(), this.#options.hooks.stop(token, reason)]);
    this.#ending = { token, done };
    this.#expectAnswer();
  }

  #expectAnswer(): void {
    const guard = this.#guard;
    clearInterval(this.#silence);
    let turns = 0;
    this.#silence = setInterval(() => {
      turns += 1;
      if (turns === GUARD_SILENT_TURNS) guard.kill();
    }, GUARD_ASKED_MS);
  }

  /** A guard that does not answer for so long cannot end anything in time: its last resort does what it does not. */
  #askGuard(): void {
    const guard = this.#guard;
    if (!this.#isGuardReady) return;
    if (this.#silentTurns === null) {
      this.#silentTurns = 0;
      this.tell({ kind: "ping" });
      return;
    }
    this.#silentTurns += 1;
    if (this.#silentTurns < GUARD_SILENT_TURNS) return;
    // Who stood still itself reads first what was said meanwhile.
    setImmediate(() => {
      if (this.#silentTurns !== null && guard === this.#guard && !this.#closing.signal.aborted) guard.kill();
    });
  }

  #startGuard(): Guard {
    this.#silentTurns = null;
    this.#isGuardReady = false;
    const guard: Guard = startGuardProcess(this.#options.guard, {
      heard: (message) => {
        if (guard === this.#guard) this.#heard(message);
      },
      lost: () => {
        if (guard === this.#guard) this.#guardLost();
      },
    });
    this.#options.hooks.guarded(guard);
    return guard;
  }

  #heard(message: FromGuard): void {
    this.#options.hooks.heard(message);
    if (message.kind === "ready") this.#isGuardReady = true;
    if (message.kind === "pong") {
      this.#silentTurns = null;
      for (const resolve of this.#pongs.splice(0)) resolve();
      this.#options.hooks.measured("guardDelayMs", message.delayMs);
    }
    if (message.kind === "stopped" && message.tookMs !== null)
      this.#options.hooks.measured("stopMs", message.tookMs);
    if (message.kind === "armed") this.#apply({ kind: "armed", token: message.token });
    if (message.kind === "stopped") this.#stopped(message);
  }

  /** Nothing that the guard ends is left of this token. */
  #stopped({ token, why, isClean }: Extract<FromGuard, { kind: "stopped" }>): void {
    clearInterval(this.#silence);
    const isOurs = this.#state.role.kind === "owner" && this.#state.role.token === token;
    if (isOurs && this.#abandoned?.token === token && why !== "deadline") {
      const { isLeft } = this.#abandoned;
      this.#abandoned = null;
      // Held on to until it is gone: whoever takes over would run beside it.
      if (isClean || isLeft === null) this.#apply({ kind: "stopped", token });
      else void isLeft.then(() => this.#apply({ kind: "stopped", token }));
      return;
    }
    // The guard was faster than our own look at the clock.
    if (isOurs) this.#apply({ kind: "guard-lost" });
    if (this.#ending?.token !== token) return;
    void this.#ending.done.then(() => this.#apply({ kind: "stopped", token }));
  }

  /** Its last resort ends what it guarded, and so do we; a new guard begins when nothing is left. */
  #guardLost(): void {
    clearInterval(this.#silence);
    this.#apply({ kind: "guard-lost" });
    const lost = this.#guard;
    const ending = this.#ending?.done;
    const pause = this.#isGuardReady
      ? null
      : new Promise((resolve) => setTimeout(resolve, GUARD_AGAIN_MS).unref());
    void Promise.all([lost.endServices(), ending, pause]).then(() => {
      if (this.#closing.signal.aborted) return;
      this.#guard = this.#startGuard();
      this.#apply({ kind: "stopped", token: this.#lastToken });
    });
  }
}

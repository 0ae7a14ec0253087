import type { LockstepError } from "@lockstep/protocol/wire";

/**
 * The word to one step that it must stop, and why.
 *
 * Most steps are never told and never ask: a signal with its listeners takes longer than all that many of them do. So the
 * signal is made when somebody asks for it, and whoever only waits for the word leaves a call here.
 */
export class StopOrder {
  #reason: LockstepError | null = null;
  #abort: AbortController | null = null;
  #calls: ((reason: LockstepError) => void)[] | null = null;

  /** Null: the step may go on. */
  get reason(): LockstepError | null {
    return this.#reason;
  }

  /** Aborts with the reason when the order is given. */
  get signal(): AbortSignal {
    if (this.#abort === null) {
      this.#abort = new AbortController();
      if (this.#reason !== null) this.#abort.abort(this.#reason);
    }
    return this.#abort.signal;
  }

  /** Given twice, the first one counts. */
  give(reason: LockstepError): void {
    if (this.#reason !== null) return;
    this.#reason = reason;
    this.#abort?.abort(reason);
    const calls = this.#calls ?? [];
    this.#calls = null;
    for (const call of calls) call(reason);
  }

  /** Calls back when the order is given, at once where it has been. */
  whenGiven(call: (reason: LockstepError) => void): void {
    if (this.#reason !== null) call(this.#reason);
    else if (this.#calls === null) this.#calls = [call];
    else this.#calls.push(call);
  }
}

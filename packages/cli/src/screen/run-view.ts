import { type Interruption, listenForInterruption, printable, systemClock } from "@lockstep/platform";
import type { ProgressEvent, ProgressPhase, SessionOptions } from "@lockstep/updater";
import { accessOf, type ChangeArguments } from "../installation.ts";
import { Output } from "./output.ts";
import { Progress } from "./progress.ts";

/** Phases whose amounts are worth a bar, with the word for it. */
const TITLES: Partial<Record<ProgressPhase, string>> = {
  compare: "comparing",
  fetch: "fetching",
  prepare: "preparing",
  switch: "switching",
  verify: "verifying",
};

/**
 * A run of the updater as a person sees it: what it does now, how far it is, what it has to say. Notices are kept as
 * well, for the document of `--json`.
 */
export class RunView implements Disposable {
  readonly output: Output;
  readonly #interruption: Interruption = listenForInterruption();
  #phase: ProgressPhase | null = null;
  #progress: Progress | null = null;

  constructor(options: { readonly json?: boolean; readonly quiet?: boolean }) {
    this.output = new Output(options);
    this.output.beforeText = () => this.#end();
  }

  get signal(): AbortSignal {
    return this.#interruption.signal;
  }

  /** What every function of the updater is given. */
  session(options: ChangeArguments): SessionOptions {
    return {
      access: accessOf(options),
      signal: this.signal,
      progress: this.listener,
      ...(options.waitLock === undefined ? {} : { lockWaitMs: options.waitLock * 1000 }),
    };
  }

  readonly listener = (event: ProgressEvent): void => {
    if (event.kind === "notice") {
      this.output.note(printable(event.message));
    } else if (event.kind === "phase") {
      if (event.phase !== this.#phase) this.#end();
      this.#phase = event.phase;
      if (this.output.remarks.interactive) this.#show(event.phase)?.update({ bytes: 0, bytesTotal: null });
    } else {
      if (event.phase !== this.#phase) this.#end();
      this.#phase = event.phase;
      this.#show(event.phase)?.update({
        bytes: event.bytes,
        bytesTotal: event.bytesTotal,
        files: event.files,
        filesTotal: event.filesTotal,
      });
    }
  };

  /** Leaves a clean line behind, however the run ended. */
  [Symbol.dispose](): void {
    this.#end();
    this.#interruption[Symbol.dispose]();
  }

  #show(phase: ProgressPhase): Progress | null {
    const title = TITLES[phase];
    if (title === undefined || this.output.quiet) return null;
    this.#progress ??= new Progress(title, this.output.remarks, systemClock);
    return this.#progress;
  }

  /** Only what travelled is worth a line that stays. */
  #end(): void {
    this.#progress?.finish(this.#phase === "fetch" || this.#phase === "verify" ? undefined : null);
    this.#progress = null;
  }
}

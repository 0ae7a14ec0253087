import { LockstepError } from "@lockstep/protocol/wire";

/**
 * Ctrl-C and the stop of a supervisor as one AbortSignal. The first signal asks: `signal` aborts and everything that
 * was given it comes to a clean end. A second one, later than a moment, insists: the process ends at once.
 *
 * The reason of the abort is an error with the code INTERRUPTED.
 *
 * Within that moment signals count as one, because a Ctrl-C in a terminal reaches the whole process group and is
 * forwarded by the programs above us as well.
 */
export interface Interruption {
  readonly signal: AbortSignal;
  /** The name of the signal that came, for the exit status; null before. */
  readonly received: () => NodeJS.Signals | null;
  /** Stops listening; the signals have their usual meaning again. */
  readonly [Symbol.dispose]: () => void;
}

/** Whatever signals come from: the process. */
export interface SignalSource {
  on(signal: NodeJS.Signals, listener: (signal: NodeJS.Signals) => void): unknown;
  off(signal: NodeJS.Signals, listener: (signal: NodeJS.Signals) => void): unknown;
}

/** The signal that came to this process first, whoever listened for it; null: none. For its exit status alone. */
export function firstSignal(): NodeJS.Signals | null {
  return first;
}

let first: NodeJS.Signals | null = null;
const SAME_PRESS_MS = 1000;
const NUMBERS: Partial<Record<NodeJS.Signals, number>> = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 };

/** The exit status that a shell expects of a process that ended because of this signal. */
export function signalExitStatus(signal: NodeJS.Signals): number {
  return 128 + (NUMBERS[signal] ?? 0);
}

/** Begins to listen for SIGINT, SIGTERM and SIGHUP. */
export function listenForInterruption(
  source: SignalSource = process,
  monotonic: () => number = () => performance.now(),
  exit: (status: number) => void = (status) => process.exit(status),
): Interruption {
  const controller = new AbortController();
  let received: NodeJS.Signals | null = null;
  let receivedAt = 0;
  const onSignal = (signal: NodeJS.Signals) => {
    if (received === null) {
      received = signal;
      if (source === process) first ??= signal;
      receivedAt = monotonic();
      controller.abort(new LockstepError("INTERRUPTED", `stopped by ${signal}`));
    } else if (monotonic() - receivedAt > SAME_PRESS_MS) exit(signalExitStatus(signal));
  };
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of signals) source.on(signal, onSignal);
  return {
    signal: controller.signal,
    received: () => received,
    [Symbol.dispose]: () => {
      for (const signal of signals) source.off(signal, onSignal);
    },
  };
}

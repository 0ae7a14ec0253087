import type { Clock } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import type { Coordination } from "./coordination.ts";
import type { Documents } from "./documents.ts";

export interface PatienceOptions {
  readonly clock: Pick<Clock, "monotonic" | "sleep">;
  /** For how long a call is repeated, milliseconds. */
  readonly patienceMs?: number;
  /** Told once, when a call is repeated for the first time. */
  readonly tell?: () => void;
}

/** A store that has lost its leader is without one for a second or two, longer on busy machines. */
const PATIENCE_MS = 10_000;
const AGAIN_MS = 200;

/**
 * A store for commands, which ask once and in order: what it does not answer is asked again for a while, so that a change
 * of its leader ends no command halfway. Nodes need none of this: they look again anyway, and a lease is not to wait.
 *
 * Documents and what is read; swaps and guarded writes are passed on as they are. A write that was repeated and finds its
 * own text there has happened. Throws COORDINATION_UNREACHABLE once its patience is over.
 */
export function patientCoordination(inner: Coordination, options: PatienceOptions): Coordination {
  const { clock, patienceMs = PATIENCE_MS, tell } = options;
  let isTold = false;

  const patiently = async <T>(call: (isRepeated: boolean) => Promise<T>): Promise<T> => {
    const end = clock.monotonic() + patienceMs;
    for (let isRepeated = false; ; isRepeated = true) {
      try {
        return await call(isRepeated);
      } catch (error) {
        if (!isLockstepError(error, "COORDINATION_UNREACHABLE") || clock.monotonic() >= end) throw error;
      }
      if (!isTold) tell?.();
      isTold = true;
      await clock.sleep(AGAIN_MS);
    }
  };

  const documents: Documents = {
    read: (key) => patiently(() => inner.documents.read(key)),
    list: (prefix) => patiently(() => inner.documents.list(prefix)),
    write: (key, expected, text) =>
      patiently(async (isRepeated) => {
        const written = await inner.documents.write(key, expected, text);
        if (written !== null || !isRepeated) return written;
        const present = await inner.documents.read(key);
        if ((present?.text ?? null) !== text) return null;
        return present?.revision ?? expected;
      }),
    watch: (prefix, heard, signal) => inner.documents.watch(prefix, heard, signal),
  };

  return {
    documents,
    read: (name) => patiently(() => inner.read(name)),
    readValues: (name, prefix) => patiently(() => inner.readValues(name, prefix)),
    readValueKeys: (name, prefix) => patiently(() => inner.readValueKeys(name, prefix)),
    swap: (name, swap) => inner.swap(name, swap),
    writeGuarded: (name, token, values) => inner.writeGuarded(name, token, values),
    watch: (name, heard, signal) => inner.watch(name, heard, signal),
    close: () => inner.close(),
  };
}

import type { Clock } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import type { EtcdGateway } from "./etcd-gateway.ts";
import { type KeyValue, keyValue, list, member } from "./etcd-values.ts";

/** A stream that says nothing for so long may be dead; a new one costs nothing and misses nothing. */
const SILENT_MS = 15_000;
const RETRY_MS = 100;

export interface WatchedRange {
  readonly key: string;
  readonly range_end?: string;
}

/**
 * Follows a range until the signal is aborted, over every broken stream. `look` looks at it by itself, as of a revision
 * that it returns; it is called at the start and whenever changes may have been missed. `changed` gets what was written
 * and how many keys were deleted.
 */
export async function followRange(
  gateway: EtcdGateway,
  clock: Clock,
  range: WatchedRange,
  look: () => Promise<number>,
  changed: (written: readonly KeyValue[], deleted: number) => void,
  ending: AbortSignal,
): Promise<void> {
  let next: number | null = null;
  while (!ending.aborted) {
    try {
      next ??= (await look()) + 1;
      for await (const change of streamChanges(gateway, range, next, ending)) {
        if (change.isTurnedAway) gateway.forgetToken();
        if (change.isCanceled) {
          next = null;
          await clock.sleep(RETRY_MS, ending);
          break;
        }
        if (change.written.length > 0 || change.deleted > 0) changed(change.written, change.deleted);
        next = Math.max(next, change.revision + 1);
      }
    } catch (error) {
      if (!isLockstepError(error)) throw error;
      // What cannot be read would come first again and again, though it was corrected long ago.
      if (isLockstepError(error, "COORDINATION_ANSWER_INVALID")) next = null;
      await clock.sleep(RETRY_MS, ending);
    }
  }
}

/** One stream, until it ends or says nothing for too long. */
async function* streamChanges(gateway: EtcdGateway, range: WatchedRange, start: number, ending: AbortSignal) {
  const silence = new AbortController();
  const stream = gateway.stream(
    "/v3/watch",
    { create_request: { ...range, start_revision: String(start) } },
    AbortSignal.any([ending, silence.signal]),
  );
  let timer = setTimeout(() => silence.abort(), SILENT_MS);
  try {
    for await (const message of stream) {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENT_MS);
      const result = member(message, "result");
      const events = list(result, "events");
      const written = events
        .map((event) => member(event, "kv"))
        .filter((kv) => kv !== undefined && member(kv, "value") !== undefined)
        .map(keyValue);
      const isCanceled = member(result, "canceled") === true || result === undefined;
      yield {
        written,
        deleted: events.length - written.length,
        // Compacted, or not let in.
        isCanceled,
        isTurnedAway: isCanceled && member(result, "compact_revision") === undefined,
        revision: Number(member(member(result, "header"), "revision") ?? 0),
      };
    }
  } finally {
    clearTimeout(timer);
    silence.abort();
  }
}

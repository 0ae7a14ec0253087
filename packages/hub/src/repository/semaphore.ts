import type { Clock, Logger } from "@lockstep/platform";
import type { Semaphore } from "@lockstep/protocol";
import type pg from "pg";
import { type Listener, listen } from "../db/listen.ts";

/**
 * The semaphore in memory (S19, S25): every installation asks for it all the time, so answering must not touch the
 * database. The value follows the database's notifications; as a notification can get lost with its connection, it is
 * also read again each time when listening begins, and every few seconds.
 *
 * Not promised: that two hubs show a new value at the same moment. Each shows every value in order or jumps ahead.
 */
export interface SemaphoreWatch {
  readonly value: Semaphore;
  /** Makes sure that `value` shows this revision or a later one: whoever was told of one must find it here. */
  reach(revision: number): Promise<void>;
  /** Resolves when the revision is not `known` (true), or after `waitMs` or when the signal aborts (false). */
  waitForOther(known: number, waitMs: number, signal: AbortSignal): Promise<boolean>;
  /** Resolves at the next change of anything, or after `waitMs`, or when the signal aborts. */
  waitForChange(waitMs: number, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

const REFRESH_MS = 5_000;

export async function watchSemaphore(options: {
  readonly pool: pg.Pool;
  readonly clock: Clock;
  readonly log: Logger;
}): Promise<SemaphoreWatch> {
  const { pool, clock, log } = options;
  let value = await read(pool);
  const waiting = new Set<() => void>();
  const closing = new AbortController();
  let reading: Promise<void> | null = null;
  let again = false;

  /** Reads once more after every call, but never twice at the same time. */
  function refresh(): Promise<void> {
    again = true;
    reading ??= (async () => {
      while (again) {
        again = false;
        const next = await read(pool).catch((error: unknown) => {
          if (!closing.signal.aborted) log.warn("the semaphore cannot be read", { error });
          return value;
        });
        const moved = JSON.stringify(next) !== JSON.stringify(value);
        value = next;
        if (moved) for (const wake of [...waiting]) wake();
      }
    })().finally(() => {
      reading = null;
    });
    return reading;
  }

  async function refreshLoop(): Promise<void> {
    while (!closing.signal.aborted) {
      await clock.sleep(REFRESH_MS, closing.signal);
      if (!closing.signal.aborted) await refresh();
    }
  }

  const listener: Listener = listen({
    pool,
    clock,
    log,
    channels: {
      lockstep_revision: () => {
        void refresh();
      },
    },
  });
  const loop = refreshLoop();

  async function waitForChange(waitMs: number, signal: AbortSignal): Promise<void> {
    const woken = new AbortController();
    const wake = () => woken.abort();
    waiting.add(wake);
    signal.addEventListener("abort", wake, { once: true });
    closing.signal.addEventListener("abort", wake, { once: true });
    if (signal.aborted || closing.signal.aborted) wake();
    try {
      await clock.sleep(waitMs, woken.signal);
    } finally {
      waiting.delete(wake);
      signal.removeEventListener("abort", wake);
      closing.signal.removeEventListener("abort", wake);
    }
  }

  return {
    get value() {
      return value;
    },
    reach: async (revision) => {
      if (value.revision < revision) await refresh();
    },
    waitForChange,
    waitForOther: async (known, waitMs, signal) => {
      const until = clock.monotonic() + waitMs;
      while (value.revision === known) {
        const left = until - clock.monotonic();
        if (left <= 0 || signal.aborted || closing.signal.aborted) return false;
        await waitForChange(left, signal);
      }
      return true;
    },
    close: async () => {
      closing.abort();
      await listener.close();
      await loop;
      await reading;
    },
  };
}

async function read(pool: pg.Pool): Promise<Semaphore> {
  const { rows } = await pool.query<{ revision: number; autoUpdate: unknown; pollSeconds: unknown }>(
    `select (select value from semaphore where name = 'SoftwareRevision') as revision,
       (select value from setting where name = 'Common/AutoUpdate') as "autoUpdate",
       (select value from setting where name = 'Common/AutoUpdate/PollSeconds') as "pollSeconds"`,
  );
  const row = rows[0];
  return {
    revision: row?.revision ?? 0,
    autoUpdate: row?.autoUpdate !== false,
    pollSeconds: typeof row?.pollSeconds === "number" ? row.pollSeconds : 300,
  };
}

import type { Clock, Logger } from "@lockstep/platform";
import type pg from "pg";

/**
 * Notifications of the database (NOTIFY), on a connection of their own that is opened again when it breaks.
 *
 * A notification is a hint, never the truth: those sent while there was no connection are lost. So every handler is
 * also called, with null, each time when listening begins; it must then look for itself what it may have missed.
 */
export interface Listener {
  /** The connection while there is one: for short queries that must not wait for a place in the pool. */
  readonly client: pg.PoolClient | null;
  close(): Promise<void>;
}

export interface ListenOptions {
  readonly pool: pg.Pool;
  /** What to call for a notification of a channel, with its payload. */
  readonly channels: Readonly<Record<string, (payload: string | null) => void>>;
  readonly clock: Clock;
  readonly log: Logger;
}

const RECONNECT_MS = { first: 250, max: 15_000 };

/** Begins to listen; returns at once, the connection comes when it can be had. */
export function listen(options: ListenOptions): Listener {
  const { pool, channels, clock, log } = options;
  const closing = new AbortController();
  let client: pg.PoolClient | null = null;

  async function open(): Promise<pg.PoolClient> {
    const opened = await pool.connect();
    try {
      opened.on("notification", ({ channel, payload }) => channels[channel]?.(payload ?? ""));
      for (const channel of Object.keys(channels)) {
        await opened.query(`listen ${opened.escapeIdentifier(channel)}`);
      }
      return opened;
    } catch (error) {
      opened.release(true);
      throw error;
    }
  }

  async function run(): Promise<void> {
    let waitMs = RECONNECT_MS.first;
    while (!closing.signal.aborted) {
      try {
        const opened = await open();
        const ended = new Promise<void>((resolve) => {
          opened.once("end", resolve);
          opened.once("error", () => resolve());
          closing.signal.addEventListener("abort", () => resolve(), { once: true });
        });
        if (!closing.signal.aborted) {
          client = opened;
          waitMs = RECONNECT_MS.first;
          for (const handler of Object.values(channels)) handler(null);
          await ended;
          client = null;
        }
        opened.release(true);
      } catch (error) {
        log.warn("cannot listen to the database", { error, retryMs: waitMs });
      }
      await clock.sleep(waitMs, closing.signal);
      waitMs = Math.min(RECONNECT_MS.max, waitMs * 2);
    }
  }

  const running = run();
  return {
    get client() {
      return client;
    },
    close: async () => {
      closing.abort();
      await running;
    },
  };
}

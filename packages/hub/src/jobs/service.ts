import type { Clock, Logger } from "@lockstep/platform";
import type { Exchange, ExchangeAnswer } from "@lockstep/protocol";
import type pg from "pg";
import { isRetryable, toDatabaseError } from "../db/connect.ts";
import { EXCHANGES_AT_ONCE, sendTogether } from "../db/exchange-session.ts";
import { listen } from "../db/listen.ts";
import { Gate } from "../http/gate.ts";
import type { SemaphoreWatch } from "../repository/semaphore.ts";
import { type ExchangeOutcome, exchangeAgain, exchangeOnce } from "./exchange.ts";
import { JobWaiters } from "./wake.ts";
import { type JobWatchTuning, startJobWatch } from "./watch.ts";

/**
 * The job service of one hub: exchanges with job servers, and the watch over leases and times.
 *
 * An exchange that has nothing to say waits until there is something: a step for its queue, another value of the
 * semaphore, a changed flag, a newer exchange of the same queue, the end of the hub.
 */
export interface JobService {
  /** Does one exchange. `gone` aborts when the service has hung up. Throws JOB_* and DATABASE_UNREACHABLE. */
  exchange(request: Exchange, gone: AbortSignal): Promise<ExchangeAnswer>;
  /** Looks after leases and times now; needed by nobody but tests. */
  watch(): Promise<void>;
  close(): Promise<void>;
}

export interface JobServiceOptions {
  readonly pool: pg.Pool;
  /** DatabaseConnection.exchanges. */
  readonly exchanges: pg.Pool;
  readonly clock: Clock;
  readonly log: Logger;
  readonly semaphore: SemaphoreWatch;
  /** Aborts when the hub stops. */
  readonly stopping: AbortSignal;
  readonly tuning?: Partial<JobWatchTuning>;
}

const RETRIES_MAX = 5;

export function startJobService(options: JobServiceOptions): JobService {
  const { pool, exchanges, clock, log, semaphore } = options;
  const waiters = new JobWaiters();
  const gate = new Gate(EXCHANGES_AT_ONCE, 10_000, { waitMs: 25_000, clock });
  const closing = new AbortController();
  const stopping = AbortSignal.any([options.stopping, closing.signal]);
  const listener = listen({
    pool,
    clock,
    log,
    channels: {
      lockstep_job: (queue) => {
        if (queue === null || queue === "") waiters.wakeAll();
        else waiters.wake(queue);
      },
    },
  });
  const followed = followSemaphore(semaphore, waiters, stopping);
  const watch = startJobWatch({ pool, clock, log, ...(options.tuning && { tuning: options.tuning }) });

  async function transact<T extends ExchangeOutcome | null>(
    work: (client: pg.PoolClient) => Promise<T>,
  ): Promise<T> {
    return await gate.through(async () => {
      for (let tries = 1; ; tries++) {
        try {
          return await transactOnce(exchanges, work);
        } catch (error) {
          if (!isRetryable(error) || tries >= RETRIES_MAX) throw toDatabaseError(error);
        }
      }
    });
  }

  async function exchange(request: Exchange, gone: AbortSignal): Promise<ExchangeAnswer> {
    const began = clock.monotonic();
    const waiter = waiters.enter(request.queue);
    try {
      const first = await transact((client) => exchangeOnce(client, request));
      if (first.rival !== null)
        log.warn("two services have one queue: one took it from the other, which is alive", {
          queue: request.queue,
          former: first.rival,
          now: request.machine,
        });
      if (!first.mayWait || hasNews(first.answer) || request.want.internal + request.want.external === 0)
        return first.answer;
      const signal = AbortSignal.any([stopping, gone]);
      const until = began + waitLimitMs(request, first.answer.leaseMs);
      let last = first;
      for (;;) {
        const left = until - clock.monotonic();
        if (!(await waiter.wait(left, signal)) || waiter.overtaken || signal.aborted) return last.answer;
        // Counted before the transaction, since the lease is counted from within it.
        const waitedMs = Math.floor(clock.monotonic() - began);
        const next = await transact((client) => exchangeAgain(client, request));
        if (next === null) return last.answer;
        last = { ...next, answer: { ...next.answer, leaseMs: next.answer.leaseMs + waitedMs } };
        if (hasNews(next.answer) || differs(first, next)) return last.answer;
      }
    } finally {
      waiter.leave();
    }
  }

  return {
    exchange,
    watch: () => watch.run(),
    close: async () => {
      closing.abort();
      await watch.close();
      await followed;
      await listener.close();
    },
  };
}

/** A service that holds steps must hear of its lease in time; one that holds none has nothing to lose. */
function waitLimitMs(request: Exchange, leaseMs: number): number {
  return request.holding.length === 0 ? request.waitMs : Math.min(request.waitMs, leaseMs / 3);
}

function hasNews({ results, confirmed, lost, steps }: ExchangeAnswer): boolean {
  return results.length + confirmed.length + lost.length + steps.length > 0;
}

function differs(first: ExchangeOutcome, next: ExchangeOutcome): boolean {
  const [a, b] = [first.answer, next.answer];
  return a.revision !== b.revision || a.updating !== b.updating || a.withheld !== b.withheld;
}

/** `work` commits; one that returns null has not, and is rolled back. */
async function transactOnce<T extends ExchangeOutcome | null>(
  pool: pg.Pool,
  work: (client: pg.PoolClient) => Promise<T>,
): Promise<T> {
  const client = await pool.connect();
  let open = true;
  let broken = false;
  try {
    sendTogether(client);
    // On its way together with the first statements of the work, which fail if it does.
    client.query("begin").catch(() => {});
    const result = await work(client);
    open = result === null;
    return result;
  } finally {
    if (open)
      broken = await client.query("rollback").then(
        () => false,
        () => true,
      );
    client.release(broken);
  }
}

async function followSemaphore(semaphore: SemaphoreWatch, waiters: JobWaiters, stopping: AbortSignal) {
  while (!stopping.aborted) {
    const { revision, autoUpdate } = semaphore.value;
    await semaphore.waitForChange(60_000, stopping);
    if (semaphore.value.revision !== revision || semaphore.value.autoUpdate !== autoUpdate) waiters.wakeAll();
  }
}

import { createHash } from "node:crypto";
import { readTransferSettings } from "@lockstep/core";
import type { Clock, Logger } from "@lockstep/platform";
import { formatSignedMark, type Semaphore } from "@lockstep/protocol";
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
  /** The revision that is announced to an installation: what it is ordered to run, else the newest. */
  announced(installation: string | null): number;
  /** Another text for other orders to revisions; `none` where there are none. */
  readonly ordersMark: string;
  /** What is signed now, for installations that are in step; null: nothing yet. */
  readonly signed: string | null;
  /** Makes sure that `value` shows this revision or a later one: whoever was told of one must find it here. */
  reach(revision: number): Promise<void>;
  /** Reads it again: whoever gave an order finds it announced. */
  renew(): Promise<void>;
  /**
   * Resolves when the revision is not `known` (true), or after `waitMs` or when the signal aborts (false). With an
   * installation: the one that is announced to it. With `ordersMark`: also when that is another one.
   */
  waitForOther(
    known: number,
    waitMs: number,
    signal: AbortSignal,
    installation?: string | null,
    ordersMark?: string | null,
  ): Promise<boolean>;
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
  let { value, orders, signed } = await read(pool);
  let ordersMark = markOf(orders);
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
          return { value, orders, signed };
        });
        const moved = describe(next) !== describe({ value, orders });
        // The same object as long as it says the same: answers are made from it once.
        if (JSON.stringify(next.value) !== JSON.stringify(value)) value = next.value;
        orders = next.orders;
        signed = next.signed;
        ordersMark = markOf(orders);
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

  const announced = (installation: string | null) =>
    (installation === null ? undefined : orders.get(installation)) ?? value.revision;
  return {
    get value() {
      return value;
    },
    announced,
    get ordersMark() {
      return ordersMark;
    },
    get signed() {
      return signed;
    },
    reach: async (revision) => {
      if (value.revision < revision) await refresh();
    },
    renew: refresh,
    waitForChange,
    waitForOther: async (known, waitMs, signal, installation = null, mark = null) => {
      const until = clock.monotonic() + waitMs;
      while (announced(installation) === known && (mark ?? ordersMark) === ordersMark) {
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

interface Shown {
  readonly value: Semaphore;
  /** Installations that are ordered to a revision of their own: few. */
  readonly orders: ReadonlyMap<string, number>;
  readonly signed: string | null;
}

function markOf(orders: Shown["orders"]): string {
  if (orders.size === 0) return "none";
  return createHash("sha256")
    .update(JSON.stringify([...orders]))
    .digest("hex")
    .slice(0, 8);
}

function describe({ value, orders }: Pick<Shown, "value" | "orders">): string {
  return JSON.stringify([value, [...orders]]);
}

interface Row {
  readonly revision: number;
  readonly autoUpdate: unknown;
  readonly pollSeconds: unknown;
  readonly orders: [string, string][];
  readonly root: number | null;
  readonly digest: string | null;
  readonly transfer: Readonly<Record<string, unknown>> | null;
}

/** Nothing where nothing is set: the answer to the one question that everybody asks all the time stays short. */
function transferOf(settings: Readonly<Record<string, unknown>>): Pick<Semaphore, "transfer"> {
  const transfer = readTransferSettings({
    bytesPerSecond: settings["Common/Transfer/BytesPerSecond"],
    window: settings["Common/Transfer/Window"],
    windowFromBytes: settings["Common/Transfer/WindowFromBytes"],
    atOnce: settings["Common/Transfer/AtOnce"],
  });
  return Object.keys(transfer).length === 0 ? {} : { transfer };
}

async function read(pool: pg.Pool): Promise<Shown> {
  const { rows } = await pool.query<Row>(
    `select (select value from semaphore where name = 'SoftwareRevision') as revision,
       (select value from setting where name = 'Common/AutoUpdate') as "autoUpdate",
       (select value from setting where name = 'Common/AutoUpdate/PollSeconds') as "pollSeconds",
       (select jsonb_object_agg(name, value) from setting where name like 'Common/Transfer/%') as transfer,
       (select max(version) from trust_document where role = 'root') as root,
       (select encode(r.digest, 'hex') from software_revision r join semaphore s on s.value = r.number
        where s.name = 'SoftwareRevision') as digest,
       array(select array[installation, revision::text] from installation_order
             where revision is not null order by installation) as orders`,
  );
  const row = rows[0];
  const { revision = 0, root = null, digest = null } = row ?? {};
  return {
    value: {
      revision: row?.revision ?? 0,
      autoUpdate: row?.autoUpdate !== false,
      pollSeconds: typeof row?.pollSeconds === "number" ? row.pollSeconds : 300,
      ...transferOf(row?.transfer ?? {}),
    },
    signed: root === null || digest === null ? null : formatSignedMark({ root, revision, digest }),
    orders: new Map((row?.orders ?? []).map(([installation, revision]) => [installation, Number(revision)])),
  };
}

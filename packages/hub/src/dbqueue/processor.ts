/**
 * The DBQueue Processor of one hub (S19). Decisions are made in core (dbqueue.ts) and carried out by claim.ts and
 * run.ts; this file only keeps slots, connections and wake-ups. docs/internals/dbqueue.md tells how it fits together.
 */
import { orderTasks } from "@lockstep/core";
import { type Clock, type Logger, type Random, systemClock, systemRandom } from "@lockstep/platform";
import { type DbQueue, LockstepError } from "@lockstep/protocol";
import type pg from "pg";
import { toDatabaseError, withTransaction } from "../db/connect.ts";
import { type Listener, listen } from "../db/listen.ts";
import { readMigrations } from "../db/migrate.ts";
import { type ClaimResult, claimNext, type PutBack, putBack } from "./claim.ts";
import { type DbQueueTuning, DEFAULT_TUNING } from "./options.ts";
import type { Procedure } from "./procedure.ts";
import { runClaim } from "./run.ts";
import { readStatus } from "./status.ts";
import { giveBackDead, heartbeat, prune } from "./watchdog.ts";

export interface DbQueueOptions {
  /** Needs `slots` + 2 connections at the most. */
  readonly pool: pg.Pool;
  readonly procedures: readonly Procedure[];
  /** Another one for each hub process, also on the same machine and after a restart. */
  readonly hubId: string;
  readonly log: Logger;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly tuning?: Partial<DbQueueTuning>;
}

export interface DbQueueProcessor {
  /** Makes the procedures known and begins. Throws DBQUEUE_DEFINITION_INVALID, DATABASE_UNREACHABLE. */
  start(): Promise<void>;
  /**
   * Claims nothing more and waits up to `graceMs` (default 30,000) for what runs; what has not ended by then is rolled
   * back and given back to the queue, for another hub or the next start.
   */
  stop(options?: { readonly graceMs?: number }): Promise<void>;
  /** Looks at the queue now; needed by nobody who changes tables, since these notify. */
  wake(): void;
  /** GET /v1/dbqueue. */
  status(): Promise<DbQueue>;
  /** Sets or lifts the emergency stop, for all hubs. When it returns nothing new is claimed any more. */
  setStopped(stopped: boolean, reason: string | null): Promise<void>;
}

interface Running {
  readonly slot: number;
  readonly claim: string;
  readonly pid: number | null;
  readonly ended: Promise<void>;
  /** Throws its connection away; for a run that does not end, so that the pool can be closed. */
  readonly abandon: () => void;
}

const HUB_STOPS: PutBack = {
  event: "given-back",
  reason: "the hub stops",
  notBeforeMs: null,
  idleFromMs: null,
  countsAsAttempt: false,
};

/** How long `stop` waits for aborted runs to notice. */
const ABORT_MS_MAX = 5_000;

/** Makes the processor; it begins with `start`. */
export function createDbQueue(options: DbQueueOptions): DbQueueProcessor {
  return new Processor(options);
}

class Processor implements DbQueueProcessor {
  readonly #options: DbQueueOptions;
  readonly #tuning: DbQueueTuning;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #log: Logger;
  readonly #procedures: ReadonlyMap<string, Procedure>;
  readonly #running = new Map<number, Running>();
  /** No new claims. */
  readonly #stopping = new AbortController();
  /** No more patience with what runs. */
  readonly #aborted = new AbortController();
  /** Nothing runs any more, so nobody needs to know that this hub is alive. */
  readonly #finished = new AbortController();
  #schema = 0;
  #listener: Listener | null = null;
  #loops: Promise<void>[] = [];
  #awake = new AbortController();
  #wakeWanted = false;

  constructor(options: DbQueueOptions) {
    this.#options = options;
    this.#tuning = { ...DEFAULT_TUNING, ...options.tuning };
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? systemRandom;
    this.#log = options.log;
    this.#procedures = new Map(options.procedures.map((procedure) => [procedure.task, procedure]));
  }

  async start(): Promise<void> {
    const { pool, hubId } = this.#options;
    try {
      this.#schema = (await readMigrations()).length;
      await registerProcedures(pool, this.#options.procedures);
      await heartbeat(pool, hubId);
    } catch (error) {
      throw toDatabaseError(error);
    }
    this.#listener = listen({
      pool,
      clock: this.#clock,
      log: this.#log,
      channels: { lockstep_dbqueue: () => this.wake() },
    });
    this.#loops = [this.#dispatchLoop(), this.#heartbeatLoop()];
  }

  async stop(options: { readonly graceMs?: number } = {}): Promise<void> {
    this.#stopping.abort();
    this.wake();
    const all = () => Promise.all([...this.#running.values()].map((running) => running.ended));
    const drained = new AbortController();
    await Promise.race([
      this.#loops[0]?.then(all),
      this.#clock.sleep(options.graceMs ?? 30_000, drained.signal),
    ]);
    drained.abort();
    const late = [...this.#running.values()];
    if (late.length > 0) await this.#giveBack(late);
    const unheard = new AbortController();
    // A procedure may be stuck in something that is neither the database nor heeds its signal.
    await Promise.race([all(), this.#clock.sleep(ABORT_MS_MAX, unheard.signal)]);
    unheard.abort();
    for (const stuck of this.#running.values()) stuck.abandon();
    await this.#loops[0];
    this.#finished.abort();
    await this.#loops[1];
    await this.#listener?.close();
    await this.#options.pool
      .query("delete from dbqueue_hub where hub = $1", [this.#options.hubId])
      .catch((error: unknown) => this.#log.warn("the hub could not sign off from the DBQueue", { error }));
  }

  wake(): void {
    this.#wakeWanted = true;
    this.#awake.abort();
  }

  status(): Promise<DbQueue> {
    return readStatus(this.#options.pool, this.#tuning);
  }

  async setStopped(stopped: boolean, reason: string | null): Promise<void> {
    await withTransaction(this.#options.pool, async ({ client }) => {
      // With the dispatcher's lock: a decision that began before has been carried out, the next one sees the flag.
      await client.query("lock table dbqueue_dispatcher in exclusive mode");
      await client.query(
        `insert into setting (name, value) values ('DBQueue/Stopped', to_jsonb($1::boolean)),
           ('DBQueue/StoppedReason', to_jsonb($2::text))
         on conflict (name) do update set value = excluded.value`,
        [stopped, stopped ? (reason ?? "") : ""],
      );
      await client.query("insert into dbqueue_journal (task, event, detail) values ('', $1, $2)", [
        stopped ? "stopped" : "resumed",
        reason ?? "",
      ]);
    });
  }

  /** Fills the slots, then sleeps until something is told, becomes due, or the poll interval is over. */
  async #dispatchLoop(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      this.#awake = new AbortController();
      this.#wakeWanted = false;
      const sleepMs = await this.#dispatch().catch((error: unknown) => {
        this.#log.warn("the DBQueue cannot be read", { error });
        return this.#tuning.retryBaseMs;
      });
      if (!this.#wakeWanted) await this.#clock.sleep(sleepMs, this.#awake.signal);
    }
  }

  async #dispatch(): Promise<number> {
    await giveBackDead(this.#options.pool, this.#tuning, this.#log);
    for (;;) {
      const slot = this.#freeSlot();
      if (slot === null || this.#stopping.signal.aborted) return this.#tuning.pollMs;
      const { claim, nextDueMs } = await this.#fill(slot);
      if (claim === null) return Math.min(this.#tuning.pollMs, nextDueMs ?? Infinity);
    }
  }

  #freeSlot(): number | null {
    for (let slot = 1; slot <= this.#tuning.slots; slot += 1) if (!this.#running.has(slot)) return slot;
    return null;
  }

  /** Claims one task for this slot and starts it, on one connection. */
  async #fill(slot: number): Promise<ClaimResult> {
    const client = await this.#options.pool.connect();
    try {
      const result = await claimNext(client, {
        claim: this.#random.uuid(),
        hubId: this.#options.hubId,
        slot,
        schema: this.#schema,
        capable: new Set(this.#procedures.keys()),
        blockingAttempts: this.#tuning.blockingAttempts,
        bulkRowsMax: this.#tuning.bulkRowsMax,
      });
      if (result.newerSchema !== undefined) {
        this.#log.error("a newer hub has changed the database; this one processes nothing any more", {
          expected: this.#schema,
          found: result.newerSchema,
        });
      }
      // Asked to stop while claiming: as if it had not been claimed.
      if (result.claim !== null && this.#stopping.signal.aborted) {
        await putBack(client, result.claim.claim, HUB_STOPS);
        client.release();
        return { ...result, claim: null };
      }
      if (result.claim === null) client.release();
      else this.#begin(slot, client, result.claim);
      return result;
    } catch (error) {
      client.release(true);
      throw error;
    }
  }

  #begin(slot: number, client: pg.PoolClient, claim: NonNullable<ClaimResult["claim"]>): void {
    const procedure = this.#procedures.get(claim.task);
    if (procedure === undefined) throw new RangeError(`claimed ${claim.task} without a procedure`);
    let released = false;
    const release = (destroy: boolean) => {
      if (!released) client.release(destroy);
      released = true;
    };
    const ended = runClaim({
      client,
      claim,
      procedure,
      hubId: this.#options.hubId,
      tuning: this.#tuning,
      log: this.#log,
      signal: this.#aborted.signal,
      pause: (tries) => this.#clock.sleep(tries * 50 * (0.5 + this.#random.next()), this.#aborted.signal),
    })
      .then(
        () => release(false),
        (error: unknown) => {
          // Without its connection the claim counts as dead, and the next look at the queue gives it back.
          release(true);
          if (!this.#aborted.signal.aborted) {
            this.#log.warn("a task lost its database connection", { task: claim.task, error });
          }
        },
      )
      .finally(() => {
        this.#running.delete(slot);
        this.wake();
      });
    const pid = "processID" in client && typeof client.processID === "number" ? client.processID : null;
    this.#running.set(slot, { slot, claim: claim.claim, pid, ended, abandon: () => release(true) });
  }

  /** Ends the transactions of these runs and puts their rows back, as if they had never been claimed. */
  async #giveBack(late: readonly Running[]): Promise<void> {
    this.#aborted.abort();
    for (const { claim, pid } of late) {
      try {
        await withTransaction(this.#options.pool, async ({ client }) => {
          // Held, or a watchdog that looks in between takes the claim for one of the dead. A run that is just ending has it.
          await client.query("select from dbqueue_current where claim = $1 for update skip locked", [claim]);
          if (pid !== null) await client.query("select pg_terminate_backend($1)", [pid]);
          await putBack(client, claim, HUB_STOPS);
        });
      } catch (error) {
        this.#log.warn("a task could not be given back; the watchdog will", { claim, error });
      }
    }
  }

  async #heartbeatLoop(): Promise<void> {
    const pruneEvery = Math.max(1, Math.round(60_000 / this.#tuning.heartbeatMs));
    for (let beat = 1; ; beat += 1) {
      await this.#clock.sleep(this.#tuning.heartbeatMs, this.#finished.signal);
      if (this.#finished.signal.aborted) return;
      try {
        // On the listener's connection: the pool may be busy, and that must not look like death.
        await heartbeat(this.#listener?.client ?? this.#options.pool, this.#options.hubId);
        if (beat % pruneEvery === 0) await prune(this.#options.pool, this.#tuning.journalRowsMax);
      } catch (error) {
        this.#log.warn("the hub could not say that it is alive", { error });
      }
    }
  }
}

/** Writes the definitions of the procedures. Refuses tasks that would wait for each other. */
async function registerProcedures(pool: pg.Pool, procedures: readonly Procedure[]): Promise<void> {
  await withTransaction(pool, async ({ client }) => {
    await client.query("lock table dbqueue_dispatcher in exclusive mode");
    for (const { task, bulk, maxInstance, description, predecessors } of procedures) {
      await client.query(
        `insert into dbqueue_definition (task, bulk, max_instance, description) values ($1, $2, $3, $4)
         on conflict (task) do update set bulk = excluded.bulk, max_instance = excluded.max_instance,
           description = excluded.description`,
        [task, bulk, maxInstance, description],
      );
      await client.query("delete from dbqueue_predecessor where task = $1", [task]);
      await client.query(
        "insert into dbqueue_predecessor (task, predecessor) select $1, unnest($2::text[])",
        [task, predecessors],
      );
    }
    const { rows } = await client.query<{ task: string; predecessors: string[] }>(
      `select task, array(select predecessor from dbqueue_predecessor p where p.task = d.task) as predecessors
       from dbqueue_definition d`,
    );
    const ordered = orderTasks(rows.map((row) => ({ ...row, bulk: false, maxInstance: 1 })));
    if (ordered.kind === "cycle") {
      throw new LockstepError("DBQUEUE_DEFINITION_INVALID", "DBQueue tasks wait for each other in a circle", {
        found: [...ordered.tasks, ordered.tasks[0]].join(" waits for "),
      });
    }
  });
}

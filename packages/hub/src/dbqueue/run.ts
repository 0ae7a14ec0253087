/**
 * One run of a claim: the procedure's work and the removal of the claim in one transaction.
 *
 * The claim is removed last and must still hold all its rows. If the watchdog has taken it away meanwhile, the
 * transaction is rolled back, whatever the procedure did: somebody else does it, or has done it.
 */
import { backOffMs } from "@lockstep/core";
import type { Logger } from "@lockstep/platform";
import type pg from "pg";
import { beginStatement, bindKysely, commit, isRetryable } from "../db/connect.ts";
import { type Claim, type PutBack, putBack } from "./claim.ts";
import type { DbQueueTuning } from "./options.ts";
import type { Procedure, TaskOutcome, TaskRow, TaskRun } from "./procedure.ts";

export interface RunContext {
  readonly client: pg.PoolClient;
  readonly claim: Claim;
  readonly procedure: Procedure;
  readonly hubId: string;
  readonly tuning: DbQueueTuning;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Waits before a run that lost against a concurrent transaction is repeated. */
  readonly pause: (tries: number) => Promise<void>;
}

export type RunEnd = "done" | "deferred" | "failed" | "lost";

/**
 * Runs a claim to its end and leaves the connection without a transaction. Rejects only when the connection is
 * unusable or the run was aborted by its signal; the claim then still stands, for the watchdog or `stop` to give back.
 */
export async function runClaim(context: RunContext): Promise<RunEnd> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await runOnce(context);
    } catch (error) {
      await context.client.query("rollback").catch(() => {
        throw error;
      });
      if (context.signal.aborted) throw error;
      if (isRetryable(error) && tries < context.tuning.conflictTries) {
        await context.pause(tries);
        if (await isHeld(context)) continue;
        return lost(context);
      }
      return fail(context, error);
    }
  }
}

async function runOnce(context: RunContext): Promise<RunEnd> {
  const { client, claim, procedure, tuning } = context;
  await client.query(beginStatement({ isolation: procedure.isolation ?? "repeatable read" }));
  const run: TaskRun = {
    transaction: { client, db: bindKysely(client) },
    rows: claim.rows,
    hubId: context.hubId,
    signal: context.signal,
  };
  const rows = await presentRows(run, procedure);
  const outcome: TaskOutcome =
    rows.length === 0 ? { kind: "done" } : ((await procedure.run({ ...run, rows })) ?? { kind: "done" });
  if (outcome.kind === "deferred") {
    await client.query("rollback");
    return (await putBack(client, claim.claim, deferral(outcome.reason, tuning))) === 0 ? "lost" : "deferred";
  }
  const held = await endClaim(context, outcome);
  if (held !== claim.rows.length) {
    await client.query("rollback");
    return lost(context);
  }
  await commit(client);
  return "done";
}

/** What the run lost against may have been the watchdog; then a repetition would be for nothing. */
async function isHeld({ client, claim }: RunContext): Promise<boolean> {
  const { rowCount } = await client.query("select from dbqueue_current where claim = $1", [claim.claim]);
  return rowCount === claim.rows.length;
}

function lost({ log, claim }: RunContext): RunEnd {
  log.warn("a task was finished too late: its claim had been taken away", { task: claim.task });
  return "lost";
}

async function presentRows(run: TaskRun, procedure: Procedure): Promise<readonly TaskRow[]> {
  if (procedure.present === undefined) return run.rows;
  const present = await procedure.present(run);
  return run.rows.filter((row) => present.has(row.id));
}

/** Removes the claim's rows, putting back those that are deferred. Returns how many there were. */
async function endClaim(context: RunContext, outcome: TaskOutcome & { kind: "done" }): Promise<number> {
  const { client, claim, tuning } = context;
  let held = 0;
  for (const { id, reason } of outcome.deferred ?? []) {
    held += await putBack(client, claim.claim, deferral(reason, tuning), [id]);
  }
  const { rowCount } = await client.query("delete from dbqueue_current where claim = $1", [claim.claim]);
  held += rowCount ?? 0;
  const rows = claim.rows.length === 1 ? "" : `${claim.rows.length} rows`;
  const detail = [rows, outcome.detail ?? ""].filter((part) => part !== "").join(": ");
  await client.query("insert into dbqueue_journal (task, event, detail) values ($1, 'done', $2)", [
    claim.task,
    detail,
  ]);
  // Followers may have waited for this, on any hub.
  await client.query("select pg_notify('lockstep_dbqueue', '')");
  return held;
}

function deferral(reason: string, tuning: DbQueueTuning): PutBack {
  return {
    event: "deferred",
    reason,
    notBeforeMs: tuning.deferMs,
    idleFromMs: tuning.idleReturnMs,
    countsAsAttempt: true,
  };
}

async function fail(context: RunContext, error: unknown): Promise<RunEnd> {
  const { client, claim, tuning, log } = context;
  const attempts = Math.max(...claim.rows.map((row) => row.attempts)) + 1;
  const notBeforeMs = backOffMs(attempts, { baseMs: tuning.retryBaseMs, maxMs: tuning.retryMaxMs });
  log.error("a task failed", {
    task: claim.task,
    rows: claim.rows.length,
    attempts,
    retryMs: notBeforeMs,
    error,
  });
  const back = await putBack(client, claim.claim, {
    event: "failed",
    reason: error instanceof Error ? error.message : String(error),
    notBeforeMs,
    idleFromMs: null,
    countsAsAttempt: true,
  });
  return back === 0 ? "lost" : "failed";
}

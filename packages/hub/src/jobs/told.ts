import { type ClaimedJobStep, decideLoss, decideResult, type JobStepEnd } from "@lockstep/core";
import type { Exchange, ExchangeAnswer, StepResult } from "@lockstep/protocol";
import type pg from "pg";
import type { lockReported, PlainEnd } from "./reported.ts";
import { resultMask } from "./secrets.ts";
import type { ExchangeView, ServerRow } from "./server-row.ts";
import { type LockedStep, lockSteps, planSettlement, type Settlement, type StepEnding } from "./steps.ts";

/**
 * What a service tells in an exchange: results, beginnings, and, by what it does not name, which claims it does not have.
 *
 * A claim that was given to this instance in a request that it knows to be answered, and that it does not name, got lost
 * on its way or was forgotten: it ends by the rules of `decideLoss`. When a new instance takes over, the claims of the
 * former one end the same way, save those that the new one names: these it found in the journal, and they are its own.
 */
export interface Told {
  /** Claims whose results count. */
  readonly recorded: ReadonlySet<number>;
  readonly confirmed: readonly number[];
  readonly lost: readonly number[];
  /** Steps to be marked as begun. */
  readonly begun: readonly number[];
  /** Steps that ended and of which nothing follows. */
  readonly plain: readonly PlainEnd[];
  /** Null: no other claim has ended. */
  readonly settlement: Settlement | null;
}

export const NOTHING_TOLD: Told = {
  recorded: new Set(),
  confirmed: [],
  lost: [],
  begun: [],
  plain: [],
  settlement: null,
};

export interface ToldOptions {
  readonly takeover: boolean;
  /** The steps of the request's results, locked and read in the same turn as the server's row. */
  readonly locked: Awaited<ReturnType<typeof lockReported>>;
}

/** Decides what follows from what the service tells; nothing is written yet but what is carried over. */
export async function planTold(
  client: pg.ClientBase,
  request: Exchange,
  view: ExchangeView,
  { takeover, locked }: ToldOptions,
): Promise<Told> {
  const held = view.server?.held ?? [];
  const named = new Set([...request.holding, ...request.results.map(({ claim }) => claim)]);
  const gone = held.filter(
    ([, claim, sequence]) => !named.has(claim) && (takeover || sequence <= request.answered),
  );
  const carried = takeover && (await carryOver(client, request, view.server, named));
  // What was carried over, or is to end, has to be read as it is now.
  const isRead = carried || gone.length > 0;
  const plain = isRead ? [] : locked.plain;
  const steps = isRead
    ? await lockSteps(client, [
        ...new Set([...request.results.map(({ step }) => step), ...gone.map(([step]) => step)]),
      ])
    : locked.steps;
  const masked = await resultMask(client, steps, request.results);
  const resultOf = new Map(request.results.map((result) => [result.claim, result]));
  const goneClaims = new Set(gone.map(([, claim]) => claim));
  const endings: StepEnding[] = [];
  const recorded = new Set(plain.map(({ claim }) => claim));
  for (const step of steps) {
    if (step.claim === null || !isClaimed(step)) continue;
    const result = resultOf.get(step.claim);
    if (result !== undefined && result.step === step.id && step.instance === request.instance) {
      recorded.add(step.claim);
      endings.push(endByResult(step, masked(step, result)));
    } else if (goneClaims.has(step.claim)) {
      const loss = takeover ? "service-ended" : "unknown-to-service";
      endings.push(endByLoss(step, decideLoss(step, loss), takeover));
    }
  }
  const kept = new Map(held.filter(([, claim]) => named.has(claim)).map((each) => [each[1], each]));
  const confirmed = request.started.filter((claim) => kept.has(claim));
  return {
    recorded,
    confirmed,
    lost: request.holding.filter((claim) => !kept.has(claim)),
    begun: confirmed.flatMap((claim) => {
      const [step, , , processing] = kept.get(claim) ?? [0, 0, 0, true];
      return processing || recorded.has(claim) ? [] : [step];
    }),
    plain,
    settlement: endings.length === 0 ? null : await planSettlement(client, endings),
  };
}

export function isClaimed(step: LockedStep): step is LockedStep & ClaimedJobStep {
  return step.state === "loaded" || step.state === "processing";
}

function endByResult(step: LockedStep & ClaimedJobStep, result: StepResult): StepEnding {
  const message = result.message ?? "";
  return {
    step,
    end: decideResult(step, {
      outcome: result.outcome,
      permanent: result.permanent ?? false,
      deferMs: result.deferMs ?? 0,
    }),
    message: result.outcome === "given-back" ? undefined : message,
    output: result.output,
    run: { outcome: result.outcome, message, startedAt: result.startedAt, endedAt: result.endedAt },
  };
}

/** A claim that ended without a result. `died`: with its service. */
export function endByLoss(step: LockedStep, end: JobStepEnd, died: boolean): StepEnding {
  const message = died
    ? `the service of ${step.queue} ended while it had this step`
    : `the service of ${step.queue} does not know this step any more`;
  const stays = end.state === "frozen" || end.state === "missing";
  return { step, end, message: stays ? message : undefined, run: { outcome: "lost", message } };
}

/** What the former instance left in its journal belongs to the new one. Returns whether there was anything. */
async function carryOver(
  client: pg.ClientBase,
  request: Exchange,
  server: ServerRow | null,
  named: ReadonlySet<number>,
): Promise<boolean> {
  const steps = (server?.held ?? []).filter(([, claim]) => named.has(claim)).map(([step]) => step);
  if (steps.length === 0) return false;
  await client.query({
    name: "job-carry-over",
    text: `update job_step set claim_instance = $1, claim_sequence = 0
      where id = any($2::bigint[]) and claim_instance = $3`,
    values: [request.instance, steps, server?.instance ?? null],
  });
  return true;
}

/** Marks steps of this instance as begun. */
export async function writeStarts(
  client: pg.ClientBase,
  { instance }: Exchange,
  { begun }: Told,
): Promise<void> {
  if (begun.length === 0) return;
  await client.query({
    name: "job-write-starts",
    text: `update job_step set state = 'processing', started_at = now()
      where id = any($1::bigint[]) and state = 'loaded' and claim_instance = $2`,
    values: [begun, instance],
  });
}

/** What each result was worth. Those that were not recorded now may have been before: the answer got lost. */
export async function judge(
  client: pg.ClientBase,
  results: readonly StepResult[],
  recorded: ReadonlySet<number>,
): Promise<ExchangeAnswer["results"]> {
  const others = results.filter(({ claim }) => !recorded.has(claim));
  const known = new Set<number>();
  if (others.length > 0) {
    const { rows } = await client.query<{ claim: number }>({
      name: "job-known-results",
      text: `select claim from job_run_end
        where (step_id, claim) in (select * from unnest($1::bigint[], $2::bigint[])) and outcome <> 'lost'`,
      values: [others.map(({ step }) => step), others.map(({ claim }) => claim)],
    });
    for (const { claim } of rows) known.add(claim);
  }
  return results.map(({ claim }) => ({
    claim,
    verdict: recorded.has(claim) ? "recorded" : known.has(claim) ? "known" : "refused",
  }));
}

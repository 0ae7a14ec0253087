import {
  type ClaimedJobStep,
  decideAdmission,
  decideLoss,
  decideResult,
  type JobStepEnd,
} from "@lockstep/core";
import { type Exchange, type ExchangeAnswer, LockstepError, type StepResult } from "@lockstep/protocol";
import type pg from "pg";
import { claimSteps, presentSteps } from "./claim.ts";
import { type Delivery, decideDelivery, ensureUpdateProcess } from "./gate.ts";
import { resultMask } from "./secrets.ts";
import { type ExchangeView, readExchangeView, type ServerRow } from "./server-row.ts";
import {
  type LockedStep,
  lockSteps,
  type Settled,
  type StepEnding,
  settleProcesses,
  settleSteps,
} from "./steps.ts";

/**
 * One exchange with a job server, in one transaction: who it is, what became of its steps, what it gets next.
 *
 * The number of statements does not depend on the number of steps. Everything that is decided is decided in core from
 * rows that are locked: the server's row (so two requests for one queue follow one another), the processes and the steps
 * that are reported on. docs/internals/jobs.md.
 */
export interface ExchangeOutcome {
  readonly answer: ExchangeAnswer;
  readonly delivery: Delivery;
  /** It may be given steps that come later: it is the newest request of the queue's instance. */
  readonly mayWait: boolean;
}

type Verdict = ExchangeAnswer["results"][number];

/** Does the exchange within the transaction of `client`. Throws JOB_REQUEST_STALE and the other refusals. */
export async function exchangeOnce(client: pg.ClientBase, request: Exchange): Promise<ExchangeOutcome> {
  const view = await readExchangeView(client, request);
  const admission = admit(view, request);
  const told = await recordTold(client, request, view, admission.kind === "takeover");
  const delivery = decideDelivery(view, request);
  const overtaken = admission.kind === "overtaken";
  await writeServer(client, request, view, { delivery, takeover: admission.kind === "takeover", overtaken });
  const settled: Settled[] = told.settled === null ? [] : [told.settled];
  const steps = overtaken ? [] : await claim(client, request, view, delivery, settled);
  await settleProcesses(
    client,
    [...new Set(settled.flatMap(({ processes }) => processes))].sort((a, b) => a - b),
  );
  await notifyOthers(client, request.queue, settled);
  return {
    delivery,
    mayWait: !overtaken,
    answer: {
      sequence: request.sequence,
      leaseMs: view.leaseMs,
      revision: view.revision,
      updating: delivery.updating,
      withheld: delivery.withheld,
      results: told.verdicts,
      confirmed: told.confirmed,
      lost: told.lost,
      steps,
    },
  };
}

/** A later look for steps, for a request that waits: nothing is told any more, only given. Null: it was overtaken. */
export async function exchangeAgain(
  client: pg.ClientBase,
  request: Exchange,
): Promise<ExchangeOutcome | null> {
  const view = await readExchangeView(client, request);
  const { server } = view;
  if (server === null || server.instance !== request.instance || server.sequence !== request.sequence)
    return null;
  const delivery = decideDelivery(view, request);
  const settled: Settled[] = [];
  await writeServer(client, request, view, { delivery, takeover: false, overtaken: false });
  const steps = await claim(client, request, view, delivery, settled);
  await settleProcesses(
    client,
    settled.flatMap(({ processes }) => processes),
  );
  await notifyOthers(client, request.queue, settled);
  return {
    delivery,
    mayWait: true,
    answer: {
      sequence: request.sequence,
      leaseMs: view.leaseMs,
      revision: view.revision,
      updating: delivery.updating,
      withheld: delivery.withheld,
      results: [],
      confirmed: [],
      lost: [],
      steps,
    },
  };
}

function admit(view: ExchangeView, request: Exchange) {
  const { server } = view;
  const carried = new Set([...request.holding, ...request.results.map(({ claim }) => claim)]);
  const admission = decideAdmission(
    server === null
      ? null
      : { ...server, held: server.held.filter(([, claim]) => !carried.has(claim)).length },
    { ...request, term: request.term ?? null },
  );
  switch (admission.kind) {
    case "current":
    case "overtaken":
    case "takeover":
      return admission;
    case "stale":
      throw new LockstepError(
        "JOB_REQUEST_STALE",
        "the request comes too late: a later one has been answered",
        {
          expected: `a sequence above ${server?.answered ?? 0}`,
          found: request.sequence,
          hint: "Nothing was done. The service goes on with its next request.",
        },
      );
    case "replaced":
      throw new LockstepError(
        "JOB_INSTANCE_REPLACED",
        `another run of the service serves the queue ${request.queue}`,
        {
          expected: server?.instance ?? "none",
          found: request.instance,
          hint: "This run must end: its steps belong to the other one, or have been given out again.",
        },
      );
    case "term-stale":
      throw new LockstepError(
        "JOB_TERM_STALE",
        `the virtual server ${request.queue} has moved to another node`,
        {
          expected: `a term of at least ${server?.term ?? 0}`,
          found: request.term ?? 0,
          hint: "This node must stop its service; whoever holds the newest lease serves the queue.",
        },
      );
    case "taken":
      throw new LockstepError(
        "JOB_QUEUE_TAKEN",
        `the service on ${server?.machine ?? "another machine"} works on steps of the queue ${request.queue}`,
        {
          expected: `a service on ${server?.machine ?? ""}`,
          found: request.machine,
          hint: "If it has died, its lease ends within a minute and this service takes over. If not, one of the two has a wrong Queue.",
          retryAfterSeconds: Math.ceil(view.leaseMs / 3000),
        },
      );
  }
}

interface Told {
  readonly verdicts: Verdict[];
  readonly confirmed: number[];
  readonly lost: number[];
  readonly settled: Settled | null;
}

/** Records what the service tells: results, beginnings, and, by what it does not name, what it does not have. */
async function recordTold(
  client: pg.ClientBase,
  request: Exchange,
  view: ExchangeView,
  takeover: boolean,
): Promise<Told> {
  const held = view.server?.held ?? [];
  const named = new Set([...request.holding, ...request.results.map(({ claim }) => claim)]);
  const gone = held.filter(
    ([, claim, sequence]) => !named.has(claim) && (takeover || sequence <= request.answered),
  );
  if (takeover) await carryOver(client, request, view.server, named);
  const kept = new Set(held.filter(([, claim]) => named.has(claim)).map(([, claim]) => claim));
  const resultOf = new Map(request.results.map((result) => [result.claim, result]));
  const ids = [...request.results.map(({ step }) => step), ...gone.map(([step]) => step)];
  const steps = await lockSteps(client, [...new Set(ids)]);
  const masked = await resultMask(client, steps, request.results);
  const goneClaims = new Set(gone.map(([, claim]) => claim));
  const endings: StepEnding[] = [];
  const recorded = new Set<number>();
  for (const step of steps) {
    if (step.claim === null || !isClaimed(step)) continue;
    const result = resultOf.get(step.claim);
    if (result !== undefined && result.step === step.id && step.instance === request.instance) {
      recorded.add(step.claim);
      endings.push(endByResult(step, masked(step, result)));
    } else if (goneClaims.has(step.claim)) {
      endings.push(
        endByLoss(step, decideLoss(step, takeover ? "service-ended" : "unknown-to-service"), takeover),
      );
    }
  }
  const settled = endings.length === 0 ? null : await settleSteps(client, endings);
  const confirmed = request.started.filter((claim) => kept.has(claim));
  await confirmStarts(client, held, confirmed, recorded);
  return {
    verdicts: await judge(client, request.results, recorded),
    confirmed,
    lost: request.holding.filter((claim) => !kept.has(claim)),
    settled,
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

/** What the former instance left behind in its journal belongs to the new one. */
async function carryOver(
  client: pg.ClientBase,
  request: Exchange,
  server: ServerRow | null,
  named: ReadonlySet<number>,
): Promise<void> {
  const steps = (server?.held ?? []).filter(([, claim]) => named.has(claim)).map(([step]) => step);
  if (steps.length === 0) return;
  await client.query({
    name: "job-carry-over",
    text: `update job_step set claim_instance = $1, claim_sequence = 0
      where id = any($2::bigint[]) and claim_instance = $3`,
    values: [request.instance, steps, server?.instance ?? null],
  });
}

async function confirmStarts(
  client: pg.ClientBase,
  held: ServerRow["held"],
  confirmed: readonly number[],
  recorded: ReadonlySet<number>,
): Promise<void> {
  const wanted = new Set(confirmed);
  const steps = held
    .filter(([, claim, , processing]) => wanted.has(claim) && !processing && !recorded.has(claim))
    .map(([step]) => step);
  if (steps.length === 0) return;
  await client.query({
    name: "job-confirm-starts",
    text: `update job_step set state = 'processing', started_at = now()
      where id = any($1::bigint[]) and state = 'loaded' and claim = any($2::bigint[])`,
    values: [steps, confirmed],
  });
}

/** What each result was worth. Those that were not recorded now may have been before: the answer got lost. */
async function judge(
  client: pg.ClientBase,
  results: readonly StepResult[],
  recorded: ReadonlySet<number>,
): Promise<Verdict[]> {
  const others = results.filter(({ claim }) => !recorded.has(claim)).map(({ claim }) => claim);
  const known = new Set<number>();
  if (others.length > 0) {
    const { rows } = await client.query<{ claim: number }>({
      name: "job-known-results",
      text: "select claim from job_run_end where claim = any($1::bigint[]) and outcome <> 'lost'",
      values: [others],
    });
    for (const { claim } of rows) known.add(claim);
  }
  return results.map(({ claim }) => ({
    claim,
    verdict: recorded.has(claim) ? "recorded" : known.has(claim) ? "known" : "refused",
  }));
}

async function writeServer(
  client: pg.ClientBase,
  request: Exchange,
  view: ExchangeView,
  how: { readonly delivery: Delivery; readonly takeover: boolean; readonly overtaken: boolean },
): Promise<void> {
  const former = how.takeover ? [view.server?.instance ?? null, ...(view.server?.former ?? [])] : null;
  await client.query({
    name: "job-write-server",
    text: `insert into job_server as s (queue, machine, node, term, instance, sequence, answered, lease_until,
        last_fetch_at, version, revision, installation, status_url, updating_since, withheld)
      values ($1, $2, $3, coalesce($4::bigint, 0), $5, $6, $7, now() + make_interval(secs => $8::float8 / 1000),
        now(), $9, $10, $11, $12, case when $13::boolean then now() end, $14)
      on conflict (queue) do update set machine = $2, node = $3, term = coalesce($4::bigint, s.term), instance = $5,
        sequence = case when $15::boolean then $6 else greatest(s.sequence, $6) end,
        answered = case when $15::boolean then $7 else greatest(s.answered, $7) end,
        lease_until = excluded.lease_until, last_fetch_at = now(), version = $9, revision = $10, installation = $11,
        status_url = $12, updating_since = case when $13::boolean then coalesce(s.updating_since, now()) end,
        withheld = $14, former = coalesce($16::uuid[], s.former)`,
    values: [
      request.queue,
      request.machine,
      request.node ?? null,
      request.term ?? null,
      request.instance,
      request.sequence,
      request.answered,
      view.leaseMs,
      request.version,
      request.revision,
      request.installation,
      request.statusUrl,
      how.delivery.updating,
      how.delivery.withheld,
      how.takeover,
      former?.filter((each) => each !== null).slice(0, FORMER_MAX) ?? null,
    ],
  });
}

/** So many former instances are remembered. */
const FORMER_MAX = 32;

/** Gives out steps. One that cannot begin, because an output that it names does not exist, ends here with an error. */
async function claim(
  client: pg.ClientBase,
  request: Exchange,
  view: ExchangeView,
  delivery: Delivery,
  settled: Settled[],
) {
  if (delivery.deliver === "none") return [];
  if (delivery.updating) await ensureUpdateProcess(client, request.queue, view.revision);
  const rows = await claimSteps(client, {
    queue: request.queue,
    instance: request.instance,
    sequence: request.sequence,
    want: request.want,
    updateOnly: delivery.deliver === "update-only",
    limits: view.limits,
  });
  if (rows.length === 0) return [];
  await client.query({
    name: "job-virtual-time",
    text: "update job_server set virtual_time = greatest(virtual_time, $2) where queue = $1",
    values: [request.queue, Math.max(...rows.map(({ fair }) => fair))],
  });
  const { steps, unresolved } = await presentSteps(client, rows);
  if (unresolved.length > 0) {
    const references = new Map(unresolved.map((each) => [each.id, each.references]));
    const locked = await lockSteps(client, [...references.keys()]);
    const endings = locked.filter(isClaimed).map((step): StepEnding => {
      const message = `there is no output ${references.get(step.id)?.join(", ")}`;
      const end = decideResult(step, { outcome: "error", permanent: true });
      return { step, end, message, run: { outcome: "error", message } };
    });
    settled.push(await settleSteps(client, endings));
  }
  return steps;
}

/** Wakes those for whom something is ready now. What became ready for this very queue is what it asks for next. */
async function notifyOthers(
  client: pg.ClientBase,
  queue: string,
  settled: readonly Settled[],
): Promise<void> {
  const queues = new Set(settled.flatMap(({ ready }) => [...ready]));
  const freed = settled.flatMap((each) => each.freed);
  if (freed.length > 0) {
    const { rows } = await client.query<{ queue: string }>({
      name: "job-freed-queues",
      text: `select distinct queue from (
          select queue from job_step where state = 'ready' and limited
            and (component = any($1::text[]) or exclusive_object = any($2::text[])) limit 1000
        ) as waiting`,
      values: [
        freed.map(({ component }) => component),
        freed.flatMap(({ exclusiveObject }) => (exclusiveObject === null ? [] : [exclusiveObject])),
      ],
    });
    for (const row of rows) queues.add(row.queue);
  }
  queues.delete(queue);
  if (queues.size === 0) return;
  await client.query({
    name: "job-notify",
    text: "select pg_notify('lockstep_job', queue) from unnest($1::text[]) as queue",
    values: [[...queues].sort()],
  });
}

import { decideResult } from "@lockstep/core";
import type { Exchange, ExchangeAnswer } from "@lockstep/protocol";
import type pg from "pg";
import { admit } from "./admission.ts";
import { type ClaimRow, claimSteps, presentSteps } from "./claim.ts";
import { type Delivery, decideDelivery, ensureUpdateProcess } from "./gate.ts";
import { type ExchangeView, readExchangeView } from "./server-row.ts";
import {
  lockSteps,
  type Settled,
  type Settlement,
  type StepEnding,
  settleProcesses,
  settleSteps,
  writeSettlement,
} from "./steps.ts";
import { isClaimed, judge, planTold, writeStarts } from "./told.ts";

/**
 * One exchange with a job server, in one transaction: who it is, what became of its steps, what it gets next.
 *
 * The number of statements does not depend on the number of steps, and they travel in few turns: the connection is
 * pipelined, so what does not depend on an answer is sent without waiting for it. First turn: begin, lock the server's
 * row and the steps that are reported on. Second (a look at successors may come before it): write the results, claim.
 * Third: write the server's row, commit. Everything is decided in core, from rows that are locked.
 * docs/internals/jobs.md.
 */
export interface ExchangeOutcome {
  readonly answer: ExchangeAnswer;
  /** It may be given steps that come later: it is the newest request of the queue's instance. */
  readonly mayWait: boolean;
  /** Statements that are on their way, to be awaited together with the commit. */
  readonly last: readonly Promise<unknown>[];
}

/** Does the exchange within the transaction that begins on the pipelined `client`. Throws what `admit` throws. */
export async function exchangeOnce(client: pg.ClientBase, request: Exchange): Promise<ExchangeOutcome> {
  const reported = [...new Set(request.results.map(({ step }) => step))];
  const [view, locked] = await Promise.all([readExchangeView(client, request), lockSteps(client, reported)]);
  const admission = admit(view, request);
  const takeover = admission.kind === "takeover";
  const told = await planTold(client, request, view, { takeover, locked });
  const overtaken = admission.kind === "overtaken";
  const given = await giveSteps(client, request, {
    view,
    takeover,
    settlement: told.settlement,
    want: !overtaken,
    before: () => [
      told.settlement === null ? null : writeSettlement(client, told.settlement),
      writeStarts(client, request, told),
    ],
    verdicts: () => judge(client, request.results, told.recorded),
  });
  return {
    ...given,
    mayWait: !overtaken,
    answer: { ...given.answer, confirmed: [...told.confirmed], lost: [...told.lost] },
  };
}

/** A later look for steps, for a request that waits: nothing is told any more, only given. Null: it was overtaken. */
export async function exchangeAgain(
  client: pg.ClientBase,
  request: Exchange,
): Promise<ExchangeOutcome | null> {
  const view = await readExchangeView(client, request);
  const { server } = view;
  if (server?.instance !== request.instance || server.sequence !== request.sequence) return null;
  const how = { view, takeover: false, settlement: null, want: true };
  return await giveSteps(client, request, { ...how, before: () => [], verdicts: async () => [] });
}

interface Giving {
  readonly view: ExchangeView;
  readonly takeover: boolean;
  readonly settlement: Settlement | null;
  /** False: it is overtaken by a newer request, which gets the steps. */
  readonly want: boolean;
  /** Writes that come before the claim, in the same turn. */
  readonly before: () => readonly (Promise<unknown> | null)[];
  readonly verdicts: () => Promise<ExchangeAnswer["results"]>;
}

async function giveSteps(client: pg.ClientBase, request: Exchange, how: Giving): Promise<ExchangeOutcome> {
  const { view, settlement } = how;
  const delivery = decideDelivery(view, request);
  // One turn: the order of the calls is the order in which the database sees them.
  const [, results, rows] = await Promise.all([
    Promise.all(how.before()),
    how.verdicts(),
    how.want ? claimRows(client, request, { view, delivery, settlement }) : [],
    settlement === null ? null : settleProcesses(client, settlement.processes),
  ]);
  const settled: Settled[] = settlement === null ? [] : [settlement];
  const { steps, unresolved } = await presentSteps(client, rows);
  if (unresolved.length > 0) settled.push(await endUnresolved(client, unresolved));
  return {
    mayWait: true,
    last: [
      writeServer(client, request, { view, delivery, takeover: how.takeover, rows }),
      notifyOthers(client, request.queue, settled),
    ],
    answer: {
      sequence: request.sequence,
      leaseMs: view.leaseMs,
      revision: view.revision,
      updating: delivery.updating,
      withheld: delivery.withheld,
      results,
      confirmed: [],
      lost: [],
      steps,
    },
  };
}

interface Claiming {
  readonly view: ExchangeView;
  readonly delivery: Delivery;
  readonly settlement: Settlement | null;
}

async function claimRows(
  client: pg.ClientBase,
  request: Exchange,
  { view, delivery, settlement }: Claiming,
): Promise<ClaimRow[]> {
  if (delivery.deliver === "none") return [];
  if (delivery.updating) await ensureUpdateProcess(client, request.queue, view.revision);
  return await claimSteps(client, {
    queue: request.queue,
    instance: request.instance,
    sequence: request.sequence,
    want: request.want,
    updateOnly: delivery.deliver === "update-only",
    limits: view.limits,
    limitedReady: view.limitedReady || settlement?.limitedReady.has(request.queue) === true,
  });
}

/** Steps that cannot begin, because an output that they name does not exist, end with an error. */
async function endUnresolved(
  client: pg.ClientBase,
  unresolved: readonly { readonly id: number; readonly references: readonly string[] }[],
): Promise<Settled> {
  const references = new Map(unresolved.map((each) => [each.id, each.references]));
  const locked = await lockSteps(client, [...references.keys()]);
  const endings = locked.filter(isClaimed).map((step): StepEnding => {
    const message = `there is no output ${references.get(step.id)?.join(", ")}`;
    const end = decideResult(step, { outcome: "error", permanent: true });
    return { step, end, message, run: { outcome: "error", message } };
  });
  const settled = await settleSteps(client, endings);
  await settleProcesses(client, settled.processes);
  return settled;
}

/** So many former instances are remembered. */
const FORMER_MAX = 32;

interface ServerWrite {
  readonly view: ExchangeView;
  readonly delivery: Delivery;
  readonly takeover: boolean;
  readonly rows: readonly ClaimRow[];
}

async function writeServer(
  client: pg.ClientBase,
  request: Exchange,
  { view, delivery, takeover, rows }: ServerWrite,
): Promise<void> {
  const former = [view.server?.instance ?? null, ...(view.server?.former ?? [])];
  await client.query({
    name: "job-write-server",
    text: `insert into job_server as s (queue, machine, node, term, instance, sequence, answered, lease_until,
        last_fetch_at, version, revision, installation, status_url, updating_since, withheld, virtual_time)
      values ($1, $2, $3, coalesce($4::bigint, 0), $5, $6, $7, now() + make_interval(secs => $8::float8 / 1000),
        now(), $9, $10, $11, $12, case when $13::boolean then now() end, $14, $17)
      on conflict (queue) do update set machine = $2, node = $3, term = coalesce($4::bigint, s.term), instance = $5,
        sequence = case when $15::boolean then $6 else greatest(s.sequence, $6) end,
        answered = case when $15::boolean then $7 else greatest(s.answered, $7) end,
        lease_until = excluded.lease_until, last_fetch_at = now(), version = $9, revision = $10, installation = $11,
        status_url = $12, updating_since = case when $13::boolean then coalesce(s.updating_since, now()) end,
        withheld = $14, former = coalesce($16::uuid[], s.former), virtual_time = greatest(s.virtual_time, $17)`,
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
      delivery.updating,
      delivery.withheld,
      takeover,
      takeover ? former.filter((each) => each !== null).slice(0, FORMER_MAX) : null,
      Math.max(0, ...rows.map(({ fair }) => fair)),
    ],
  });
}

/** Wakes those for whom something is ready now. What became ready for this very queue is what it asks for next. */
async function notifyOthers(
  client: pg.ClientBase,
  queue: string,
  settled: readonly Settled[],
): Promise<void> {
  const queues = new Set(settled.flatMap(({ ready }) => [...ready]));
  queues.delete(queue);
  const freed = settled.flatMap((each) => each.freed);
  if (queues.size === 0 && freed.length === 0) return;
  await client.query({
    name: "job-notify",
    text: `select pg_notify('lockstep_job', queue) from (
        select unnest($1::text[]) as queue union
        select queue from (
          select queue from job_step where queue <> $4 and state = 'ready' and limited and (component = any($2::text[]) or exclusive_object = any($3::text[])) limit 1000
        ) as waiting
      ) as woken order by queue`,
    values: [
      [...queues].sort(),
      freed.map(({ component }) => component),
      freed.flatMap(({ exclusiveObject }) => (exclusiveObject === null ? [] : [exclusiveObject])),
      queue,
    ],
  });
}

import { decideResult } from "@lockstep/core";
import type { Exchange, ExchangeAnswer } from "@lockstep/protocol";
import type pg from "pg";
import { sendTogether } from "../db/exchange-session.ts";
import { admit } from "./admission.ts";
import { type ClaimRow, claimSteps, presentSteps, type UnresolvedStep } from "./claim.ts";
import { type Delivery, decideDelivery, ensureUpdateProcess } from "./gate.ts";
import { lockReported, writePlainEnds } from "./reported.ts";
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
import { isClaimed, judge, NOTHING_TOLD, planTold, type Told, writeStarts } from "./told.ts";

/**
 * One exchange with a job server, in one transaction: who it is, what became of its steps, what it gets next.
 *
 * The number of statements does not depend on the number of steps, and they travel in two turns: the connection is
 * pipelined, so what does not depend on an answer is sent without waiting for it. First turn: begin, lock the server's
 * row and the steps that are reported on. Second (a look at successors may come before it): write the results, claim,
 * write the server's row, commit. Everything is decided in core, from rows that are locked. docs/internals/jobs.md.
 */
export interface ExchangeOutcome {
  readonly answer: ExchangeAnswer;
  /** It may be given steps that come later: it is the newest request of the queue's instance. */
  readonly mayWait: boolean;
  /** The machine of a service that lives and from which this one took the queue without a cluster's word; null: none. */
  readonly rival: string | null;
}

/**
 * Does the exchange, in the transaction that begins on the pipelined `client`, and commits. Throws what `admit` throws;
 * the transaction is then still open.
 */
export async function exchangeOnce(client: pg.ClientBase, request: Exchange): Promise<ExchangeOutcome> {
  const [view, locked] = await Promise.all([
    readExchangeView(client, request),
    lockReported(client, request),
  ]);
  const admission = admit(view, request);
  const told = await planTold(client, request, view, { takeover: admission.kind === "takeover", locked });
  return await finishExchange(client, request, { view, admission: admission.kind, told });
}

/**
 * A later look for steps, for a request that waits: nothing is told any more, only given. Null: it was overtaken; the
 * transaction is then still open.
 */
export async function exchangeAgain(
  client: pg.ClientBase,
  request: Exchange,
): Promise<ExchangeOutcome | null> {
  const view = await readExchangeView(client, request);
  const { server } = view;
  if (server?.instance !== request.instance || server.sequence !== request.sequence) return null;
  return await finishExchange(
    client,
    { ...request, results: [] },
    { view, admission: "current", told: NOTHING_TOLD },
  );
}

interface Finish {
  readonly view: ExchangeView;
  readonly admission: "current" | "overtaken" | "takeover";
  readonly told: Told;
}

async function finishExchange(
  client: pg.ClientBase,
  request: Exchange,
  { view, admission, told }: Finish,
): Promise<ExchangeOutcome> {
  const { settlement, plain } = told;
  const delivery = decideDelivery(view, request);
  const takeover = admission === "takeover";
  const mayWait = admission !== "overtaken";
  // The order of the calls is the order in which the database sees them.
  const turn = new Turn();
  sendTogether(client);
  if (settlement !== null) turn.send(writeSettlement(client, settlement));
  if (plain.length > 0)
    turn.send(
      writePlainEnds(client, plain, {
        instance: request.instance,
        machine: view.server?.machine ?? request.machine,
      }),
    );
  turn.send(writeStarts(client, request, told));
  const verdicts = judge(client, request.results, told.recorded);
  turn.send(verdicts);
  const claim = { view, delivery, settlement };
  const claimed = mayWait ? claimRows(client, request, claim) : Promise.resolve([]);
  turn.send(claimed);
  if (!isOneStatement(claim, request)) await claimed;
  turn.send(settleProcesses(client, endedIn(told)));
  if (settlement !== null) turn.send(notifyOthers(client, request.queue, [settlement]));
  turn.send(writeServer(client, request, { view, delivery, takeover }));
  const rival = takeover ? rivalOf(view, request) : null;
  if (takeover) turn.send(writeRival(client, request.queue, rival));
  if (settlement === null && plain.length + told.begun.length === 0 && !takeover)
    turn.send(hurryOnlyForSteps(client, request));
  turn.send(client.query("commit"));
  await turn.end();
  const { steps, unresolved } = await presentSteps(client, await claimed);
  if (unresolved.length > 0) await endUnresolved(client, unresolved);
  return {
    mayWait,
    rival,
    answer: {
      sequence: request.sequence,
      leaseMs: view.leaseMs,
      revision: view.revision,
      updating: delivery.updating,
      withheld: delivery.withheld,
      results: await verdicts,
      confirmed: [...told.confirmed],
      lost: [...told.lost],
      steps,
    },
  };
}

function rivalOf({ server }: ExchangeView, { machine, term }: Exchange): string | null {
  const isRival = server?.instance != null && server.alive && server.machine !== machine && term == null;
  return isRival ? server.machine : null;
}

/** The processes of which a step has ended. */
function endedIn({ plain, settlement }: Told): number[] {
  return [...new Set([...plain.map(({ process }) => process), ...(settlement?.processes ?? [])])];
}

/** Statements on their way. Each may fail before anybody waits for it: `end` is where that shows. */
class Turn {
  readonly #sent: Promise<unknown>[] = [];

  send(statement: Promise<unknown>): void {
    statement.catch(() => {});
    this.#sent.push(statement);
  }

  async end(): Promise<void> {
    await Promise.all(this.#sent);
  }
}

/**
 * Nothing was recorded: unless steps are given out, nobody would miss this transaction, and it need not wait for the
 * disk. Steps must: a claim's number that a crash of the database took back could be given out twice.
 */
async function hurryOnlyForSteps(client: pg.ClientBase, { instance, sequence }: Exchange): Promise<void> {
  await client.query({
    name: "job-unhurried",
    text: `select set_config('synchronous_commit', 'off', true) where not exists (
        select from job_step where claim_instance = $1 and claim_sequence = $2 and state in ('loaded', 'processing'))`,
    values: [instance, sequence],
  });
}

/** Whether the claim is sent whole by its call, so that what follows may be sent behind it. */
function isOneStatement({ view, delivery, settlement }: Claiming, { queue }: Exchange): boolean {
  return !delivery.updating && !view.limitedReady && settlement?.limitedReady.has(queue) !== true;
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

/**
 * Steps that cannot begin, because an output that they name does not exist, end with an error, in a transaction of their
 * own. Should that one fail, the service does not know them and they come back.
 */
async function endUnresolved(client: pg.ClientBase, unresolved: readonly UnresolvedStep[]): Promise<void> {
  const found = new Map(unresolved.map((each) => [each.claim, each.problem]));
  await client.query("begin");
  const locked = await lockSteps(
    client,
    unresolved.map(({ id }) => id),
  );
  const endings = locked.filter(isClaimed).flatMap((step): StepEnding[] => {
    const message = found.get(step.claim ?? 0);
    if (message === undefined) return [];
    const end = decideResult(step, { outcome: "error", permanent: true });
    return [{ step, end, message, run: { outcome: "error", message } }];
  });
  const settled = await settleSteps(client, endings);
  await settleProcesses(client, settled.processes);
  await notifyOthers(client, "", [settled]);
  await client.query("commit");
}

/** So many former instances are remembered. */
const FORMER_MAX = 32;

interface ServerWrite {
  readonly view: ExchangeView;
  readonly delivery: Delivery;
  readonly takeover: boolean;
}

async function writeServer(
  client: pg.ClientBase,
  request: Exchange,
  { view, delivery, takeover }: ServerWrite,
): Promise<void> {
  const former = [view.server?.instance ?? null, ...(view.server?.former ?? [])];
  await client.query({
    name: "job-write-server",
    text: `insert into job_server as s (queue, machine, node, term, instance, sequence, answered, lease_until,
        last_fetch_at, version, revision, installation, status_url, updating_since, withheld, virtual_time)
      values ($1, $2, $3, coalesce($4::bigint, 0), $5, $6, $7, now() + make_interval(secs => $8::float8 / 1000),
        now(), $9, $10, $11, $12, case when $13::boolean then now() end, $14, coalesce((
          select max(fair) from job_step where claim_instance = $5 and claim_sequence = $6
            and state in ('loaded', 'processing')), 0))
      on conflict (queue) do update set machine = $2, node = $3, term = coalesce($4::bigint, s.term), instance = $5,
        sequence = case when $15::boolean then $6 else greatest(s.sequence, $6) end,
        answered = case when $15::boolean then $7 else greatest(s.answered, $7) end,
        lease_until = excluded.lease_until, last_fetch_at = now(), version = $9, revision = $10, installation = $11,
        status_url = $12, updating_since = case when $13::boolean then coalesce(s.updating_since, now()) end,
        withheld = $14, former = coalesce($16::uuid[], s.former), virtual_time = greatest(s.virtual_time, excluded.virtual_time)`,
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
    ],
  });
}

/** Whoever asks the hub how it does hears of two services with one queue, whichever hub it was that saw them. */
async function writeRival(client: pg.ClientBase, queue: string, rival: string | null): Promise<void> {
  await client.query({
    name: "job-write-rival",
    text: `update job_server set rival = $2, rival_at = case when $2::text is not null then now() end
      where queue = $1 and (rival is distinct from $2 or $2 is not null)`,
    values: [queue, rival],
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
        select queue from job_server v where queue <> $4 and (
          exists (select from unnest($2::text[]) as c(component), unnest('{internal,external}'::text[]) as e(execution), lateral (
            select from job_step s where s.queue = v.queue and s.execution = e.execution and s.component = c.component
              and s.state = 'ready' and s.limited
            order by task, coalesce(exclusive_object, ''), priority desc, fair, id limit 1) waiting)
          or exists (select from unnest($3::text[]) as o(object), lateral (
            select from job_step s where s.exclusive_object = o.object and s.queue = v.queue and s.state = 'ready'
            order by fair limit 1) waiting))
      ) as woken order by queue`,
    values: [
      [...queues].sort(),
      freed.map(({ component }) => component),
      freed.flatMap(({ exclusiveObject }) => (exclusiveObject === null ? [] : [exclusiveObject])),
      queue,
    ],
  });
}

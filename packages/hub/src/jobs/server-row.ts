import type { GateServer, JobLimit } from "@lockstep/core";
import type { Exchange } from "@lockstep/protocol";
import type pg from "pg";

/** A server as an exchange finds it, under lock, and whatever else decides what it may get. */
export interface ServerRow extends GateServer {
  readonly machine: string;
  readonly instance: string | null;
  readonly former: readonly string[];
  readonly term: number;
  readonly sequence: number;
  readonly answered: number;
  readonly pausedReason: string | null;
  readonly updatingSince: Date | null;
  /** Claims of `instance`: [step, claim, sequence of the request that got it, whether its start is confirmed]. */
  readonly held: readonly (readonly [number, number, number, boolean])[];
}

export interface ExchangeView {
  readonly server: ServerRow | null;
  /** The semaphore. */
  readonly revision: number;
  readonly autoUpdate: boolean;
  /** Common/Jobs/Stopped. */
  readonly stopped: boolean;
  readonly leaseMs: number;
  /** The other queues of the machine. */
  readonly machine: readonly GateServer[];
  readonly updateServers: readonly GateServer[];
  readonly limits: readonly JobLimit[];
  /** Steps that a limit may keep back are ready in the queue. */
  readonly limitedReady: boolean;
}

const LEASE_SECONDS = { usual: 30, max: 3_600 };

/** Common/Jobs/LeaseSeconds in milliseconds; what makes no sense there, by a hand in the database, counts as not given. */
export function leaseMsOf(setting: unknown): number {
  const isGood = typeof setting === "number" && setting >= 1 && setting <= LEASE_SECONDS.max;
  return 1000 * (isGood ? setting : LEASE_SECONDS.usual);
}

interface ViewRow {
  readonly revision: number;
  readonly settings: Readonly<Record<string, unknown>> | null;
  readonly others: readonly (GateServer & { readonly machine: string })[] | null;
  readonly limits: readonly JobLimit[] | null;
  readonly limitedReady: boolean;
  readonly server:
    | (Omit<ServerRow, "held" | "updatingSince"> & { readonly updatingSince: string | null })
    | null;
  /** Arrays of the database in its own text, one entry for each claim: JSON would take several times as long. */
  readonly heldSteps: string | null;
  readonly heldClaims: string | null;
  readonly heldSequences: string | null;
  readonly heldBegun: string | null;
}

const GATE_COLUMNS = `'queue', o.queue, 'revision', o.revision, 'alive', coalesce(o.lease_until > now(), false),
  'disabled', o.disabled, 'noAutoUpdate', o.no_auto_update, 'updateServer', o.update_server`;

/** Whether one is there. In the order of the index, which is what makes the database take that one. */
const FIRST_LIMITED = (execution: "internal" | "external") => `(select true from job_step
  where queue = $1 and execution = '${execution}' and limited and state = 'ready'
  order by priority desc, fair, id limit 1)`;

/** Locks the server's row and reads all that an exchange depends on but the steps that it reports on: one statement. */
export async function readExchangeView(
  client: pg.ClientBase,
  { queue, machine }: Pick<Exchange, "queue" | "machine">,
): Promise<ExchangeView> {
  const { rows } = await client.query<ViewRow>({
    name: "job-exchange-view",
    text: `select coalesce((select value from semaphore where name = 'SoftwareRevision'), 0) as revision,
        (select jsonb_object_agg(name, value) from setting
          where name in ('Common/AutoUpdate', 'Common/Jobs/Stopped', 'Common/Jobs/LeaseSeconds')) as settings,
        (select jsonb_agg(jsonb_build_object('machine', o.machine, ${GATE_COLUMNS}))
          from job_server o where o.queue <> $1 and (o.machine = $2 or o.update_server)) as others,
        (select jsonb_agg(jsonb_build_object('component', component, 'task', task, 'maxInstance', max_instance))
          from job_component_limit) as limits,
        coalesce(${FIRST_LIMITED("internal")}, ${FIRST_LIMITED("external")}, false) as "limitedReady",
        s.server, h.*
      from (select) as one left join lateral (
        select o.instance, jsonb_build_object(${GATE_COLUMNS}, 'machine', o.machine, 'instance', o.instance,
          'former', o.former, 'term', o.term, 'sequence', o.sequence, 'answered', o.answered,
          'pausedReason', o.paused_reason, 'updatingSince', o.updating_since) as server
        from job_server o where o.queue = $1 for no key update of o
      ) s on true left join lateral (
        select array_agg(id)::text as "heldSteps", array_agg(claim)::text as "heldClaims",
          array_agg(claim_sequence)::text as "heldSequences", array_agg(state = 'processing')::text as "heldBegun"
        from job_step where claim_instance = s.instance and state in ('loaded', 'processing')
      ) h on true`,
    values: [queue, machine],
  });
  const row = rows[0];
  const settings = row?.settings ?? {};
  const others = row?.others ?? [];
  const server = row?.server ?? null;
  return {
    server:
      server === null
        ? null
        : {
            ...server,
            held: row === undefined ? [] : readHeld(row),
            updatingSince: server.updatingSince === null ? null : new Date(server.updatingSince),
          },
    revision: row?.revision ?? 0,
    autoUpdate: settings["Common/AutoUpdate"] !== false,
    stopped: settings["Common/Jobs/Stopped"] === true,
    leaseMs: leaseMsOf(settings["Common/Jobs/LeaseSeconds"]),
    machine: others.filter((other) => other.machine === machine),
    updateServers: [
      ...others.filter(({ updateServer }) => updateServer),
      ...(server?.updateServer === true ? [server] : []),
    ],
    limits: row?.limits ?? [],
    limitedReady: row?.limitedReady === true,
  };
}

function readHeld({ heldSteps, heldClaims, heldSequences, heldBegun }: ViewRow): ServerRow["held"] {
  const entries = (text: string | null) => (text === null ? [] : text.slice(1, -1).split(","));
  const [claims, sequences, begun] = [entries(heldClaims), entries(heldSequences), entries(heldBegun)];
  return entries(heldSteps).map((step, at) => [
    Number(step),
    Number(claims[at]),
    Number(sequences[at]),
    begun[at] === "t",
  ]);
}

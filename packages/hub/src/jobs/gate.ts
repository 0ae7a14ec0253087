import { decideGate, type GateServer } from "@lockstep/core";
import type { Exchange } from "@lockstep/protocol";
import type pg from "pg";
import type { ExchangeView } from "./server-row.ts";

/** What a server may get now, and why not everything. */
export interface Delivery {
  readonly deliver: "all" | "update-only" | "none";
  readonly updating: boolean;
  readonly withheld: string | null;
}

/** Decides by the flags that people set, then by the automatic update. */
export function decideDelivery(view: ExchangeView, request: Exchange): Delivery {
  const row = view.server;
  const server: GateServer = {
    queue: request.queue,
    revision: request.revision,
    alive: true,
    disabled: row?.disabled ?? false,
    noAutoUpdate: row?.noAutoUpdate ?? false,
    updateServer: row?.updateServer ?? false,
  };
  const gate = decideGate({
    revision: view.revision,
    autoUpdate: view.autoUpdate,
    server,
    machine: view.machine,
    updateServers: view.updateServers.map((other) => (other.queue === request.queue ? server : other)),
  });
  if (view.stopped) return { deliver: "none", updating: false, withheld: "all job servers are stopped" };
  if (server.disabled) return { deliver: "none", updating: false, withheld: "the server is switched off" };
  const paused = row?.pausedReason ?? null;
  if (paused !== null && !gate.updating)
    return { deliver: "none", updating: false, withheld: `the server is paused: ${paused}` };
  // A server that only waits for its update gets everything; the reason is for the list of servers.
  return { deliver: gate.deliver, updating: gate.updating, withheld: gate.reason };
}

/** Further tries to bring one server to one revision come after longer and longer pauses. */
const RETRY_SECONDS = { first: 60, max: 3_600 };

/**
 * Makes the process that updates a server, unless one is under way. One is made for each revision; when it has ended and
 * the server still is not there, another one follows after a pause. Returns whether there may be a new step to claim.
 */
export async function ensureUpdateProcess(
  client: pg.ClientBase,
  queue: string,
  revision: number,
): Promise<void> {
  const { rows } = await client.query<{ open: boolean; earlier: number }>({
    name: "job-update-processes",
    text: `select coalesce(bool_or(state = 'running'), false) as open,
        coalesce(count(*) filter (where starts_with(idempotency_key, $2)), 0)::int as earlier
      from job_process where template = $1 and (state = 'running' or created_at > now() - interval '30 days')`,
    values: [updateTemplate(queue), `${updateKey(queue, revision)}:`],
  });
  const { open = false, earlier = 0 } = rows[0] ?? {};
  if (open) return;
  const pause =
    earlier === 0 ? 0 : Math.min(RETRY_SECONDS.first * 2 ** Math.min(earlier - 1, 10), RETRY_SECONDS.max);
  await client.query({
    name: "job-update-process",
    text: `with process as (
        insert into job_process (name, template, priority, parameters, started_by, idempotency_key)
        values ('Automatic update of ' || $1::text, $2, 15, jsonb_build_object('revision', $3::bigint), 'lockstep', $4)
        on conflict (idempotency_key) where idempotency_key is not null do nothing returning id
      )
      insert into job_step (process_id, name, component, task, queue, parameters, state, ready_at, priority, on_crash,
        crashes_max, freeze_on_error)
      select id, 'Update', 'AutoUpdate', 'CheckAndUpdate', $1, jsonb_build_object('revision', $3::bigint),
        case when $5::float8 > 0 then 'deferred' else 'ready' end,
        case when $5::float8 > 0 then now() + make_interval(secs => $5::float8) end, 15, 'rerun', 20, false
      from process`,
    values: [queue, updateTemplate(queue), revision, `${updateKey(queue, revision)}:${earlier + 1}`, pause],
  });
}

/** The template name that all update processes of a queue go by. */
export function updateTemplate(queue: string): string {
  return `AutoUpdate ${queue}`;
}

function updateKey(queue: string, revision: number): string {
  return `automatic-update:${revision}:${queue}`;
}

import { formatText } from "@lockstep/core";
import {
  type CheckVersion,
  type HubStatus,
  type JobServer,
  type JobServerChange,
  type JobServerList,
  type JobStop,
  LockstepError,
} from "@lockstep/protocol";
import type pg from "pg";
import { withTransaction } from "../db/connect.ts";
import { updateTemplate } from "./gate.ts";
import { startProcess } from "./start.ts";

/** Job servers as people see and steer them, and the emergency stop of all of them. */
interface ServerRow extends Omit<JobServer, "lastFetchAt"> {
  readonly lastFetchAt: Date | null;
}

/**
 * All servers that have ever asked, that somebody has set a flag for, or for whose queue steps wait: a queue that is
 * spelled wrong in a template shows here as one that no server has ever served.
 */
export async function listServers(client: pg.Pool | pg.PoolClient): Promise<JobServerList> {
  const { rows } = await client.query<ServerRow>(
    `with counted as (
       select queue, jsonb_object_agg(state, count) as steps from (
         select queue, state, count(*) as count from job_step where state <> 'finished' group by queue, state) c
       group by queue
     )
     select queue, coalesce(machine, '') as machine, node, case when node is not null then term end as term,
       coalesce(version, '') as version, revision,
       case when disabled then 'disabled' when paused_reason is not null then 'paused'
         when last_fetch_at is null then 'never' when lease_until is null or lease_until < now() then 'silent'
         when updating_since is not null then 'updating' else 'serving' end as state,
       withheld, last_fetch_at as "lastFetchAt", paused_reason as "pauseReason",
       coalesce(no_auto_update, false) as "noAutoUpdate", coalesce(update_server, false) as "updateServer",
       coalesce(disabled, false) as disabled, status_url as "statusUrl", coalesce(c.steps, '{}') as steps
     from job_server v full join counted c using (queue) order by queue`,
  );
  const stop = await readStop(client);
  const semaphore = await client.query<{ value: number }>(
    "select value from semaphore where name = 'SoftwareRevision'",
  );
  return {
    revision: semaphore.rows[0]?.value ?? 0,
    stopped: stop.stopped,
    stoppedReason: stop.reason,
    servers: rows.map(({ lastFetchAt, ...row }) => ({
      ...row,
      lastFetchAt: lastFetchAt?.getTime() ?? null,
      // What was said last is old news of a server that says nothing any more.
      withheld: row.state === "silent" || row.state === "never" ? null : row.withheld,
    })),
  };
}

/** A service that lost its queue to another one asks again after at most an hour and a half. */
const RIVALS_SECONDS = 7_200;

/** The queues that two running services have taken from each other of late, the newest first. */
export async function listRivals(pool: pg.Pool): Promise<NonNullable<HubStatus["rivals"]>> {
  const { rows } = await pool.query<{ queue: string; machine: string; former: string; at: Date }>(
    `select queue, machine, rival as former, rival_at as at from job_server
     where rival is not null and rival_at > now() - make_interval(secs => $1) order by rival_at desc, queue limit 100`,
    [RIVALS_SECONDS],
  );
  return rows.map(({ at, ...row }) => ({ ...row, at: at.getTime() }));
}

/** Sets the flags that are given; makes the entry where there is none. The server learns of it at once. */
export async function changeServer(
  pool: pg.Pool,
  queue: string,
  change: JobServerChange,
): Promise<JobServer> {
  return await withTransaction(pool, async ({ client }) => {
    await client.query(
      `insert into job_server (queue, paused_reason, disabled, no_auto_update, update_server)
       values ($1, $2, coalesce($4, false), coalesce($5, false), coalesce($6, false))
       on conflict (queue) do update set
         paused_reason = case when $3 then $2 else job_server.paused_reason end,
         disabled = coalesce($4, job_server.disabled),
         no_auto_update = coalesce($5, job_server.no_auto_update),
         update_server = coalesce($6, job_server.update_server)`,
      [
        queue,
        change.paused ?? null,
        change.paused !== undefined,
        change.disabled ?? null,
        change.noAutoUpdate ?? null,
        change.updateServer ?? null,
      ],
    );
    const { servers } = await listServers(client);
    const server = servers.find((each) => each.queue === queue);
    if (server === undefined) throw new LockstepError("INTERNAL", "a server was changed and is not there");
    return server;
  });
}

/**
 * Puts an update step into the server's queue, whether or not it seems to need one; where one waits already, that is it.
 * Throws JOB_SERVER_UNKNOWN.
 */
export async function checkVersion(pool: pg.Pool, queue: string, by: string): Promise<CheckVersion> {
  return await withTransaction(pool, async ({ client }) => {
    const { rows } = await client.query<{ revision: number | null; installation: string | null }>(
      "select revision, installation from job_server where queue = $1 and last_fetch_at is not null for no key update",
      [queue],
    );
    const [server] = rows;
    if (server === undefined)
      throw new LockstepError("JOB_SERVER_UNKNOWN", `no server has ever asked for ${JSON.stringify(queue)}`, {
        hint: "lockstep job servers shows the queues; compare the spelling.",
      });
    if (server.revision === null)
      return {
        process: null,
        detail: "the server belongs to no installation, so there is nothing to update",
      };
    const open = await client.query<{ process: number }>(
      `select process_id as process from job_step
       where queue = $1 and component = 'AutoUpdate' and state <> 'finished' order by id limit 1`,
      [queue],
    );
    const waiting = open.rows[0];
    if (waiting !== undefined)
      return { process: waiting.process, detail: "an update step was there already" };
    const semaphore = await client.query<{ value: number }>(
      "select value from semaphore where name = 'SoftwareRevision'",
    );
    const revision = semaphore.rows[0]?.value ?? 0;
    const { process } = await startProcess(client, {
      template: {
        name: `Automatic update of ${queue}`,
        priority: 15,
        steps: [
          {
            name: "Update",
            component: "AutoUpdate",
            task: "CheckAndUpdate",
            // Queues may hold what begins a reference; here it does not.
            queue: formatText([{ kind: "literal", text: queue }]),
            execution: "internal",
            parameters: { revision },
          },
        ],
      },
      storedAs: updateTemplate(queue),
      parameters: {},
      startedBy: by,
    });
    return { process, detail: `the server checks against revision ${revision}` };
  });
}

/** Whether job services get steps at all; independent of the emergency stop of the DBQueue Processor. */
async function readStop(client: pg.Pool | pg.PoolClient): Promise<JobStop> {
  const { rows } = await client.query<{ name: string; value: unknown }>(
    "select name, value from setting where name in ('Common/Jobs/Stopped', 'Common/Jobs/StoppedReason')",
  );
  const values = new Map(rows.map(({ name, value }) => [name, value]));
  const stopped = values.get("Common/Jobs/Stopped") === true;
  const reason = values.get("Common/Jobs/StoppedReason");
  return { stopped, reason: stopped && typeof reason === "string" && reason !== "" ? reason : null };
}

/** Sets or lifts the emergency stop. Steps that services have already are still finished; nothing is lost. */
export async function setStop(pool: pg.Pool, stop: JobStop): Promise<JobStop> {
  return await withTransaction(pool, async ({ client }) => {
    await client.query(
      `insert into setting (name, value) values
         ('Common/Jobs/Stopped', to_jsonb($1::boolean)), ('Common/Jobs/StoppedReason', to_jsonb($2::text))
       on conflict (name) do update set value = excluded.value`,
      [stop.stopped, stop.stopped ? (stop.reason ?? "") : ""],
    );
    // To every queue: whoever waits is told why it gets nothing, or gets what has come together.
    await client.query("select pg_notify('lockstep_job', '')");
    return await readStop(client);
  });
}

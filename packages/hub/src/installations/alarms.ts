import type { InstallationAlarm } from "@lockstep/protocol";
import type pg from "pg";

/** Raises an alarm, or counts one that stands already. What came from outside is cut to a length that a screen takes. */
export async function raiseAlarm(
  client: pg.Pool | pg.PoolClient,
  kind: InstallationAlarm["kind"],
  subject: string,
  detail: string,
): Promise<void> {
  await client.query(
    `insert into installation_alarm (kind, subject, detail) values ($1, $2, $3)
     on conflict (kind, subject) do update
       set detail = excluded.detail, count = installation_alarm.count + 1, last_at = now()`,
    [kind, subject.slice(0, 100), detail.slice(0, 500)],
  );
}

const SHOWN_MAX = 200;

/** The alarms that stand, newest first. */
export async function listAlarms(pool: pg.Pool): Promise<InstallationAlarm[]> {
  const { rows } = await pool.query<
    Omit<InstallationAlarm, "firstAt" | "lastAt"> & { firstAt: Date; lastAt: Date }
  >(
    `select kind, subject, detail, count, first_at as "firstAt", last_at as "lastAt"
     from installation_alarm order by last_at desc limit $1`,
    [SHOWN_MAX],
  );
  return rows.map((row) => ({ ...row, firstAt: row.firstAt.getTime(), lastAt: row.lastAt.getTime() }));
}

/** Removes the alarms of a subject, or all: somebody has looked. Returns how many stood. */
export async function clearAlarms(pool: pg.Pool, subject: string | null): Promise<number> {
  const { rowCount } = await pool.query(
    "delete from installation_alarm where $1::text is null or subject = $1",
    [subject],
  );
  return rowCount ?? 0;
}

import type { InstallationList, InstallationReport } from "@lockstep/protocol";
import type pg from "pg";
import { raiseAlarm } from "../installations/alarms.ts";

/**
 * Records what an installation said of itself `ageSeconds` ago. `changed_at` moves when something other than the time differs. Where it was
 * heard later than that, more than a second as ages are whole ones, what it said then stays.
 */
export async function recordReport(
  pool: pg.Pool,
  id: string,
  report: InstallationReport,
  ageSeconds = 0,
): Promise<void> {
  await pool.query(
    `insert into installation
       (id, host, directory, roles, packages, revision, outcome, problem, auto_update, updater_version, release_log, seen_at, changed_at)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, now() - make_interval(secs => $12::float8), now() - make_interval(secs => $12::float8))
     on conflict (id) do update set host = excluded.host, directory = excluded.directory, roles = excluded.roles,
       packages = excluded.packages, revision = excluded.revision, outcome = excluded.outcome,
       problem = excluded.problem, auto_update = excluded.auto_update, updater_version = excluded.updater_version,
       release_log = coalesce(excluded.release_log, installation.release_log),
       seen_at = case when $12::float8 = 0 then excluded.seen_at else greatest(excluded.seen_at, installation.seen_at) end,
       changed_at = case when (installation.host, installation.directory, installation.roles, installation.packages,
           installation.revision, installation.outcome, installation.problem, installation.auto_update,
           installation.updater_version)
         is distinct from (excluded.host, excluded.directory, excluded.roles, excluded.packages,
           excluded.revision, excluded.outcome, excluded.problem, excluded.auto_update, excluded.updater_version)
         then excluded.seen_at else installation.changed_at end
     where $12::float8 = 0 or excluded.seen_at + interval '1 second' >= installation.seen_at`,
    [
      id,
      report.host,
      report.directory,
      JSON.stringify(report.roles),
      JSON.stringify(report.packages),
      report.revision,
      report.outcome,
      report.problem,
      report.autoUpdate,
      report.updaterVersion,
      (report.releaseLog ?? null) === null ? null : JSON.stringify(report.releaseLog),
      ageSeconds,
    ],
  );
  if ((report.releaseLog ?? null) !== null) await compareHistory(pool, id);
  if (report.logAltered !== undefined) {
    const { file, line, expected, found } = report.logAltered;
    const detail = `${file}, line ${line}: expected the link ${expected ?? "of some record"}, found ${found ?? "none"}`;
    await raiseAlarm(pool, "log-altered", id, detail);
  }
}

/**
 * Holds the history that an installation was shown against this hub's own (A23). It finds that somebody else shows it other
 * releases; that this hub itself does, only those find who compare installations with each other (`lockstep trust compare`).
 */
async function compareHistory(pool: pg.Pool, id: string): Promise<void> {
  const { rows } = await pool.query<{ size: number; head: string; own: string }>(
    `select (i.release_log->>'size')::bigint as size, i.release_log->>'head' as head, encode(r.head, 'hex') as own
     from installation i join trust_release r
       on r.epoch = (i.release_log->>'epoch')::int and r.index = (i.release_log->>'size')::bigint
     where i.id = $1 and encode(r.head, 'hex') <> i.release_log->>'head'`,
    [id],
  );
  const [row] = rows;
  if (row === undefined) return;
  const detail = `after ${row.size} releases it was shown the head ${row.head.slice(0, 16)}, here it is ${row.own.slice(0, 16)}`;
  await raiseAlarm(pool, "history-differs", id, detail);
}

/** All installations that ever reported, by host and directory. */
export async function listInstallations(pool: pg.Pool): Promise<InstallationList> {
  const { rows } = await pool.query<{
    id: string;
    host: string;
    directory: string;
    roles: string[];
    packages: string[];
    revision: number | null;
    outcome: InstallationReport["outcome"];
    problem: string | null;
    autoUpdate: boolean;
    updaterVersion: string;
    releaseLog: InstallationReport["releaseLog"];
    seenAt: Date;
    changedAt: Date;
  }>(
    `select id, host, directory, roles, packages, revision, outcome, problem, auto_update as "autoUpdate",
       updater_version as "updaterVersion", release_log as "releaseLog", seen_at as "seenAt", changed_at as "changedAt"
     from installation order by host, directory, id`,
  );
  return {
    installations: rows.map(({ releaseLog = null, ...row }) => ({
      ...row,
      releaseLog,
      seenAt: row.seenAt.getTime(),
      changedAt: row.changedAt.getTime(),
    })),
  };
}

import type { InstallationList, InstallationReport } from "@lockstep/protocol";
import type pg from "pg";

/** Records what an installation says of itself. `changed_at` moves when something other than the time differs. */
export async function recordReport(pool: pg.Pool, id: string, report: InstallationReport): Promise<void> {
  await pool.query(
    `insert into installation
       (id, host, directory, roles, packages, revision, outcome, problem, auto_update, updater_version)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
     on conflict (id) do update set host = excluded.host, directory = excluded.directory, roles = excluded.roles,
       packages = excluded.packages, revision = excluded.revision, outcome = excluded.outcome,
       problem = excluded.problem, auto_update = excluded.auto_update, updater_version = excluded.updater_version,
       seen_at = now(),
       changed_at = case when (installation.host, installation.directory, installation.roles, installation.packages,
           installation.revision, installation.outcome, installation.problem, installation.auto_update,
           installation.updater_version)
         is distinct from (excluded.host, excluded.directory, excluded.roles, excluded.packages,
           excluded.revision, excluded.outcome, excluded.problem, excluded.auto_update, excluded.updater_version)
         then now() else installation.changed_at end`,
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
    ],
  );
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
    seenAt: Date;
    changedAt: Date;
  }>(
    `select id, host, directory, roles, packages, revision, outcome, problem, auto_update as "autoUpdate",
       updater_version as "updaterVersion", seen_at as "seenAt", changed_at as "changedAt"
     from installation order by host, directory, id`,
  );
  return {
    installations: rows.map((row) => ({
      ...row,
      seenAt: row.seenAt.getTime(),
      changedAt: row.changedAt.getTime(),
    })),
  };
}

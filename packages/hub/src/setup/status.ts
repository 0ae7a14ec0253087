import { OWN_MODULE } from "@lockstep/core";
import type { HubStatus } from "@lockstep/protocol";
import { schemaState } from "../db/migrate.ts";
import type { HubServices } from "../http/services.ts";
import { listRivals } from "../jobs/servers.ts";
import { secondsLeft } from "../served-certificate.ts";

/** The hub itself: works with any schema, so that it can say what is missing. */
export async function readHubStatus({ pool, identity, certificate, clock }: HubServices): Promise<HubStatus> {
  const served = {
    ...identity,
    certificate:
      certificate === null ? null : { ...certificate, secondsLeft: secondsLeft(certificate, clock.now()) },
  };
  const { applied, known, pending } = await schemaState(pool);
  const setup = pending.length === 0 ? [] : [`database schema ${applied} → ${known}`];
  if (pending.length > 0)
    return {
      ...served,
      schema: applied,
      revision: 0,
      files: 0,
      contents: 0,
      storedBytes: 0,
      setup,
      rivals: [],
    };
  const { rows } = await pool.query<{
    revision: number;
    files: number;
    contents: number;
    storedBytes: number;
    version: string | null;
  }>(
    `select (select value from semaphore where name = 'SoftwareRevision') as revision,
       (select count(*) from file_revision)::int as files,
       (select count(*) from content)::int as contents,
       (select coalesce(sum(stored), 0) from content)::bigint as "storedBytes",
       (select version from module where id = $1) as version`,
    [OWN_MODULE],
  );
  const row = rows[0];
  if (row?.version !== identity.version)
    setup.push(`shipped module files ${row?.version ?? "not loaded"} → ${identity.version}`);
  return {
    ...served,
    schema: applied,
    revision: row?.revision ?? 0,
    files: row?.files ?? 0,
    contents: row?.contents ?? 0,
    storedBytes: row?.storedBytes ?? 0,
    setup,
    rivals: await listRivals(pool),
  };
}

import { collectSecrets, type Parameters } from "@lockstep/core";
import type pg from "pg";

/** For each of the processes that hide anything: the texts that must not appear in what is said of them. */
export async function readSecrets(
  client: pg.Pool | pg.PoolClient,
  processes: readonly number[],
): Promise<ReadonlyMap<number, readonly string[]>> {
  const { rows } = await client.query<{ process: number; parameters: Parameters; hidden: string[] }>(
    `select id as process, parameters, hidden from job_process where id = any($1) and hidden <> '{}'
     union all
     select process_id, parameters || output, hidden from job_step where process_id = any($1) and hidden <> '{}'`,
    [processes],
  );
  const byProcess = Map.groupBy(rows, ({ process }) => process);
  return new Map([...byProcess].map(([process, sources]) => [process, collectSecrets(sources)]));
}

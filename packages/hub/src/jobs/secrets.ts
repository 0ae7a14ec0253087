import { collectSecrets, maskText, type Parameters } from "@lockstep/core";
import type { StepResult } from "@lockstep/protocol";
import type pg from "pg";
import type { LockedStep } from "./steps.ts";

/** For each of the processes that hide anything: the texts that must not appear in what is said of them. */
export async function readSecrets(
  client: Pick<pg.ClientBase, "query">,
  processes: readonly number[],
): Promise<ReadonlyMap<number, readonly string[]>> {
  const { rows } = await client.query<{ process: number; parameters: Parameters; hidden: string[] }>(
    // Of each the hidden ones alone: the others may be a thousand times as long.
    `select process, hidden, (select coalesce(jsonb_object_agg(name, value), '{}') from (
         select name, given -> name as value from unnest(hidden) as name where given ? name) as own) as parameters
     from (
       select id as process, parameters as given, hidden from job_process where id = any($1) and hidden <> '{}'
       union all
       select process_id, parameters || output, hidden from job_step where process_id = any($1) and hidden <> '{}'
     ) as sources`,
    [processes],
  );
  const byProcess = Map.groupBy(rows, ({ process }) => process);
  return new Map([...byProcess].map(([process, sources]) => [process, collectSecrets(sources)]));
}

/**
 * Replaces hidden values in the messages of results, before anything writes them down. Most processes hide nothing, and
 * cost nothing here.
 */
export async function resultMask(
  client: Pick<pg.ClientBase, "query">,
  steps: readonly LockedStep[],
  results: readonly StepResult[],
): Promise<(step: LockedStep, result: StepResult) => StepResult> {
  const speaking = new Set(results.filter(({ message }) => message !== undefined).map(({ step }) => step));
  const hiding = steps.filter(
    ({ id, hidden, processHides }) => speaking.has(id) && (processHides || hidden.length > 0),
  );
  if (hiding.length === 0) return (_step, result) => result;
  const known = await readSecrets(client, [...new Set(hiding.map(({ process }) => process))]);
  return (step, result) => {
    if (result.message === undefined) return result;
    const { output = {} } = result;
    const own = collectSecrets([{ parameters: output, hidden: step.hidden }]);
    return { ...result, message: maskText(result.message, [...own, ...(known.get(step.process) ?? [])]) };
  };
}

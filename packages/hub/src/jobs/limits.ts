import { type ComponentLimit, type ComponentLimitList, LockstepError } from "@lockstep/protocol";
import type pg from "pg";
import { withTransaction } from "../db/connect.ts";

/** How many steps of a component, and of each of its tasks, may run at once over the whole hub. */
interface LimitRow {
  readonly component: string;
  /** Empty: the component's own. */
  readonly task: string;
  readonly maxInstance: number;
}

export async function listLimits(client: pg.Pool | pg.PoolClient): Promise<ComponentLimitList> {
  const { rows } = await client.query<LimitRow>(
    `select component, task, max_instance as "maxInstance" from job_component_limit order by component, task`,
  );
  const limits = [...Map.groupBy(rows, ({ component }) => component)].map(([component, own]) => {
    const tasks = own.filter(({ task }) => task !== "").map((row) => [row.task, row.maxInstance] as const);
    return {
      component,
      maxInstance: own.find(({ task }) => task === "")?.maxInstance ?? 0,
      ...(tasks.length === 0 ? {} : { tasks: Object.fromEntries(tasks) }),
    };
  });
  return { limits };
}

/**
 * Sets the limits of a component in place of those it had; with no limit at all it is forgotten. Throws REQUEST_INVALID.
 */
export async function putLimit(pool: pg.Pool, limit: ComponentLimit): Promise<ComponentLimitList> {
  if (Object.hasOwn(limit.tasks ?? {}, ""))
    throw new LockstepError("REQUEST_INVALID", "a task has no name", { expected: "at least one character" });
  const rows = [["", limit.maxInstance] as const, ...Object.entries(limit.tasks ?? {})].filter(
    ([, maxInstance]) => maxInstance !== 0,
  );
  return await withTransaction(pool, async ({ client }) => {
    await client.query("delete from job_component_limit where component = $1 and task <> all($2)", [
      limit.component,
      rows.map(([task]) => task),
    ]);
    await client.query(
      `insert into job_component_limit (component, task, max_instance)
       select $1, task, max_instance from unnest($2::text[], $3::int[]) as l(task, max_instance) order by task
       on conflict (component, task) do update set max_instance = excluded.max_instance`,
      [limit.component, rows.map(([task]) => task), rows.map(([, maxInstance]) => maxInstance)],
    );
    return await listLimits(client);
  });
}

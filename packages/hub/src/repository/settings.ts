import { TRANSFER_CHECKS } from "@lockstep/core";
import { LockstepError, type Settings } from "@lockstep/protocol";
import type pg from "pg";
import { withTransaction } from "../db/connect.ts";

/** The configuration parameters that people may set, and what each may hold. The emergency stop has its own call. */
const PARAMETERS: Readonly<Record<string, { readonly expected: string; accepts(value: unknown): boolean }>> =
  {
    "Common/AutoUpdate": { expected: "true or false", accepts: isBoolean },
    "Common/AutoUpdate/AllowOutOfTimeApps": { expected: "true or false", accepts: isBoolean },
    "Common/AutoUpdate/PollSeconds": { expected: "1 to 86400", accepts: isWithin(1, 86_400) },
    "Common/Jobs/KeepDays": { expected: "1 to 36500", accepts: isWithin(1, 36_500) },
    "Common/Jobs/LeaseSeconds": { expected: "1 to 3600", accepts: isWithin(1, 3_600) },
    "Common/Jobs/Stopped": { expected: "true or false", accepts: isBoolean },
    "Common/Transfer/AtOnce": { expected: "1 to 3", accepts: TRANSFER_CHECKS.atOnce },
    "Common/Transfer/BytesPerSecond": {
      expected: "0 (no limit) or at least 20000",
      accepts: TRANSFER_CHECKS.bytesPerSecond,
    },
    "Common/Transfer/Window": {
      expected: "times of the day like 22:00-05:00, several with commas, or nothing",
      accepts: TRANSFER_CHECKS.window,
    },
    "Common/Transfer/WindowFromBytes": {
      expected: "a number of bytes",
      accepts: TRANSFER_CHECKS.windowFromBytes,
    },
    "Common/Transfer/Steps": { expected: "true or false", accepts: isBoolean },
    "Common/Revision/Keep": { expected: "1 to 1000000", accepts: isWithin(1, 1_000_000) },
  };

function isBoolean(value: unknown): boolean {
  return typeof value === "boolean";
}

function isWithin(min: number, max: number): (value: unknown) => boolean {
  return (value) => typeof value === "number" && Number.isInteger(value) && value >= min && value <= max;
}

export async function readSettings(client: pg.Pool | pg.PoolClient): Promise<Settings> {
  const { rows } = await client.query<{ name: string; value: Settings[string] }>(
    "select name, value from setting where name = any($1) order by name",
    [Object.keys(PARAMETERS)],
  );
  return Object.fromEntries(rows.map(({ name, value }) => [name, value]));
}

/** Changes the named parameters, all or none, and returns them all. Throws REQUEST_INVALID with every fault. */
export async function writeSettings(pool: pg.Pool, changes: Settings): Promise<Settings> {
  const faults = Object.entries(changes).flatMap(([name, value]) => {
    const parameter = PARAMETERS[name];
    if (parameter === undefined) return [{ where: name, problem: "there is no such parameter" }];
    return parameter.accepts(value)
      ? []
      : [{ where: name, problem: `${JSON.stringify(value)} is not ${parameter.expected}` }];
  });
  if (faults.length > 0)
    throw new LockstepError("REQUEST_INVALID", "some configuration parameters cannot be set", {
      expected: Object.keys(PARAMETERS).join(", "),
      hint: "Nothing was changed.",
      faults,
    });
  return await withTransaction(pool, async ({ client }) => {
    await client.query(
      `insert into setting (name, value) select key, value from jsonb_each($1::jsonb) order by key
       on conflict (name) do update set value = excluded.value`,
      [JSON.stringify(changes)],
    );
    // Hubs answer GET /v1/revision from memory; part of it are settings.
    await client.query("select pg_notify('lockstep_revision', '')");
    return await readSettings(client);
  });
}

import { isDeepStrictEqual } from "node:util";
import { type ConfigValues, parametersOf, TABLE_NAMES, TABLES, type TableName } from "./parameters.ts";

export interface MergedValues {
  /** Those of the changed file where they count at once, else those in force. */
  readonly values: ConfigValues;
  /** Keys whose change waits for the next start. */
  readonly awaitingRestart: readonly string[];
}

type Row = Readonly<Record<string, unknown>>;

/**
 * What a changed file changes in a service that runs. Destinations are the same where they have the same queue; one
 * more or one less waits for the next start.
 */
export function mergeValues(inForce: ConfigValues, changed: ConfigValues): MergedValues {
  const awaitingRestart: string[] = [];
  const merged = TABLE_NAMES.map((name) => {
    if (!TABLES[name].many)
      return [
        name,
        mergeRow(name, name, rowOf(inForce[name]), rowOf(changed[name]), awaitingRestart),
      ] as const;
    return [name, mergeRows(name, rowsOf(inForce[name]), rowsOf(changed[name]), awaitingRestart)] as const;
  });
  return { values: Object.fromEntries(merged) as unknown as ConfigValues, awaitingRestart };
}

const rowOf = (value: unknown) => value as Row;
const rowsOf = (value: unknown) => value as readonly Row[];

function mergeRows(name: TableName, before: readonly Row[], after: readonly Row[], waiting: string[]): Row[] {
  const idOf = (row: Row) => String(row.Queue);
  for (const row of after)
    if (!before.some((each) => idOf(each) === idOf(row))) waiting.push(`${name} ${idOf(row)} (new)`);
  return before.map((row) => {
    const next = after.find((each) => idOf(each) === idOf(row));
    if (next !== undefined) return mergeRow(name, `${name} ${idOf(row)}`, row, next, waiting);
    waiting.push(`${name} ${idOf(row)} (removed)`);
    return row;
  });
}

function mergeRow(name: TableName, title: string, before: Row, after: Row, waiting: string[]): Row {
  return Object.fromEntries(
    parametersOf(name).map(([key, { effect }]) => {
      if (isDeepStrictEqual(before[key], after[key]) || effect === "at once") return [key, after[key]];
      waiting.push(`${title}.${key}`);
      return [key, before[key]];
    }),
  );
}

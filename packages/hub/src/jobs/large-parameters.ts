import type pg from "pg";

/**
 * Parameters that are large, read after the claim and only as many as an answer has room for.
 *
 * A claim takes up to a thousand steps at once, and the parameters of each may have megabytes: the statement that claims
 * would bring gigabytes into the hub before anybody could count them. So it leaves out what is not small in the table,
 * and these are read here, a few at a time, by a statement in which the database adds up their lengths and stops.
 */
/** So many are looked at in one go at first; more where they turn out to be not so large after all. */
const CHUNK = { first: 8, max: 64 };

/** What the statement that claims brings along: nothing that is larger than this in the table, where it is compressed. */
export const SMALL_PARAMETERS = "case when pg_column_size(s.parameters) <= 2000 then s.parameters end";

type Whole = { readonly parameters: Readonly<Record<string, unknown>> };

/**
 * The first rows in line with their parameters: all those that have room, and always the first one. `rows` are in turn.
 */
export async function readLargeParameters<
  Row extends { readonly id: number; readonly parameters: object | null },
>(
  client: Pick<pg.ClientBase, "query">,
  rows: readonly Row[],
  bytesMax: number,
): Promise<readonly (Row & Whole)[]> {
  const found = new Map<number, Readonly<Record<string, unknown>>>();
  const large = rows.filter(({ parameters }) => parameters === null).map(({ id }) => id);
  let room = bytesMax;
  let size = CHUNK.first;
  for (let at = 0; at < large.length && room > 0; ) {
    const chunk = large.slice(at, at + size);
    const answer = await client.query<{ id: number; parameters: Record<string, unknown>; upto: number }>({
      name: "job-large-parameters",
      text: `select id, parameters, upto from (
          select s.id, s.parameters, place, sum(octet_length(s.parameters::text)) over (order by place) as upto
          from unnest($1::bigint[]) with ordinality as wanted(id, place) join job_step s on s.id = wanted.id
        ) as line where upto <= $2 or (place = 1 and $3) order by place`,
      values: [chunk, room, at === 0],
    });
    for (const { id, parameters } of answer.rows) found.set(id, parameters);
    const used = Number(answer.rows.at(-1)?.upto ?? 0);
    room = answer.rows.length < chunk.length ? 0 : room - used;
    at += chunk.length;
    if (used * 4 < room) size = Math.min(size * 2, CHUNK.max);
  }
  if (large.length === 0) return rows as readonly (Row & Whole)[];
  const whole: (Row & Whole)[] = [];
  for (const row of rows) {
    const parameters = row.parameters ?? found.get(row.id);
    // In turn: what comes behind one that has no room waits with it.
    if (parameters === undefined) break;
    whole.push({ ...row, parameters: parameters as Readonly<Record<string, unknown>> });
  }
  return whole;
}

import type { Clock } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import { type ClusterDocument, checkDocument, type Documents } from "./documents.ts";

/**
 * Documents as rows of a table. Every write takes the next number of one counter row and so waits for the write before
 * it: documents are written rarely, and a revision must not be seen before a lower one.
 */
export const DOCUMENT_TABLES = `
create table if not exists cluster_document (key text primary key, text text not null, revision bigint not null);
create table if not exists cluster_document_counter (single boolean primary key default true check (single), value bigint not null);
insert into cluster_document_counter (value) values (0) on conflict do nothing;`;

const NEXT = "with counter as (update cluster_document_counter set value = value + 1 returning value)";
const INSERT = `${NEXT}
insert into cluster_document (key, text, revision) select $1, $2, value from counter
on conflict do nothing returning revision`;
const UPDATE = `${NEXT}
update cluster_document as document set text = $2, revision = counter.value from counter
where document.key = $1 and document.revision = $3 returning document.revision`;
const DELETE = `${NEXT},
gone as (delete from cluster_document using counter where key = $1 and revision = $2 returning 1)
select value as revision from counter, gone`;
const ABSENT = `
select value as revision from cluster_document_counter
where not exists (select from cluster_document where key = $1)`;
/** Grows or counts anew with every change below the prefix. */
const MARK = `
select count(*) as documents, coalesce(max(revision), 0) as newest from cluster_document where starts_with(key, $1)`;

type Query = (text: string, values: unknown[]) => Promise<{ readonly rows: Record<string, unknown>[] }>;

export interface PostgresDocumentsOptions {
  readonly query: Query;
  readonly clock: Clock;
  readonly prefix: string;
  /** How often to look for changes. */
  readonly watchMs: number;
  readonly closing: AbortSignal;
}

export class PostgresDocuments implements Documents {
  readonly #options: PostgresDocumentsOptions;

  constructor(options: PostgresDocumentsOptions) {
    this.#options = options;
  }

  async read(key: string): Promise<ClusterDocument | null> {
    const { query, prefix } = this.#options;
    const { rows } = await query("select text, revision from cluster_document where key = $1", [
      prefix + key,
    ]);
    const [row] = rows;
    return row === undefined ? null : documentOf(row);
  }

  async list(below: string): Promise<ReadonlyMap<string, ClusterDocument>> {
    const { query, prefix } = this.#options;
    const { rows } = await query(
      `select key, text, revision from cluster_document where starts_with(key, $1) order by key collate "C"`,
      [prefix + below],
    );
    return new Map(rows.map((row) => [String(row.key).slice(prefix.length), documentOf(row)]));
  }

  async write(key: string, expected: number, text: string | null): Promise<number | null> {
    checkDocument(key, text);
    const { query, prefix } = this.#options;
    const full = prefix + key;
    const { rows } = await (text === null
      ? expected === 0
        ? query(ABSENT, [full])
        : query(DELETE, [full, expected])
      : expected === 0
        ? query(INSERT, [full, text])
        : query(UPDATE, [full, text, expected]));
    return rows[0] === undefined ? null : Number(rows[0].revision);
  }

  async watch(below: string, tell: () => void, signal: AbortSignal): Promise<void> {
    const { query, prefix, clock, watchMs, closing } = this.#options;
    const ending = AbortSignal.any([signal, closing]);
    let before = "";
    while (!ending.aborted) {
      try {
        const { rows } = await query(MARK, [prefix + below]);
        const mark = `${rows[0]?.documents}:${rows[0]?.newest}`;
        if (mark !== before && !ending.aborted) tell();
        before = mark;
      } catch (error) {
        if (!isLockstepError(error)) throw error;
      }
      await clock.sleep(watchMs, ending);
    }
  }
}

const documentOf = ({ text, revision }: Record<string, unknown>): ClusterDocument => ({
  text: String(text),
  revision: Number(revision),
});

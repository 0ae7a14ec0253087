import type { Observation } from "@lockstep/core";
import type { Clock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import pg from "pg";
import type { Coordination, RecordSwap, SwapAnswer } from "./coordination.ts";
import type { Documents } from "./documents.ts";
import { DOCUMENT_TABLES, PostgresDocuments } from "./postgres-documents.ts";

/**
 * Coordination in a PostgreSQL database, for sites without etcd: a row for the record and a row for the fence.
 *
 * Two rows, because a guarded write holds the fence's row shared until it is committed; in one row with the record it
 * would keep renewals waiting and lose the lease by itself. A takeover waits for guarded writes that have begun, and those
 * that begin after it find another token.
 *
 * No session locks and no times in rows: it works through a pooler, and no clock of another machine matters. Every
 * statement is one transaction. Where replicas take over, the commit must be synchronous to the one that will.
 */
export interface PostgresCoordinationOptions {
  readonly connection: pg.PoolConfig;
  readonly callMs: number;
  /** How often to look for changes. */
  readonly watchMs: number;
  readonly clock: Clock;
  /** What all names and keys of the cluster begin with, and those of no other. */
  readonly prefix?: string;
}

const TABLES = `
create table if not exists cluster_lease (
  name text primary key, node text, instance text not null, token bigint not null, write bigint not null,
  next text, revision bigint not null);
create table if not exists cluster_fence (name text primary key, token bigint not null);
create table if not exists cluster_value (
  name text not null, key text not null, value text not null, token bigint not null, primary key (name, key));`;

const READ = `select node, instance, token, write, next, revision from cluster_lease where name = $1`;

const FIRST = `
with lease as (
  insert into cluster_lease (name, node, instance, token, write, next, revision) values ($1, $2, $3, $4, $5, $6, 1)
  on conflict do nothing returning revision),
fence as (
  insert into cluster_fence (name, token) select $1, case when $7 then $4 else 0 end from lease
  on conflict (name) do update set token = greatest(cluster_fence.token, excluded.token))
select revision from lease`;

const SWAP = `
update cluster_lease set node = $2, instance = $3, token = $4, write = $5, next = $6, revision = revision + 1
where name = $1 and revision = $7 returning revision`;

const TAKE = `
with lease as (${SWAP}),
fence as (update cluster_fence set token = $4 from lease where name = $1)
select revision from lease`;

const WRITE = `
with fence as (select token from cluster_fence where name = $1 and token = $2 for share),
gone as (delete from cluster_value using fence where name = $1 and key = any ($5::text[])),
written as (
  insert into cluster_value (name, key, value, token)
  select $1, each.key, each.value, fence.token from fence, unnest($3::text[], $4::text[]) as each (key, value)
  on conflict (name, key) do update set value = excluded.value, token = excluded.token)
select count(*)::int as fences from fence`;

/** The tables are made when they are missing; the role must be allowed to. */
export async function openPostgres(options: PostgresCoordinationOptions): Promise<Coordination> {
  const coordination = new PostgresCoordination(options);
  try {
    await coordination.prepare();
    return coordination;
  } catch (error) {
    await coordination.close();
    throw error;
  }
}

interface LeaseRow {
  readonly node: string | null;
  readonly instance: string;
  readonly token: string;
  readonly write: string;
  readonly next: string | null;
  readonly revision: string;
}

class PostgresCoordination implements Coordination {
  readonly #pool: pg.Pool;
  readonly #clock: Clock;
  readonly #watchMs: number;
  readonly #prefix: string;
  readonly #closing = new AbortController();
  readonly documents: Documents;

  constructor({ connection, callMs, watchMs, clock, prefix = "" }: PostgresCoordinationOptions) {
    this.#clock = clock;
    this.#prefix = prefix;
    this.#watchMs = watchMs;
    this.#pool = new pg.Pool({
      max: 8,
      ...connection,
      connectionTimeoutMillis: callMs,
      query_timeout: callMs,
      statement_timeout: callMs,
      idle_in_transaction_session_timeout: callMs,
      // An owner that was told is an owner after a crash of the database, whatever its settings say.
      options: `${connection.options ?? ""} -c synchronous_commit=on`,
    });
    // A connection that breaks while nobody uses it is replaced by the next call.
    this.#pool.on("error", () => {});
    this.documents = new PostgresDocuments({
      query: (text, values) => this.#query(text, values),
      clock,
      prefix,
      watchMs,
      closing: this.#closing.signal,
    });
  }

  async prepare(): Promise<void> {
    const present = await this.#query(
      "select to_regclass('cluster_document_counter') is not null as there",
      [],
    );
    if (present.rows[0]?.there !== true)
      await this.#query(`begin; select pg_advisory_xact_lock(7261094); ${TABLES} ${DOCUMENT_TABLES} commit`);
  }

  async read(name: string): Promise<Observation> {
    const { rows } = await this.#query(READ, [this.#prefix + name]);
    const row = rows[0] as LeaseRow | undefined;
    if (row === undefined) return { record: null, revision: 0 };
    const { node, instance, next } = row;
    return {
      record: { node, instance, token: Number(row.token), write: Number(row.write), next },
      revision: Number(row.revision),
    };
  }

  async swap(name: string, { expected, record, takes }: RecordSwap): Promise<SwapAnswer> {
    const { node, instance, token, write, next } = record;
    const written = [this.#prefix + name, node, instance, token, write, next];
    const { rows } =
      expected === 0
        ? await this.#query(FIRST, [...written, takes])
        : await this.#query(takes ? TAKE : SWAP, [...written, expected]);
    const row = rows[0] as LeaseRow | undefined;
    if (row !== undefined) return { swapped: true, revision: Number(row.revision) };
    return { swapped: false, observation: await this.read(name) };
  }

  async watch(name: string, tell: (observation: Observation) => void, signal: AbortSignal): Promise<void> {
    const ending = AbortSignal.any([signal, this.#closing.signal]);
    let told = 0;
    while (!ending.aborted) {
      try {
        const observation = await this.read(name);
        if (observation.revision > told && !ending.aborted) {
          told = observation.revision;
          tell(observation);
        }
      } catch (error) {
        if (!(error instanceof LockstepError)) throw error;
      }
      await this.#clock.sleep(this.#watchMs, ending);
    }
  }

  async writeGuarded(
    name: string,
    token: number,
    values: ReadonlyMap<string, string | null>,
  ): Promise<boolean> {
    const set = [...values].filter((entry): entry is [string, string] => entry[1] !== null);
    const gone = [...values].filter(([, value]) => value === null).map(([key]) => key);
    const { rows } = await this.#query(WRITE, [
      this.#prefix + name,
      token,
      set.map(([key]) => key),
      set.map(([, value]) => value),
      gone,
    ]);
    return rows[0]?.fences === 1;
  }

  async readValues(name: string, prefix = ""): Promise<ReadonlyMap<string, string>> {
    const { rows } = await this.#query(
      "select key, value from cluster_value where name = $1 and starts_with(key, $2)",
      [this.#prefix + name, prefix],
    );
    return new Map(rows.map(({ key, value }) => [String(key), String(value)]));
  }

  async readValueKeys(name: string, prefix: string): Promise<readonly string[]> {
    const { rows } = await this.#query(
      "select key from cluster_value where name = $1 and starts_with(key, $2)",
      [this.#prefix + name, prefix],
    );
    return rows.map(({ key }) => String(key));
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    await this.#pool.end();
  }

  async #query(text: string, values?: unknown[]): Promise<pg.QueryResult<Record<string, unknown>>> {
    try {
      return await this.#pool.query<Record<string, unknown>>(text, values);
    } catch (cause) {
      throw new LockstepError("COORDINATION_UNREACHABLE", "the coordination database does not answer", {
        found: cause instanceof Error ? cause.message : String(cause),
        hint: "Look whether the database runs and is reached from this node.",
        cause,
      });
    }
  }
}

import {
  changesRepository,
  isSha256,
  type LoadPlan,
  type LoadRefusal,
  planLoad,
  type RepositoryState,
  type Sha256,
} from "@lockstep/core";
import { type LoadComparison, type LoadRequest, type LoadResult, LockstepError } from "@lockstep/protocol";
import type pg from "pg";
import { sqlState, withTransaction } from "../db/connect.ts";
import { type ContentRow, findContents, insertContents } from "./content-write.ts";
import { interrupted, readEvents, type StreamLimits, takeContents } from "./load-stream.ts";
import { lockRepository } from "./lock.ts";
import { readSemaphore, readState } from "./state.ts";
import { putFiles, removeFiles, writeLayout, writeModule } from "./write-plan.ts";

/**
 * The Software Loader's other half (S18): compares a load with the repository, and carries it out.
 *
 * A load is one transaction from its first byte to its last. Its contents stream into the database while they are
 * verified, beside other loads; then, under the repository lock, everything is decided on what is there now, and the
 * rows change. A cut connection, a wrong digest or a hub that dies leaves nothing behind, because nothing was ever
 * committed.
 *
 * Of a content that two loads send at the same time, the one that ends later drops what it has taken in.
 */
export type LoadLimits = StreamLimits;

export const DEFAULT_LOAD_LIMITS: LoadLimits = {
  contentBytesMax: 64 * 2 ** 30,
  // Some 300,000 files. What the hub makes of a document is several times as large.
  documentBytesMax: 64 * 2 ** 20,
  // A loader that packs long runs of equal bytes sends little.
  rate: { windowMs: 120_000, bytesMin: 16 * 1024 },
};

/** Says how a load stands to the repository and what it would do. Changes nothing. */
export async function compareLoad(pool: pg.Pool, request: LoadRequest): Promise<LoadComparison> {
  return await withTransaction(
    pool,
    async ({ client }) => {
      const { plan, missing } = await decide(client, request, false);
      return {
        statuses: [...plan.statuses],
        attributeChanges: plan.attributeChanges,
        removed: [...plan.removals],
        missing: [...missing.keys()],
        undistributed: plan.undistributed,
        refusals: plan.refusals.map(({ where, problem }) => ({ where, problem })),
        notices: [...plan.notices],
        currentVersion: plan.currentVersion,
      };
    },
    { isolation: "repeatable read", readOnly: true },
  );
}

export interface LoadOptions {
  readonly limits?: LoadLimits;
  /** Who loads, for the history. */
  readonly actor?: string | null;
  /** Lockstep's own set-up: may load the module LOCKSTEP. */
  readonly own?: boolean;
  /** Turns the first document of the stream into a request, or throws REQUEST_INVALID. */
  readonly parse: (document: unknown) => LoadRequest;
  readonly signal?: AbortSignal;
}

/**
 * Carries out a load from a content stream: the document, then the contents that the repository lacks. Returns when
 * everything is committed. Throws LOAD_REFUSED, PATH_REFUSED, MODULE_REQUIREMENT_UNMET, LOAD_EMPTY, LOAD_CONFLICT (what
 * was compared has changed since: compare and load again), LOAD_CONTENT_MISMATCH, LOAD_INTERRUPTED, CONTENT_TOO_LARGE,
 * REQUEST_INVALID, HUB_BUSY. Whatever it throws, nothing was changed.
 */
export async function carryOutLoad(
  pool: pg.Pool,
  body: AsyncIterable<Uint8Array>,
  options: LoadOptions,
): Promise<LoadResult> {
  const limits = options.limits ?? DEFAULT_LOAD_LIMITS;
  const events = readEvents(body, limits, options.signal);
  try {
    const first = await events.next();
    if (first.done === true || first.value.kind !== "document")
      throw new LockstepError("REQUEST_INVALID", "a load begins with its document", {
        expected: "a document",
        found: first.done === true ? "nothing" : first.value.kind,
      });
    const request = options.parse(first.value.value);
    return await withTransaction(pool, async ({ client }) => {
      const own = options.own ?? false;
      const before = await decide(client, request, own);
      refuse(before.plan.refusals);
      const offered = new Set(request.files.map((file) => file.sha256));
      const contents = await takeContents(client, events, before.missing, offered);
      // Only now: whoever uploads for an hour keeps nobody from loading. What was decided before may no longer be so.
      await lockRepository(client);
      const { plan, missing, state } = await decide(client, request, own);
      refuse(plan.refusals);
      demandAll(missing, contents);
      const stored = await insertContents(client, contents);
      return await writeLoad(client, request, plan, state, stored, options);
    });
  } catch (error) {
    throw toLoadError(error);
  } finally {
    await events.return(undefined);
  }
}

/** Throws what stands against a load, by the code that fits all of it. */
export function refuse(refusals: readonly LoadRefusal[]): void {
  const first = refusals[0];
  if (first === undefined) return;
  const only = (kind: LoadRefusal["kind"]) => refusals.every((refusal) => refusal.kind === kind);
  const code = only("path")
    ? "PATH_REFUSED"
    : only("requirement")
      ? "MODULE_REQUIREMENT_UNMET"
      : "LOAD_REFUSED";
  const rest = refusals.length === 1 ? "" : `, and ${refusals.length - 1} more`;
  throw new LockstepError(code, `the load is refused: ${first.where}: ${first.problem}${rest}`, {
    hint: "Nothing was loaded. Correct what is named, then load again.",
    faults: refusals.map(({ where, problem }) => ({ where, problem })),
  });
}

interface Decision {
  readonly plan: LoadPlan;
  readonly state: RepositoryState;
  /** Contents that must travel, with their sizes. */
  readonly missing: ReadonlyMap<Sha256, number>;
}

async function decide(client: pg.PoolClient, request: LoadRequest, own: boolean): Promise<Decision> {
  if (request.files.length === 0)
    throw new LockstepError("LOAD_EMPTY", "there is no file in this load", {
      expected: "at least one file",
      found: 0,
      hint: "Check the directory. To remove files, name them to `lockstep files remove`.",
    });
  const state = await readState(client);
  const plan = planLoad(request, state, { own });
  const needed = new Map<Sha256, number>();
  for (const { file, content } of plan.puts)
    if (content && isSha256(file.sha256)) needed.set(file.sha256, file.size);
  const present = await findContents(client, [...needed.keys()]);
  const wrong: LoadRefusal[] = [];
  for (const [sha256, size] of present) {
    if (needed.get(sha256) !== size)
      wrong.push({
        kind: "load",
        where: sha256,
        problem: `the content has ${size} bytes, not ${needed.get(sha256)}`,
      });
    needed.delete(sha256);
  }
  return { plan: { ...plan, refusals: [...plan.refusals, ...wrong] }, state, missing: needed };
}

async function writeLoad(
  client: pg.PoolClient,
  request: LoadRequest,
  plan: LoadPlan,
  state: RepositoryState,
  contents: readonly ContentRow[],
  options: LoadOptions,
): Promise<LoadResult> {
  const revisionBefore = await readSemaphore(client);
  const changes = changesRepository(plan);
  const result = {
    module: plan.module,
    ...plan.counts,
    contents: contents.length,
    contentBytes: contents.reduce((sum, content) => sum + content.size, 0),
    storedBytes: contents.reduce((sum, content) => sum + content.stored, 0),
    revisionBefore,
    changes,
  };
  if (!changes && plan.moduleChange === null) return { load: 0, ...result };
  if (plan.moduleChange !== null) await writeModule(client, plan.moduleChange);
  const load = await insertLoad(client, {
    module: plan.module,
    version: request.module.version,
    kind: request.kind,
    note: request.note,
    actor: options.actor ?? null,
    counts: plan.counts,
    // Nothing to recalculate: it belongs to the revision that stands.
    revision: changes ? null : revisionBefore,
  });
  // Before the files: these refer to targets that may come with this load.
  await writeLayout(client, plan.layout);
  await removeFiles(client, plan.removals);
  const writes = plan.puts.map(({ file, isNew, targets }) => ({
    path: file.path,
    module: state.files.get(file.path)?.module ?? plan.module,
    size: file.size,
    sha256: file.sha256,
    mode: file.mode,
    version: file.version,
    backup: file.backup,
    targets,
    isNew,
  }));
  await putFiles(client, writes, load);
  return { load, ...result };
}

/** Writes one line of the history. Returns its number. */
export async function insertLoad(
  client: pg.PoolClient,
  row: {
    readonly module: string;
    readonly version: string;
    readonly kind: LoadRequest["kind"] | "revert";
    readonly note: string | null;
    readonly actor: string | null;
    readonly counts: Readonly<Record<string, number>>;
    readonly revision: number | null;
  },
): Promise<number> {
  const { rows } = await client.query<{ id: number }>(
    `insert into release_load (module_id, version, kind, note, actor, counts, revision)
     values ($1, $2, $3, $4, $5, $6, $7) returning id`,
    [row.module, row.version, row.kind, row.note, row.actor, JSON.stringify(row.counts), row.revision],
  );
  const id = rows[0]?.id;
  if (id === undefined) throw new RangeError("no number for the load");
  return id;
}

const CUT = new Set(["ECONNRESET", "EPIPE", "ERR_STREAM_PREMATURE_CLOSE", "ERR_STREAM_DESTROYED"]);

/** Throws LOAD_CONFLICT when contents are needed that did not come along. */
function demandAll(missing: ReadonlyMap<Sha256, number>, contents: readonly ContentRow[]): void {
  const taken = new Set(contents.map((content) => content.sha256));
  const lacking = [...missing.keys()].filter((sha256) => !taken.has(sha256));
  if (lacking.length === 0) return;
  throw new LockstepError("LOAD_CONFLICT", "contents that this load needs are no longer in the repository", {
    expected: missing.size,
    found: taken.size,
    hint: "Nothing was loaded. Load again: it compares anew and sends what is missing.",
    faults: lacking.slice(0, 100).map((where) => ({ where, problem: "it did not come along" })),
  });
}

/** Gives errors of the connection and of competing writers their names. */
function toLoadError(error: unknown): unknown {
  if (error instanceof LockstepError || !(error instanceof Error)) return error;
  const state = sqlState(error);
  // Somebody else wrote the same rows by plain SQL: the decision was made on what is no longer so.
  if (state === "23505" || state === "23503" || state === "40001" || state === "40P01")
    return new LockstepError("LOAD_CONFLICT", "the repository changed while the load was carried out", {
      found: error.message,
      hint: "Nothing was loaded. Load again.",
      cause: error,
    });
  const code = "code" in error ? String(error.code) : "";
  if (CUT.has(code) || error.message === "aborted") return interrupted(error.message, error);
  return error;
}

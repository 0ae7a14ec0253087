import { createHash } from "node:crypto";
import {
  APPLY_LAYOUT,
  type CommitBody,
  decideRecovery,
  parseCommitHead,
  STAGING_NAMES,
} from "@lockstep/core";
import { LockstepError } from "@lockstep/protocol/wire";
import { commitStaged } from "./commit.ts";
import { attempt, installationError } from "./failure.ts";
import { Places } from "./places.ts";
import { readRevisionFile } from "./revision-file.ts";
import { keepSecondName } from "./second-name.ts";
import { beginStaging, clearAway } from "./staging.ts";
import type { ApplyContext, ApplyHooks, CommitResult, IndexBuilder, Operation, Staging } from "./types.ts";

export interface RollbackRequest {
  /** When this rollback began, milliseconds since 1970. */
  readonly startedAt: number;
  readonly index?: Uint8Array | IndexBuilder;
  readonly hooks?: ApplyHooks;
}

export type RollbackResult = CommitResult & { readonly from: number; readonly to: number };

const utf8 = new TextDecoder();

/**
 * Puts back what stood before the last update, by the same record and with the same promise: wholly, or not at all. It
 * becomes the last update itself, so a second rollback undoes the first. Files that others changed since are replaced
 * as well, and kept like any replaced file.
 *
 * Throws ROLLBACK_UNAVAILABLE when nothing is kept, when what is kept is not whole, or when there was no installation
 * before; else as `commit`. The caller holds update.lock and has called `recover`.
 */
export async function rollbackPrevious(ctx: ApplyContext, request: RollbackRequest): Promise<RollbackResult> {
  const places = new Places(ctx.disk, ctx.root);
  const { body, state } = attempt("read what is kept in", ctx.root, () => ({
    body: readPrevious(ctx, places),
    state: readFormerState(ctx, places),
  }));
  // What changed files last made previous/, so it is what to go back from; later revisions may have changed none here.
  const { from } = body;
  const to = readRevisionFile(ctx)?.revision ?? body.to;
  if (from === null || state === null)
    throw unavailable("before the last update there was no installation", {});

  const staging = await beginStaging(ctx);
  let operations: Operation[];
  try {
    operations = stageFormerFiles(ctx, places, body, staging);
  } catch (error) {
    clearAway(ctx, staging.directory);
    throw error;
  }
  const result = await commitStaged(ctx, {
    staging,
    operations,
    state,
    from: to,
    to: from,
    startedAt: request.startedAt,
    restoring: true,
    ...(request.index === undefined ? {} : { index: request.index }),
    ...(request.hooks === undefined ? {} : { hooks: request.hooks }),
  });
  return { ...result, from: to, to: from };
}

/**
 * Makes a rollback lead nowhere, durably: before a change that leaves the software revision as it is and is no repair.
 * Such a change keeps no former files of its own, and those that are kept would not fit to what stands here after it.
 */
export async function forgetPrevious({ disk, root }: ApplyContext): Promise<void> {
  const places = new Places(disk, root);
  const record = places.at(`${APPLY_LAYOUT.previous}/${STAGING_NAMES.retiredHead}`);
  try {
    if (disk.lstat(record) === null) return;
    disk.unlink(record);
    await disk.syncDirectories([places.at(APPLY_LAYOUT.previous)]);
  } catch (error) {
    throw installationError(error, "forget", record);
  }
}

/** Whether a rollback has something to go back to, and to which software revision; null when not. */
export function previousRevision(ctx: ApplyContext): number | null {
  try {
    return readPrevious(ctx, new Places(ctx.disk, ctx.root)).from;
  } catch {
    return null;
  }
}

function readPrevious(ctx: ApplyContext, places: Places): CommitBody {
  const read = (name: string): Uint8Array | null => {
    const path = places.at(`${APPLY_LAYOUT.previous}/${name}`);
    return ctx.disk.lstat(path)?.kind === "file" ? ctx.disk.readFile(path) : null;
  };
  const headBytes = read(STAGING_NAMES.retiredHead);
  const bytes = read(STAGING_NAMES.body);
  if (headBytes === null || bytes === null) throw unavailable("no replaced files are kept", {});
  const head = parseCommitHead(utf8.decode(headBytes));
  if (head === null) throw unavailable("the record of the last update is damaged", {});
  const previous = { text: utf8.decode(bytes), sha256: createHash("sha256").update(bytes).digest("hex") };
  const decision = decideRecovery({ head, staged: null, previous });
  if (decision.kind !== "drop") throw unavailable("the record of the last update is damaged", {});
  return decision.body;
}

function readFormerState(ctx: ApplyContext, places: Places): Uint8Array | null {
  const path = places.at(`${APPLY_LAYOUT.previous}/${STAGING_NAMES.formerState}`);
  return ctx.disk.lstat(path)?.kind === "file" ? ctx.disk.readFile(path) : null;
}

/** The former files as new ones, under second names: previous/ stays whole until the rollback holds. */
function stageFormerFiles(
  ctx: ApplyContext,
  places: Places,
  body: CommitBody,
  staging: Staging,
): Operation[] {
  const operations: Operation[] = [];
  const kept = places.at(`${APPLY_LAYOUT.previous}/${STAGING_NAMES.old}`);
  let n = 0;
  for (const entry of body.entries) {
    const path = entry.formerPath ?? entry.path;
    if (entry.kind === "put" && (entry.former === "none" || path !== entry.path))
      operations.push({ n: n++, kind: "remove", path: entry.path });
    if (entry.former === "none") continue;
    const mode = stageOne(ctx, `${kept}/${entry.n}`, staging.pathFor(n));
    operations.push({ n: n++, kind: "put", path, mode });
  }
  return operations;
}

function stageOne(ctx: ApplyContext, from: string, to: string): number {
  const { disk } = ctx;
  try {
    const stat = disk.lstat(from);
    if (stat === null || (stat.kind !== "file" && stat.kind !== "link"))
      throw unavailable("a replaced file is missing", { found: from });
    keepSecondName(disk, from, to, stat);
    return stat.mode;
  } catch (error) {
    throw installationError(error, "restore", from);
  }
}

function unavailable(
  problem: string,
  values: { expected?: string | number; found?: string | number },
): LockstepError {
  return new LockstepError("ROLLBACK_UNAVAILABLE", `there is nothing to go back to: ${problem}`, {
    ...values,
    hint: 'Nothing was changed. To reach another software revision, revert it on the hub ("lockstep revision revert").',
  });
}

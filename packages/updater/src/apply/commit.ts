import { APPLY_LAYOUT, type CommitBody, stagingDirectory, turnSteps } from "@lockstep/core";
import { Carrier } from "./carry-out.ts";
import { goBack, goFinish, goForward, stageIndex } from "./directions.ts";
import { attempt, attemptLong } from "./failure.ts";
import { type LayOutRequest, layOut } from "./lay-out.ts";
import { clearAway, isOwnStaging } from "./staging.ts";
import type { ApplyContext, CommitRequest, CommitResult } from "./types.ts";

/**
 * Makes a staged update happen: wholly, or not at all, whatever fails or crashes on the way.
 *
 * Before the record is in force, a failure throws INSTALLATION_*, PATH_REFUSED or what `stop` threw; nothing of the
 * installation has changed and the staging is gone. After it, a failure or a no of `afterSwitch` takes everything back
 * durably and is told by the result. Only where the way back or the end fails as well does it throw: the record stays,
 * and `recover` goes on from there. The caller holds update.lock, and has called `recover` and `beginStaging`.
 */
export function commit(ctx: ApplyContext, request: CommitRequest): Promise<CommitResult> {
  return commitStaged(ctx, request);
}

/** `commit`, also for what only a rollback may put. */
export async function commitStaged(ctx: ApplyContext, request: LayOutRequest): Promise<CommitResult> {
  if (!isOwnStaging(ctx, request.staging))
    throw new Error(`not a staging of ${ctx.root}: ${request.staging.directory}`);
  const carrier = new Carrier(ctx);
  const body = await makeReady(ctx, request);
  const doubt = await enforce(ctx, carrier, body);
  if (doubt !== null) return goBack(ctx, carrier, body, { stage: "switch", error: doubt });
  const outcome = await goForward(ctx, carrier, body, request.hooks ?? {});
  if (outcome.kind === "refused") return goBack(ctx, carrier, body, outcome.refusal);
  await stageIndex(ctx, body, request.index);
  await goFinish(ctx, carrier, body);
  return {
    kind: "applied",
    switchMs: outcome.switchMs,
    put: body.entries.filter(({ kind }) => kind === "put").length,
    removed: body.entries.filter(({ kind, formerPath }) => kind === "remove" || formerPath !== null).length,
  };
}

/** Everything that can be done beforehand. Throws; the staging is gone then, and its space given back. */
async function makeReady(ctx: ApplyContext, request: LayOutRequest): Promise<CommitBody> {
  try {
    const body = await attemptLong("prepare the update in", ctx.root, () => layOut(ctx, request));
    await request.hooks?.stop?.();
    return body;
  } catch (error) {
    clearAway(ctx, request.staging.directory);
    throw error;
  }
}

/**
 * The atomic point: the head comes into force. Returns null, or the error after which it may or may not last, so that
 * the update must be taken back like any other. Throws when it certainly did not come into force.
 */
async function enforce(ctx: ApplyContext, carrier: Carrier, body: CommitBody): Promise<unknown> {
  try {
    await carrier.carryOut(turnSteps(body.id, "forward"));
    return null;
  } catch (error) {
    const head = `${ctx.root}/${APPLY_LAYOUT.head}`;
    if (attempt("look at", head, () => ctx.disk.lstat(head)) !== null) return error;
    clearAway(ctx, `${ctx.root}/${stagingDirectory(body.id)}`);
    throw error;
  }
}

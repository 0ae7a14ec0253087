import { createHash } from "node:crypto";
import {
  APPLY_LAYOUT,
  type CommitHead,
  decideRecovery,
  dropSteps,
  type FoundBody,
  parseCommitHead,
  STAGING_NAMES,
  stagingDirectory,
  turnSteps,
} from "@lockstep/core";
import { LockstepError } from "@lockstep/protocol/wire";
import { Carrier } from "./carry-out.ts";
import { goBack, goFinish, goForward, stageIndex } from "./directions.ts";
import { attemptLong, wayOut } from "./failure.ts";
import { clearAway } from "./staging.ts";
import type { ApplyContext, Interrupted, RecoverHooks, RecoverResult } from "./types.ts";

const HEAD_BYTES_MAX = 4096;
const utf8 = new TextDecoder();

/**
 * Finishes what an interrupted update left: whoever comes next to an installation (updater, launcher, agent, rollback,
 * verify) calls this first, holding update.lock. One look at one path when there is nothing to do.
 *
 * An update whose record is in force is carried out, asked after and ended, or taken back; so also when it cannot be
 * carried out any more. Throws INSTALLATION_DAMAGED, with nothing touched, when the record cannot be trusted, and
 * INSTALLATION_* when even the way back fails; then it can be called again.
 */
export function recover(ctx: ApplyContext, hooks: RecoverHooks = {}): Promise<RecoverResult> {
  return attemptLong("recover", ctx.root, () => recoverFound(ctx, hooks));
}

async function recoverFound(ctx: ApplyContext, hooks: RecoverHooks): Promise<RecoverResult> {
  const absolute = `${ctx.root}/${APPLY_LAYOUT.head}`;
  if (ctx.disk.lstat(absolute) === null) return { kind: "nothing" };
  const carrier = new Carrier(ctx);
  const head = readHead(ctx, carrier);
  const decision = decideRecovery({
    head,
    staged: readBody(ctx, carrier, `${stagingDirectory(head.id)}/${STAGING_NAMES.body}`),
    previous: readBody(ctx, carrier, `${APPLY_LAYOUT.previous}/${STAGING_NAMES.body}`),
  });
  if (decision.kind === "damaged") throw damaged(ctx, decision.problem);
  const { body } = decision;
  const interrupted: Interrupted = { from: body.from, to: body.to, startedAt: body.startedAt };
  if (decision.kind === "drop") {
    await carrier.carryOut(dropSteps());
    clearAway(ctx, `${ctx.root}/${stagingDirectory(body.id)}.former`);
    return { kind: "finished", ...interrupted };
  }
  if (decision.direction === "back") {
    const rolledBack = await goBack(ctx, carrier, body, { stage: "after-switch", error: null });
    return {
      ...rolledBack,
      reason: "the update was being taken back when it was interrupted",
      ...interrupted,
    };
  }
  if (decision.direction === "forward") {
    // A head that can be seen need not be durable: an updater may have been killed between its rename and the sync.
    await carrier.carryOut(turnSteps(body.id, "forward"));
    const outcome = await goForward(ctx, carrier, body, hooks);
    if (outcome.kind === "refused")
      return { ...(await goBack(ctx, carrier, body, outcome.refusal)), ...interrupted };
    await stageIndex(ctx, body, hooks.index);
  }
  await goFinish(ctx, carrier, body);
  return { kind: "finished", ...interrupted };
}

function readHead(ctx: ApplyContext, carrier: Carrier): CommitHead {
  const path = carrier.places.at(APPLY_LAYOUT.head);
  const stat = ctx.disk.lstat(path);
  if (stat?.kind !== "file" || stat.size > HEAD_BYTES_MAX)
    throw damaged(ctx, "its commit record is not a file of ours");
  const head = parseCommitHead(utf8.decode(ctx.disk.readFile(path)));
  if (head === null) throw damaged(ctx, "its commit record is torn or was changed");
  return head;
}

function readBody(ctx: ApplyContext, carrier: Carrier, place: string): FoundBody | null {
  const path = carrier.places.at(place);
  if (ctx.disk.lstat(path)?.kind !== "file") return null;
  const bytes = ctx.disk.readFile(path);
  return { text: utf8.decode(bytes), sha256: createHash("sha256").update(bytes).digest("hex") };
}

function damaged(ctx: ApplyContext, problem: string): LockstepError {
  return new LockstepError(
    "INSTALLATION_DAMAGED",
    `the installation ${ctx.root} cannot be recovered: ${problem}`,
    {
      hint: `Nothing was touched. ${wayOut(ctx.root)}`,
    },
  );
}

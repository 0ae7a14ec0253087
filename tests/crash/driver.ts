import { readFileSync } from "node:fs";
import { realDisk, silentLogger, systemClock } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol";
import {
  type ApplyContext,
  beginStaging,
  commit,
  discardStaging,
  installationError,
  type Operation,
  recover,
  rollbackPrevious,
} from "../../packages/updater/src/apply/index.ts";
import type { CrashScenario } from "./scenarios.ts";

/**
 * One act on a real directory, as a program of its own that can be killed: `driver ROOT SCENARIO.json ACT`, where the
 * act is `update`, `rollback`, `recover` or, as a control that must be found out, `in-place`. Prints what became of it as one line of JSON, also for a named error; an
 * error that is not ours ends it with status 70.
 */
const [, , root = "", scenarioFile = "", act = ""] = process.argv;
const ctx: ApplyContext = { disk: realDisk, root, clock: systemClock, log: silentLogger };
const scenario = JSON.parse(readFileSync(scenarioFile, "utf8")) as CrashScenario;
const afterSwitch = () => scenario.verdict;

// What counts begins here: the sweep finds this call in the trace.
realDisk.lstat("/lockstep-crash-begin");
try {
  const result = await carryOut();
  process.stdout.write(`${JSON.stringify(result)}\n`);
} catch (error) {
  if (!isLockstepError(error)) {
    process.stderr.write(`${error instanceof Error ? error.stack : error}\n`);
    process.exitCode = 70;
  } else
    process.stdout.write(`${JSON.stringify({ kind: "error", code: error.code, message: error.message })}\n`);
}
realDisk.lstat("/lockstep-crash-end");

async function carryOut(): Promise<unknown> {
  if (act === "in-place") return updateInPlace();
  const recovered = await recover(ctx, { afterSwitch });
  if (act === "recover") return recovered;
  if (act === "rollback")
    return rollbackPrevious(ctx, { startedAt: scenario.startedAt, hooks: { afterSwitch } });
  return update();
}

async function update(): Promise<unknown> {
  const staging = await beginStaging(ctx);
  const operations: Operation[] = [];
  try {
    for (const [n, { path, content, mode }] of scenario.put.entries()) {
      ctx.disk.writeFile(staging.pathFor(n), new TextEncoder().encode(content), 0o600);
      operations.push({ n, kind: "put", path, mode });
    }
  } catch (error) {
    await discardStaging(ctx);
    throw installationError(error, "stage files in", root);
  }
  for (const path of scenario.remove) operations.push({ n: operations.length, kind: "remove", path });
  return commit(ctx, {
    staging,
    operations,
    state: new TextEncoder().encode(scenario.state),
    index: (stats) => new TextEncoder().encode(`index of ${stats.size} files.`),
    from: scenario.from,
    to: scenario.to,
    startedAt: scenario.startedAt,
    hooks: { afterSwitch },
  });
}

/** What everybody writes first: each file replaced by itself, without a record. */
function updateInPlace(): { kind: string } {
  const { disk } = ctx;
  const replace = (path: string, content: string, mode: number) => {
    disk.writeFile(`${root}/.new`, new TextEncoder().encode(content), mode);
    disk.rename(`${root}/.new`, `${root}/${path}`);
  };
  for (const { path, content, mode } of scenario.put) replace(path, content, mode);
  replace("InstallState.config", scenario.state, 0o644);
  const revision = `${scenario.to}\n${new Date(scenario.startedAt).toISOString()}\n`;
  replace(".softwarerevision.viv", revision, 0o444);
  return { kind: "applied" };
}

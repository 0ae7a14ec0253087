/** A worker process that runs one step, to be killed by tests. Its first argument is JSON: {step, directory}. */
import { type ChildProcess, spawn } from "node:child_process";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import type { ClaimedStep } from "@lockstep/protocol";
import { runStep } from "../../packages/service/src/components/run-step.ts";
import { StopOrder } from "../../packages/service/src/components/stop-order.ts";

const file = fileURLToPath(import.meta.url);

/** Starts one. Killed at the latest when the test ends. */
export function spawnLockstepWorker(t: TestContext, step: ClaimedStep, directory: string): ChildProcess {
  const child = spawn(process.execPath, [file, JSON.stringify({ step, directory })], { stdio: "inherit" });
  t.after(() => child.kill("SIGKILL"));
  return child;
}

if (process.argv[1] === file) {
  const { step, directory } = JSON.parse(process.argv[2] ?? "{}");
  const silent = () => {};
  await runStep(step, {
    service: { queue: "q", machine: "m", installation: null },
    hub: null,
    stop: new StopOrder(),
    log: { info: silent, warn: silent, error: silent },
    directory,
  });
}

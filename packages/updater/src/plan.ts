import type { EditsPolicy } from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import { connectHub } from "./hub-access.ts";
import { isUnfinished, locate, readInstalledRevision, readInstallHead } from "./installation.ts";
import { prepare } from "./preparation.ts";
import { recoverFirst } from "./recovery.ts";
import type { PlanDocument } from "./run-types.ts";
import type { SessionOptions } from "./session.ts";

export interface PlanOptions extends SessionOptions {
  readonly edits?: EditsPolicy | undefined;
}

/**
 * What an update would do now, and why, without doing it. Reads the local files that must be read, changes nothing.
 * Throws what an update throws before its plan; an interrupted update is finished first.
 */
export async function plan(directory: string, options: PlanOptions): Promise<PlanDocument> {
  const paths = locate(directory);
  if (isUnfinished(paths)) await recoverFirst(paths, { environment: options.access.environment });
  const head = readInstallHead(paths);
  const clock = options.clock ?? systemClock;
  const client = await connectHub(head.hub, options.access);
  try {
    const semaphore = await client.currentSemaphore({ signal: options.signal });
    const document = await client.revision(semaphore.revision, { signal: options.signal });
    const prepared = await prepare({
      client,
      paths,
      goal: { kind: "revision", document, initial: null, roles: null, packages: null },
      edits: options.edits ?? null,
      everything: false,
      now: clock.now,
      monotonic: clock.monotonic,
      progress: options.progress ?? (() => {}),
      signal: options.signal,
    });
    return {
      format: "lockstep-plan/1",
      directory: paths.root,
      from: readInstalledRevision(paths)?.revision ?? null,
      to: document.number,
      edits: prepared.edits,
      sums: prepared.plan.sums,
      operations: prepared.plan.operations,
      faults: prepared.plan.faults,
      notices: prepared.notices,
    };
  } finally {
    await client.close();
  }
}

import type { HubClient } from "@lockstep/client";
import type { EditsPolicy } from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import type { RevisionDocument } from "@lockstep/protocol/wire";
import { connectHub } from "./hub-access.ts";
import { isUnfinished, locate, readInstalledRevision, readInstallHead } from "./installation.ts";
import type { InstallationPaths } from "./layout.ts";
import { prepare } from "./preparation.ts";
import { recoverFirst } from "./recovery.ts";
import type { Choice, PlanDocument } from "./run-types.ts";
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
  const client = await connectHub(head.hub, options.access, paths);
  try {
    const installed = readInstalledRevision(paths)?.revision ?? null;
    const subject = { installation: head.id, installed };
    const semaphore = await client.currentSemaphore({ signal: options.signal });
    const { demandAnnounced, lookAtSigned, trustStore } = await import("./trust.ts");
    const clock = options.clock ?? systemClock;
    const allowed = await lookAtSigned(client, trustStore(paths), {
      clock,
      signal: options.signal,
      subject,
    });
    demandAnnounced(semaphore.revision, allowed);
    const plan = await planFor(client, paths, allowed.document, options);
    return { ...plan, notices: [...allowed.notices, ...plan.notices] };
  } finally {
    await client.close();
  }
}

/** The same to a given software revision and, where it is given, for another choice of machine roles and packages. */
export async function planFor(
  client: HubClient,
  paths: InstallationPaths,
  document: RevisionDocument,
  options: PlanOptions & Partial<Choice>,
): Promise<PlanDocument> {
  const clock = options.clock ?? systemClock;
  const { roles = null, packages = null } = options;
  const prepared = await prepare({
    client,
    paths,
    goal: { kind: "revision", document, initial: null, roles, packages },
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
}

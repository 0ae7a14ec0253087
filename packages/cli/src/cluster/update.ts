import { spawn } from "node:child_process";
import { once } from "node:events";
import { CLUSTER_UPDATE, type ClusterUpdate, findUnlikeSoftware, nextToUpdate } from "@lockstep/core";
import { printable, systemClock } from "@lockstep/platform";
import { isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import type { ClusterSession } from "../commands/cluster-session.ts";
import { drainOff, setPaused } from "./drain.ts";
import { BeatWatch, takeSnapshot } from "./look.ts";
import type { FollowArguments } from "./move.ts";
import type { ClusterSnapshot } from "./snapshot.ts";

export interface UpdateOptions extends FollowArguments {
  /** Run by a shell for each node, which it finds in LOCKSTEP_NODE and LOCKSTEP_NODE_ADDRESS. */
  readonly each: string;
  readonly restart?: boolean;
}

const UPDATE = { key: "update", kind: CLUSTER_UPDATE };
/** A node may restart for its update; it is waited for so long. */
const BACK_MS = 15 * 60_000;
const LOOK_MS = 500;
/** Reports tell what a node has up to five seconds late, those of two nodes at different moments. */
const REPORTED_MS = 10_000;

/**
 * `lockstep cluster update`: rolls an update through the cluster, node by node, those that own nothing first and each owner
 * last (behaviours 74 to 76). Of each node everything moves off in order, a command updates it, it must be back with the
 * software of those before it, and takes things again. The first failure stops everything: that node stays paused, the
 * others serve, and the same command goes on where it stopped. Before each node, and at the end, all that are updated must
 * be there and alike: one that has fallen out since, or was changed, would be missed when the next one is taken away.
 * Throws CLUSTER_UPDATE_STOPPED.
 */
export async function updateCluster(session: ClusterSession, options: UpdateOptions): Promise<void> {
  const { documents, output } = session;
  const { each: command, restart } = options;
  let snapshot = await takeSnapshot(session);
  let update = await begin(session, snapshot, command, restart === true);
  for (;;) {
    snapshot = await untilReported(session, snapshot, update.done);
    const nodes = snapshot.members.map(({ node }) => node);
    const owners = [...snapshot.leases.values()].map((record) => record?.node ?? null);
    const node = nextToUpdate(nodes, owners, update);
    demandAlike(snapshot, update.done, node);
    if (node === null) break;
    update = await note(session, { ...update, current: node });
    try {
      await updateNode(session, snapshot, node, update.done, options);
    } catch (error) {
      throw stopped(node, error);
    }
    update = await note(session, { ...update, done: [...update.done, node], current: null });
    output.note(`${printable(node)} is updated and takes virtual servers again`);
    snapshot = await takeSnapshot(session);
  }
  await documents.remove(UPDATE.key);
  output.document({ updated: update.done });
  output.line(`updated: ${printable(update.done.join(", "))}`);
}

/** A new update, or the one that stopped. Throws CLUSTER_UPDATE_STOPPED with everything that speaks against it. */
async function begin(
  { documents }: ClusterSession,
  { members, up }: ClusterSnapshot,
  command: string,
  isNew: boolean,
): Promise<ClusterUpdate> {
  const present = await documents.read(UPDATE);
  if (present !== null && present.command !== command && !isNew)
    throw refused([
      { where: "cluster", problem: `an update by another command is not done: ${present.command}` },
    ]);
  const faults = members
    .filter(({ node }) => node !== present?.current)
    .flatMap(({ node, isPaused }) => [
      ...(up.has(node) ? [] : [{ where: node, problem: "does not answer" }]),
      ...(isPaused ? [{ where: node, problem: "is paused by somebody else" }] : []),
    ]);
  if (faults.length > 0) throw refused(faults);
  const begun = { command, begunAt: systemClock.now(), done: [], current: present?.current ?? null };
  return (await documents.change(UPDATE, (now) => (now === null || isNew ? begun : now))) ?? begun;
}

const refused = (faults: readonly { readonly where: string; readonly problem: string }[]) =>
  new LockstepError("CLUSTER_UPDATE_STOPPED", "the update of the cluster is not begun", {
    faults,
    hint: "Mend what is listed; --restart forgets an update that was not done.",
  });

function stopped(node: string, error: unknown): unknown {
  if (!isLockstepError(error) || error.code === "INTERRUPTED") return error;
  return new LockstepError("CLUSTER_UPDATE_STOPPED", `the update stopped at ${node}: ${error.message}`, {
    ...(error.found === undefined ? {} : { found: error.found }),
    faults: error.faults,
    hint: `${node} stays paused, the others serve. Mend it and give the same command again; it goes on there.`,
    cause: error,
  });
}

/** The newest look: another one while what the updated nodes report differs, which may be only that some are late. */
async function untilReported(
  session: ClusterSession,
  first: ClusterSnapshot,
  done: readonly string[],
): Promise<ClusterSnapshot> {
  let snapshot = first;
  for (const until = systemClock.monotonic() + REPORTED_MS; ; snapshot = await takeSnapshot(session)) {
    const isAlike = findUnlikeSoftware(reportsOf(snapshot, membersOf(snapshot, done))).length === 0;
    if (isAlike || systemClock.monotonic() > until) return snapshot;
    await systemClock.sleep(LOOK_MS, session.signal);
    session.signal.throwIfAborted();
  }
}

/** All nodes that are updated, before `next` is taken away; null: all are done. Throws CLUSTER_UPDATE_STOPPED. */
function demandAlike(snapshot: ClusterSnapshot, done: readonly string[], next: string | null): void {
  const present = membersOf(snapshot, done);
  const absent = present.filter((node) => !snapshot.up.has(node));
  const faults = [
    ...absent.map((node) => ({ where: node, problem: "is updated, and does not answer any more" })),
    ...findUnlikeSoftware(reportsOf(snapshot, present)).map((problem) => ({
      where: "updated nodes",
      problem,
    })),
  ];
  if (faults.length === 0) return;
  const when = next === null ? "after the last node" : `before ${next}`;
  throw new LockstepError(
    "CLUSTER_UPDATE_STOPPED",
    `the update stopped ${when}: the updated nodes are not alike`,
    {
      faults,
      hint: "Nothing is paused by that. Mend what is listed and give the same command again; it goes on there.",
    },
  );
}

const membersOf = ({ members }: ClusterSnapshot, nodes: readonly string[]) =>
  nodes.filter((node) => members.some((member) => member.node === node));

const reportsOf = ({ up, reports }: ClusterSnapshot, nodes: readonly string[]) =>
  nodes.flatMap((node) => (up.has(node) ? (reports.get(node) ?? []) : []));

async function note({ documents }: ClusterSession, update: ClusterUpdate): Promise<ClusterUpdate> {
  return (await documents.change(UPDATE, () => update)) ?? update;
}

async function updateNode(
  session: ClusterSession,
  snapshot: ClusterSnapshot,
  node: string,
  done: readonly string[],
  options: UpdateOptions,
): Promise<void> {
  session.output.note(`${printable(node)} is next`);
  if (snapshot.up.has(node)) await drainOff(session, snapshot, node, done, options);
  const address = snapshot.members.find((each) => each.node === node)?.address ?? "";
  await run(session, options.each, { LOCKSTEP_NODE: node, LOCKSTEP_NODE_ADDRESS: address });
  await untilAlike(session, node, done);
  await setPaused(session, node, false);
}

async function run(
  { signal }: ClusterSession,
  command: string,
  variables: Readonly<Record<string, string>>,
): Promise<void> {
  const [status, by] = await runShell(command, variables, signal).catch((cause: unknown) => {
    signal.throwIfAborted();
    throw new LockstepError("CLUSTER_UPDATE_STOPPED", "its command cannot be started", {
      expected: "a shell that runs it",
      found: cause instanceof Error ? cause.message : String(cause),
      cause,
    });
  });
  if (status === 0) return;
  throw new LockstepError("CLUSTER_UPDATE_STOPPED", "its command failed", {
    expected: "status 0",
    found: status === null ? `ended by ${by ?? "a signal"}` : `status ${status}`,
  });
}

async function runShell(
  command: string,
  variables: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<[number | null, string | null]> {
  const child = spawn("/bin/sh", ["-c", command], {
    // What it says is for the person, standard output is for the result.
    stdio: ["ignore", 2, 2],
    env: { ...process.env, ...variables },
    signal,
  });
  return (await once(child, "exit")) as [number | null, string | null];
}

/** Until its daemon goes on, with the software that the nodes before it have. */
async function untilAlike(session: ClusterSession, node: string, done: readonly string[]): Promise<void> {
  const { signal } = session;
  const { cluster } = await takeSnapshot(session);
  const watch = new BeatWatch(cluster.lease.waitMs);
  for (const until = systemClock.monotonic() + BACK_MS; ; ) {
    const snapshot = await takeSnapshot(session, watch);
    const lacking = snapshot.up.has(node) ? findUnlike(snapshot, node, done) : "its daemon does not answer";
    if (lacking === null) return;
    if (systemClock.monotonic() > until)
      throw new LockstepError("CLUSTER_UPDATE_STOPPED", "it is not what the nodes before it are", {
        found: lacking,
      });
    await systemClock.sleep(LOOK_MS, signal);
    signal.throwIfAborted();
  }
}

/** Against the newest of those before it that answers; whether those are alike is asked beside it. */
function findUnlike(snapshot: ClusterSnapshot, node: string, done: readonly string[]): string | null {
  const model = reportsOf(snapshot, done).at(-1);
  const differences = findUnlikeSoftware([
    ...(model === undefined ? [] : [model]),
    ...reportsOf(snapshot, [node]),
  ]);
  return differences.length === 0 ? null : differences.join("; ");
}

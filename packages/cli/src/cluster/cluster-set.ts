import {
  type ClusterDefinition,
  findClusterFaults,
  findLeaseFaults,
  findLifetimeFaults,
  isProven,
  proveLease,
  type QuarantinePolicy,
} from "@lockstep/core";
import { printable, systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { ClusterSession, Examination } from "../commands/cluster-session.ts";
import { usage } from "../options.ts";
import { tellFinding } from "./findings-text.ts";
import { readVote, tellVotes } from "./found.ts";
import { LEASE_PROFILES, type LeaseProfile, readTimes } from "./lease-times.ts";
import { takeSnapshot } from "./look.ts";
import { printProof, proofFaults } from "./proof-text.ts";
import type { ClusterSnapshot } from "./snapshot.ts";

export interface SetOptions {
  readonly profile?: LeaseProfile;
  /** `TERM=VALUE` */
  readonly time?: readonly string[];
  readonly configPolicy?: "block" | "warn";
  /** `EXITS/MINUTES/OUT-MINUTES` */
  readonly quarantine?: string;
  /** `NAME[@NODE]`; all of them, in place of those that there are. */
  readonly vote?: readonly string[];
  readonly dryRun?: boolean;
}

/**
 * `lockstep cluster set`: changes what holds for the whole cluster while it runs. New times are proven first, also with
 * what the nodes were measured to need, and held against how long the store takes; nothing is written where they do not
 * hold. Throws LEASE_TIMES_UNSAFE, USAGE, CLUSTER_CHANGED.
 */
export async function setCluster(
  session: ClusterSession,
  examination: Examination,
  options: SetOptions,
): Promise<void> {
  const { api, documents, output } = session;
  const snapshot = await takeSnapshot(session);
  const next = changed(snapshot.cluster, options);
  if (JSON.stringify(next) === JSON.stringify(snapshot.cluster)) {
    output.document({ cluster: next, changed: false });
    output.line("the cluster is like that already");
    return;
  }
  const nodes = snapshot.members.map(({ node }) => node);
  const faults = findClusterFaults(next, nodes);
  if (faults.length > 0)
    throw usage(
      "these votes do not fit the cluster",
      undefined,
      faults.map(({ problem }) => problem).join("; "),
    );
  const isTimed = JSON.stringify(next.lease) !== JSON.stringify(snapshot.cluster.lease);
  if (isTimed) await proveTimes(session, examination, snapshot, next);
  if (options.dryRun === true) {
    output.document({ cluster: next, changed: false, dryRun: true });
    output.note("nothing was written");
    return;
  }
  await documents.change(api.CLUSTER, (present) => {
    if (JSON.stringify(present) === JSON.stringify(snapshot.cluster)) return next;
    throw new LockstepError("CLUSTER_CHANGED", "somebody else has changed the cluster in this moment", {
      hint: "Look at what is there now and repeat the change.",
    });
  });
  output.document({ cluster: next, changed: true });
  output.line(`cluster ${printable(next.name)} is changed`);
  if (options.vote !== undefined) tellVotes(session, next.votes, nodes);
  if (isTimed) tellWhen(session, snapshot);
}

function changed(cluster: ClusterDefinition, options: SetOptions): ClusterDefinition {
  const { profile, time, configPolicy, quarantine, vote } = options;
  if ([profile, time, configPolicy, quarantine, vote].every((each) => each === undefined))
    throw usage("nothing to set was given", "one of the options", undefined, "--help lists them.");
  return {
    ...cluster,
    lease: readTimes(profile === undefined ? cluster.lease : LEASE_PROFILES[profile], time ?? []),
    configPolicy: configPolicy ?? cluster.configPolicy,
    quarantine: quarantine === undefined ? cluster.quarantine : readQuarantine(quarantine),
    votes: vote === undefined ? cluster.votes : vote.map(readVote),
  };
}

const MINUTE_MS = 60_000;

function readQuarantine(text: string): QuarantinePolicy {
  const [, exits, period, out] = /^([1-9][0-9]?)\/([1-9][0-9]{0,4})\/([0-9]{1,5})$/.exec(text) ?? [];
  if (exits === undefined)
    throw usage("--quarantine takes exits, minutes, and minutes out", "3/60/120", text);
  return { exits: Number(exits), periodMs: Number(period) * MINUTE_MS, outMs: Number(out) * MINUTE_MS };
}

async function proveTimes(
  { coordination, config, output }: ClusterSession,
  examination: Examination,
  { reports, up, servers }: ClusterSnapshot,
  { lease }: ClusterDefinition,
): Promise<void> {
  const proof = proveLease(lease);
  printProof(output, proof);
  if (!isProven(proof))
    throw new LockstepError("LEASE_TIMES_UNSAFE", "these times do not exclude two owners at once", {
      faults: proofFaults(proof),
      hint: "Nothing was written.",
    });
  const measured = [...reports.values()].filter(({ node }) => up.has(node));
  const unsafe = findLeaseFaults(
    lease,
    measured.map(({ node, measured }) => ({ node, ...measured })),
  );
  if (unsafe.length > 0)
    throw new LockstepError("LEASE_TIMES_UNSAFE", "these times do not allow for what nodes need", {
      faults: unsafe.map(({ at, problem }) => ({ where: at, problem })),
      hint: "Nothing was written. Take the values that are named, or find out what makes these machines so slow.",
    });
  const lifetimes = servers
    .filter((server) => server.lease === null)
    .flatMap((server) => findLifetimeFaults(server, lease).map((fault) => ({ ...fault, name: server.name })));
  if (lifetimes.length > 0)
    throw new LockstepError("LEASE_TIMES_UNSAFE", "addresses would be gone before the lease has ended", {
      faults: lifetimes.map(({ name, at, problem }) => ({ where: `${name}: ${at}`, problem })),
      hint: "Nothing was written. First lockstep cluster virtual-server set NAME --set RESOURCE.lifetimeSeconds=….",
    });
  const commits = await examination.measureCommits(coordination.documents, config.name, systemClock);
  const findings = examination.judgeCommits(commits, lease);
  for (const finding of findings) tellFinding(output, finding);
  const slow = findings.find(({ state }) => state === "failed");
  if (slow !== undefined)
    throw new LockstepError("LEASE_TIMES_UNSAFE", `the store is too slow for these times: ${slow.detail}`, {
      ...(slow.hint === null ? {} : { hint: slow.hint }),
    });
}

function tellWhen({ output }: ClusterSession, { servers, leases }: ClusterSnapshot): void {
  const own = servers.filter(({ lease }) => lease !== null).map(({ name }) => name);
  const held = servers
    .filter(({ name, lease }) => lease === null && leases.get(name)?.node != null)
    .map(({ name }) => name);
  if (own.length > 0) output.note(`${printable(own.join(", "))} has times of its own, and keeps them`);
  if (held.length > 0)
    output.note(
      `${printable(held.join(", "))} trusts no longer and waits no shorter than before until it changes its owner (lockstep cluster move)`,
    );
}

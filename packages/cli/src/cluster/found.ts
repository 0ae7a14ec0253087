import {
  type ClusterDefinition,
  DEFAULT_QUARANTINE,
  isNodeName,
  isProven,
  judgeVotes,
  proveLease,
  type Vote,
} from "@lockstep/core";
import { printable, systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { ClusterSession, Examination } from "../commands/cluster-session.ts";
import { usage } from "../options.ts";
import { tellFinding } from "./findings-text.ts";
import { LEASE_PROFILES, type LeaseProfile, readTimes } from "./lease-times.ts";
import { printProof, proofFaults } from "./proof-text.ts";

interface InitOptions {
  readonly name?: string;
  readonly profile?: LeaseProfile;
  /** `TERM=VALUE` */
  readonly time?: readonly string[];
  /** `NAME[@NODE]` */
  readonly vote?: readonly string[];
  readonly configPolicy?: "block" | "warn";
  readonly dryRun?: boolean;
}

/** `lockstep cluster init`: founds a cluster in the store. Throws CLUSTER_EXISTS, LEASE_TIMES_UNSAFE. */
export async function foundCluster(
  session: ClusterSession,
  examination: Examination,
  options: InitOptions,
): Promise<void> {
  const { api, config, coordination, documents, output } = session;
  const name = options.name ?? nameOfPrefix(config.coordination.prefix ?? "");
  if (!isNodeName(name))
    throw usage("--name takes the name of the cluster", "letters, digits, dots and hyphens", name);
  const times = readTimes(LEASE_PROFILES[options.profile ?? "default"], options.time ?? []);
  if ((await documents.read(api.CLUSTER)) !== null) throw alreadyThere(config.coordination.prefix);
  const proof = proveLease(times);
  printProof(output, proof);
  if (!isProven(proof)) {
    const profile = options.profile ?? "default";
    throw new LockstepError("LEASE_TIMES_UNSAFE", "these times do not exclude two owners at once", {
      faults: proofFaults(proof),
      hint: `Nothing was written. Without --time the profile ${profile} holds as it is.`,
    });
  }
  const commits = await examination.measureCommits(coordination.documents, config.name, systemClock);
  const findings = examination.judgeCommits(commits, times);
  for (const finding of findings) tellFinding(output, finding);
  const slow = findings.find(({ state }) => state === "failed");
  if (slow !== undefined)
    throw new LockstepError("LEASE_TIMES_UNSAFE", `the store is too slow for these times: ${slow.detail}`, {
      ...(slow.hint === null ? {} : { hint: slow.hint }),
    });
  const votes = await findVotes(session, examination, options.vote);
  const definition: ClusterDefinition = {
    ...{ name, lease: times, votes, quarantine: DEFAULT_QUARANTINE },
    configPolicy: options.configPolicy ?? "block",
    keyDigest: null,
  };
  if (options.dryRun === true) {
    output.document({ cluster: definition, proof, commits, dryRun: true });
    output.note("nothing was written");
    return;
  }
  const made = await examination.makeClusterKey(config.keyFile);
  const key = made ?? (await examination.readClusterKey(config.keyFile));
  const whole = { ...definition, keyDigest: examination.keyDigest(key) };
  await documents.change(api.CLUSTER, (present) => {
    if (present !== null) throw alreadyThere(config.coordination.prefix);
    return whole;
  });
  output.document({ cluster: whole, proof, commits, keyFile: config.keyFile, keyMade: made !== null });
  output.line(`cluster ${printable(name)} is founded`);
  output.line(
    made === null
      ? `key: ${printable(config.keyFile)}, as it was there`
      : `key: ${printable(config.keyFile)}, new; copy it to every other node, with mode 0600`,
  );
  tellVotes(session, votes, [config.name]);
  output.note("next, on every node: lockstep cluster join, then lockstep node");
}

function alreadyThere(prefix: string | undefined): LockstepError {
  return new LockstepError("CLUSTER_EXISTS", `there is a cluster below ${prefix ?? "this prefix"} already`, {
    hint: "lockstep cluster join adds this machine to it; another cluster needs another prefix.",
  });
}

/** `/lockstep/prod/` is called prod. */
const nameOfPrefix = (prefix: string) => prefix.split("/").findLast((part) => part !== "") ?? "cluster";

/** Those that were named, else the members that the store says it has. */
async function findVotes(
  { config }: ClusterSession,
  examination: Examination,
  given: readonly string[] | undefined,
): Promise<Vote[]> {
  if (given !== undefined) return given.map(readVote);
  const members = await examination.listStoreMembers(config.coordination, systemClock);
  // One database has one vote, whatever it is made of.
  if (members === null) return [{ name: "database", onNode: null }];
  return examination.votesOf(members, [{ node: config.name, address: config.address }]);
}

export function readVote(text: string): Vote {
  const [, name, node] = /^([^@]+)(?:@(.+))?$/.exec(text) ?? [];
  if (name === undefined)
    throw usage("--vote takes a member of the store, and the node it runs on", "m1@alpha, or witness", text);
  return { name, onNode: node ?? null };
}

/** Says what the votes allow, and what would allow more. */
export function tellVotes(
  { output }: ClusterSession,
  votes: readonly Vote[],
  nodes: readonly string[],
): void {
  const told = votes.map(({ name, onNode }) => (onNode === null ? name : `${name} on ${onNode}`));
  output.line(`votes: ${printable(told.join(", ") || "none")}`);
  const { advice } = judgeVotes(nodes, votes);
  if (advice !== null && nodes.length > 1) output.warn(`no automatic failover: ${printable(advice)}`);
}

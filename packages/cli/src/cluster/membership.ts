import type { ClusterMember, NodeFinding, VirtualServerDefinition } from "@lockstep/core";
import { printable, systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { ClusterSession, Examination } from "../commands/cluster-session.ts";
import { PRODUCT_VERSION } from "../version.ts";
import { tellFinding } from "./findings-text.ts";
import { tellVotes } from "./found.ts";
import { demandNode, takeSnapshot } from "./look.ts";
import type { ClusterSnapshot } from "./snapshot.ts";

/** Everything that this machine needs to be a node of the cluster. */
export function examineHere(
  { config, coordination }: ClusterSession,
  { examineNode }: Examination,
  snapshot: ClusterSnapshot,
): Promise<NodeFinding[]> {
  return examineNode({
    ...{ node: config.name, address: config.address, version: PRODUCT_VERSION },
    ...{ dataDirectory: config.data, keyFile: config.keyFile, cluster: snapshot.cluster },
    ...{ members: snapshot.members, reports: [...snapshot.reports.values()], up: snapshot.up },
    ...{ servers: snapshot.servers, documents: coordination.documents, clock: systemClock },
  });
}

/**
 * `lockstep cluster join`: looks at everything that this machine needs and registers it. Throws CLUSTER_CHECK_FAILED with
 * everything that is wrong, NODE_EXISTS when another machine goes on under this name.
 */
export async function joinCluster(
  session: ClusterSession,
  examination: Examination,
  options: { readonly force?: boolean; readonly dryRun?: boolean },
): Promise<void> {
  const { api, config, documents, output } = session;
  const snapshot = await takeSnapshot(session);
  const findings = await examineHere(session, examination, snapshot);
  for (const finding of findings) tellFinding(output, finding);
  const wrong = findings.filter(({ state }) => state === "failed");
  if (wrong.length > 0 && options.force !== true)
    throw new LockstepError(
      wrong.some(({ id, detail }) => id === "key" && detail.includes("not the key"))
        ? "CLUSTER_KEY_DIFFERS"
        : "CLUSTER_CHECK_FAILED",
      `${config.name} cannot join yet`,
      {
        faults: wrong.map(({ id, detail, hint }) => ({
          where: id,
          problem: hint === null ? detail : `${detail}. ${hint}`,
        })),
        hint: "Mend what is listed and join again; --force joins all the same.",
      },
    );
  if (options.dryRun === true) {
    output.document({ node: config.name, findings, dryRun: true });
    return;
  }
  const before = snapshot.members.find(({ node }) => node === config.name);
  if (before !== undefined && before.address !== config.address && snapshot.up.has(config.name))
    throw new LockstepError("NODE_EXISTS", `a node ${config.name} goes on at another address`, {
      expected: before.address,
      found: config.address,
      hint: "Give this machine another name in its node configuration.",
    });
  await documents.change(api.at(api.MEMBERS, config.name), (present) =>
    present?.address === config.address
      ? present
      : {
          ...{ isPaused: false, exits: [], quarantinedUntil: null },
          ...present,
          ...{ node: config.name, address: config.address },
        },
  );
  const votes = await placeVotes(session, examination, snapshot);
  const nodes = [...new Set([...snapshot.members.map(({ node }) => node), config.name])];
  output.document({ node: config.name, address: config.address, joined: before === undefined, findings });
  output.line(
    before === undefined
      ? `${printable(config.name)} is a node of ${printable(snapshot.cluster.name)} now`
      : `${printable(config.name)} was a node of ${printable(snapshot.cluster.name)} already`,
  );
  tellVotes(session, votes, nodes);
  if (!snapshot.up.has(config.name)) output.note("next: lockstep node starts its daemon");
}

/** A vote whose machine was unknown, or was not a node yet, may run on this one. */
async function placeVotes(
  { api, config, documents }: ClusterSession,
  { listStoreMembers, votesOf }: Examination,
  { cluster }: ClusterSnapshot,
) {
  const store = await listStoreMembers(config.coordination, systemClock);
  const here = votesOf(store ?? [], [{ node: config.name, address: config.address }]).filter(
    ({ onNode }) => onNode !== null,
  );
  if (!cluster.votes.some(({ name, onNode }) => onNode === null && here.some((vote) => vote.name === name)))
    return cluster.votes;
  const changed = await documents.change(api.CLUSTER, (present) =>
    present === null
      ? null
      : {
          ...present,
          votes: present.votes.map((vote) =>
            vote.onNode === null ? (here.find(({ name }) => name === vote.name) ?? vote) : vote,
          ),
        },
  );
  return changed?.votes ?? cluster.votes;
}

/** `lockstep cluster leave`. Throws NODE_UNKNOWN, NODE_IN_USE. */
export async function leaveCluster(session: ClusterSession, given: string | undefined): Promise<void> {
  const { api, config, documents, output } = session;
  const node = given ?? config.name;
  const snapshot = await takeSnapshot(session);
  demandNode(
    snapshot.members.map((member) => member.node),
    node,
  );
  const owned = snapshot.servers.filter(({ name }) => snapshot.leases.get(name)?.node === node);
  if (snapshot.up.has(node) || owned.length > 0)
    throw new LockstepError(
      "NODE_IN_USE",
      owned.length > 0
        ? `${node} owns ${owned.map(({ name }) => name).join(", ")}`
        : `the daemon of ${node} still runs`,
      { hint: `lockstep cluster drain ${node}, then stop its daemon, then let it leave.` },
    );
  const stuck = snapshot.servers.flatMap((server) => onlyOn(server, node));
  if (stuck.length > 0)
    throw new LockstepError("NODE_IN_USE", `something can be owned by ${node} alone`, {
      faults: stuck,
      hint: "Allow other nodes first: lockstep cluster virtual-server set NAME --possible NODE,…",
    });
  // First what names the node, last the node: whoever is interrupted can do it again.
  const changed: string[] = [];
  for (const server of snapshot.servers) {
    if (withoutNode(server, node) === server) continue;
    await documents.change(api.at(api.SERVERS, server.name), (present) =>
      present === null ? null : withoutNode(present, node),
    );
    changed.push(server.name);
  }
  await documents.change(api.CLUSTER, (present) =>
    present?.votes.some(({ onNode }) => onNode === node) === true
      ? {
          ...present,
          votes: present.votes.map((vote) => (vote.onNode === node ? { ...vote, onNode: null } : vote)),
        }
      : present,
  );
  await documents.remove(`${api.REPORTS.prefix}${node}`);
  await documents.remove(`examined/${node}`);
  await documents.change(api.at(api.MEMBERS, node), (): ClusterMember | null => null);
  output.document({ node, left: true, changed });
  output.line(`${printable(node)} has left ${printable(snapshot.cluster.name)}`);
  if (changed.length > 0) output.note(`taken off the lists of owners of ${changed.join(", ")}`);
}

function onlyOn({ name, resources }: VirtualServerDefinition, node: string) {
  return resources
    .filter(({ policy: { possibleOwners } }) => possibleOwners?.length === 1 && possibleOwners[0] === node)
    .map((resource) => ({
      where: `${name} [${resource.name}]`,
      problem: `${node} is its only possible owner`,
    }));
}

/** The same value where the node is on no list. */
function withoutNode(server: VirtualServerDefinition, node: string): VirtualServerDefinition {
  const others = (names: readonly string[]) => names.filter((name) => name !== node);
  const isNamed =
    server.preferredOwners.includes(node) ||
    server.resources.some(({ policy }) => policy.possibleOwners?.includes(node) === true);
  if (!isNamed) return server;
  const preferredOwners = others(server.preferredOwners);
  return {
    ...server,
    preferredOwners,
    // Without a list of preferred owners nothing could be gone back to.
    failback: preferredOwners.length === 0 ? { ...server.failback, allowed: false } : server.failback,
    resources: server.resources.map((resource) => ({
      ...resource,
      policy: {
        ...resource.policy,
        possibleOwners:
          resource.policy.possibleOwners === null ? null : others(resource.policy.possibleOwners),
      },
    })),
  };
}

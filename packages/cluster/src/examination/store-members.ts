import type { ClusterMember, Vote } from "@lockstep/core";
import type { Clock } from "@lockstep/platform";
import { EtcdGateway } from "../coordination/etcd-gateway.ts";
import { type CoordinationConfig, readEtcdAccess } from "../coordination/open.ts";
import { splitAddress } from "../node/peer-channel.ts";

/** A member of the store that has a vote in it. */
export interface StoreMember {
  readonly name: string;
  /** Where its clients and the other members reach it. */
  readonly hosts: readonly string[];
}

/** The voting members of the store as it knows them itself; null: this kind of store does not say. Throws COORDINATION_UNREACHABLE. */
export async function listStoreMembers(
  config: CoordinationConfig,
  clock: Clock,
): Promise<readonly StoreMember[] | null> {
  if (config.store !== "etcd") return null;
  const { endpoints, callMs } = config;
  const gateway = new EtcdGateway({
    ...{ endpoints, callMs, monotonic: () => clock.monotonic() },
    ...(await readEtcdAccess(config)),
  });
  try {
    return readMembers(await gateway.call("/v3/cluster/member/list", {}));
  } finally {
    gateway.close();
  }
}

function readMembers(answer: unknown): StoreMember[] {
  const members = isRecord(answer) && Array.isArray(answer.members) ? answer.members : [];
  return members.filter(isRecord).flatMap((member) => {
    // A learner gets every entry and counts for nothing.
    if (member.isLearner === true) return [];
    const urls = [member.clientURLs, member.peerURLs].flatMap((list) => (Array.isArray(list) ? list : []));
    const hosts = urls.flatMap((url) => (typeof url === "string" ? (URL.parse(url)?.hostname ?? []) : []));
    const name = typeof member.name === "string" && member.name !== "" ? member.name : String(member.ID);
    return [{ name, hosts: [...new Set(hosts.map((host) => host.replace(/^\[|\]$/g, "")))] }];
  });
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** An address that every machine has for itself says nothing about where a member runs. */
const isLoopback = (host: string) => host === "localhost" || host === "::1" || host.startsWith("127.");

/**
 * The votes that these members are, each on the node whose address it shares. A member at another address has a machine
 * of its own, as far as anybody can see.
 */
export function votesOf(
  store: readonly StoreMember[],
  nodes: readonly Pick<ClusterMember, "node" | "address">[],
): Vote[] {
  return store.map(({ name, hosts }) => {
    const at = nodes.find(({ address }) => {
      const { host } = splitAddress(address);
      return !isLoopback(host) && hosts.includes(host);
    });
    return { name, onNode: at?.node ?? null };
  });
}

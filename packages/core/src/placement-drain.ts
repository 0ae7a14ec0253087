import { type ConfigRule, type NodeView, type OwnerPlacement, place, type ServerView } from "./placement.ts";

/** Where one virtual server goes when its node is drained; null: nowhere, and why. */
export interface DrainMove {
  readonly server: string;
  readonly to: string | null;
  readonly rejected: OwnerPlacement["rejected"];
}

/**
 * Moves everything off a node before it is paused: the heaviest first, so that the load of those moved before counts.
 * With `target` everything that can goes there. What has nowhere to go is said; a forced drain stops it.
 */
export function planDrain(
  node: string,
  servers: readonly ServerView[],
  nodes: readonly NodeView[],
  config: ConfigRule,
  target: string | null = null,
): DrainMove[] {
  const present = new Map(servers.map((server) => [server.name, server]));
  return servers
    .filter(({ owner }) => owner === node)
    .sort((a, b) => b.weight - a.weight || (a.name < b.name ? -1 : 1))
    .map((server) => {
      const { candidates, rejected } = place(server, nodes, [...present.values()], config, [node]);
      const aimed = candidates.find((candidate) => candidate.node === target);
      const to = (target === null ? candidates[0] : aimed)?.node ?? null;
      present.set(server.name, { ...server, owner: to ?? node });
      return { server: server.name, to, rejected };
    });
}

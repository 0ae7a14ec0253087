/**
 * Whether a cluster may replace a lost owner by itself. The store decides who owns, and it decides by majority of its
 * votes. Where the loss of one node takes the majority along, the survivors could never learn who owns; a failover
 * "by itself" would then be a promise that breaks in the very case it is for. The usual case are two nodes without a
 * third vote.
 */
export interface Vote {
  /** How people call it: a member of the store, the database, a witness. */
  readonly name: string;
  /** The cluster node on whose machine it runs; null: on a machine of its own. */
  readonly onNode: string | null;
}

export interface VoteJudgement {
  /** Whether a lost owner may be replaced without a person. */
  readonly automatic: boolean;
  /** Nodes whose loss would leave no majority. */
  readonly fatalNodes: readonly string[];
  /** What would make it automatic, in words; null: it is. */
  readonly advice: string | null;
}

/** `nodes`: all nodes of the cluster. `votes`: the members of the store that count, wherever they run. */
export function judgeVotes(nodes: readonly string[], votes: readonly Vote[]): VoteJudgement {
  const majority = Math.floor(votes.length / 2) + 1;
  const fatalNodes = nodes.filter((node) => votes.filter(({ onNode }) => onNode !== node).length < majority);
  if (votes.length === 0)
    return { automatic: false, fatalNodes: nodes, advice: "name at least one member of the store" };
  if (fatalNodes.length === 0) return { automatic: true, fatalNodes, advice: null };
  const counted = `${votes.length} ${votes.length === 1 ? "vote" : "votes"}`;
  return {
    automatic: false,
    fatalNodes,
    advice:
      nodes.length === 2
        ? `two nodes need a third vote on a machine of its own: of ${counted}, losing ${fatalNodes.join(" or ")} leaves fewer than ${majority}`
        : `spread the votes: of ${counted}, losing ${fatalNodes.join(" or ")} leaves fewer than ${majority}`,
  };
}

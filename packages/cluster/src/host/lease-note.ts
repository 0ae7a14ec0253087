import type { LeaseNote } from "@lockstep/core";

/** What happened to a lease, for the history. */
export function leaseNote({ node, reason, token, revision, deadline, at }: LeaseNote): string {
  const by = node === null ? "nobody" : node;
  const seen = revision === null ? "" : `, revision ${revision}`;
  const until = deadline === undefined ? "" : `, deadline ${Math.round(deadline - at)} ms from then`;
  const why = reason === undefined ? "" : `: ${reason}`;
  return `${by}, token ${token}${seen}${until}${why}`;
}

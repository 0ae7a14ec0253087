import type { Sha256 } from "@lockstep/core";

/** The ETag of a step: of both manifests enough that a cache does not take one for another. It travels with every step. */
export function stepTag(from: Sha256, to: Sha256): string {
  return `"${from.slice(0, 16)}-${to.slice(0, 16)}"`;
}

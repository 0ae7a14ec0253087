/**
 * What the guard of a virtual server sets in the environment of each service that it launches. Names that a service of
 * any making may rely on: docs/reference/resources.md.
 */
export const CLUSTER_ENVIRONMENT = {
  /** The physical machine that the service runs on. */
  node: "LOCKSTEP_NODE",
  /** The fencing token of the lease under which it was launched: a whole number that only grows. */
  term: "LOCKSTEP_TERM",
  virtualServer: "LOCKSTEP_VIRTUAL_SERVER",
  /** Data directory of the virtual server on this node; `settings` in it follows the virtual server. */
  data: "LOCKSTEP_DATA",
  /** A file in which the service may say what it is doing: one of SERVICE_WORDS, in one line, put there by a rename. */
  word: "LOCKSTEP_SERVICE_WORD",
} as const;

/**
 * What a service tells the daemon that guards it. `updating`: it brings its own files up to date and serves nobody for that
 * time, which is maintenance and no failure (behaviour 75).
 */
export const SERVICE_WORDS = ["starting", "ready", "updating", "stopping"] as const;
export type ServiceWord = (typeof SERVICE_WORDS)[number];

/** Null: no word of ours. */
export const parseServiceWord = (text: string): ServiceWord | null =>
  SERVICE_WORDS.find((each) => each === text.trim()) ?? null;

/** Under which lease a service runs. */
export interface ClusterOrigin {
  readonly node: string;
  readonly term: number;
}

/** Null: no cluster launched this process. A term that is no number counts as none: nothing may act under it. */
export function readClusterOrigin(
  environment: Readonly<Record<string, string | undefined>>,
): ClusterOrigin | null {
  const node = environment[CLUSTER_ENVIRONMENT.node];
  const text = environment[CLUSTER_ENVIRONMENT.term];
  // A node is a host name; what is none must not become part of the name of a file.
  if (node === undefined || !/^[^\s/]{1,255}$/.test(node) || !/^\d{1,16}$/.test(text ?? "")) return null;
  const term = Number(text);
  return Number.isSafeInteger(term) ? { node, term } : null;
}

import {
  type ClusterDefinition,
  type DocumentFault,
  findLeaseFaults,
  findLifetimeFaults,
  findServerFaults,
  type NodeReport,
  type VirtualServerDefinition,
} from "@lockstep/core";
import { LockstepError } from "@lockstep/protocol/wire";

/** The cluster that a definition is held against. */
export interface DefinitionSurroundings {
  readonly cluster: ClusterDefinition;
  /** Names of the members. */
  readonly nodes: readonly string[];
  /** Names of the virtual servers that are there, this one or not. */
  readonly servers: readonly string[];
  /** What nodes were measured to need; empty: not known yet. */
  readonly reports: readonly NodeReport[];
}

/**
 * Refuses a virtual server that contradicts itself or the cluster. Throws VIRTUAL_SERVER_INVALID with every fault, else
 * LEASE_TIMES_UNSAFE with every term of its lease that could be changed. The settings of the resources are checked by
 * their own types.
 */
export function checkServer(
  definition: VirtualServerDefinition,
  { cluster, nodes, servers, reports }: DefinitionSurroundings,
): void {
  const times = definition.lease ?? cluster.lease;
  const faults = [...findServerFaults(definition, nodes, servers), ...findLifetimeFaults(definition, times)];
  if (faults.length > 0)
    throw new LockstepError("VIRTUAL_SERVER_INVALID", `the virtual server ${definition.name} has faults`, {
      faults: placed(definition.name, faults),
      hint: "Correct what is named; nothing was written.",
    });
  const unsafe = findLeaseFaults(
    times,
    reports.map(({ node, measured }) => ({ node, ...measured })),
  );
  if (unsafe.length > 0) throw leaseTimesUnsafe(definition.name, unsafe);
}

/** Times that do not exclude two owners, as an error. `where`: whose they are. */
export function leaseTimesUnsafe(where: string, faults: readonly DocumentFault[]): LockstepError {
  return new LockstepError("LEASE_TIMES_UNSAFE", `the times of the lease of ${where} are not safe`, {
    faults: placed(where, faults),
    hint: `Changing one of the terms named to its limit or beyond is enough for each inequality: lockstep cluster virtual-server set ${where} --time waitMs=….`,
  });
}

const placed = (where: string, faults: readonly DocumentFault[]) =>
  faults.map(({ at, problem }) => ({ where: `${where}: ${at}`, problem }));

import { hostname } from "node:os";
import type { ResourceDefinition, VirtualServerDefinition } from "@lockstep/core";
import { CLUSTER_ENVIRONMENT, LockstepError } from "@lockstep/protocol/wire";
import type { Resource } from "../resources/resource.ts";
import type { VirtualServerHostOptions } from "./host-types.ts";
import { dataDirectoryOf } from "./server-directory.ts";
import type { ServiceLauncher } from "./service-launcher.ts";

/** What one object of a resource is given by its host. */
export interface OpeningPort {
  launcher(environment: Readonly<Record<string, string>>, hostName: string | null): ServiceLauncher;
  readonly directory: string;
  token(): number | null;
  note(what: string, detail: string): void;
  failed(problem: string): void;
}

/**
 * Makes a resource of its definition. One whose settings are refused stands all the same, and says so whenever it is to
 * come online: its virtual server must be seen to fail, not be missing.
 */
export function openResource(
  { lease, factories, directory: serverDirectory }: VirtualServerHostOptions,
  { name: virtualServer, useNetworkName }: VirtualServerDefinition,
  definition: ResourceDefinition,
  port: OpeningPort,
): Resource {
  const { directory, token, note, failed } = port;
  const { node } = lease;
  const services = port.launcher(
    {
      ...machineOf(virtualServer, node, useNetworkName),
      [CLUSTER_ENVIRONMENT.data]: dataDirectoryOf(serverDirectory),
    },
    useNetworkName ? virtualServer : null,
  );
  const factory = factories[definition.type];
  try {
    if (factory === undefined)
      throw new LockstepError(
        "RESOURCE_SETTINGS",
        `this node knows no resources of type ${definition.type}`,
        {
          hint: "All nodes of a cluster must run the same version.",
        },
      );
    return factory({ virtualServer, node, definition, token, note, failed, directory, services });
  } catch (error) {
    if (!(error instanceof LockstepError)) throw error;
    return refusedResource(error);
  }
}

/** What a program reads to learn on which machine it is (S2). */
const machineOf = (virtualServer: string, node: string, useNetworkName: boolean) => ({
  [CLUSTER_ENVIRONMENT.virtualServer]: virtualServer,
  [CLUSTER_ENVIRONMENT.node]: node,
  ...(useNetworkName
    ? { COMPUTERNAME: virtualServer, HOSTNAME: virtualServer, _CLUSTER_NETWORK_NAME_: virtualServer }
    : { COMPUTERNAME: hostname(), HOSTNAME: hostname() }),
});

function refusedResource(error: LockstepError): Resource {
  const problem = [error.message, ...error.faults.map(({ where, problem: text }) => `${where}: ${text}`)];
  return {
    online: () => Promise.reject(new LockstepError("RESOURCE_FAILED", problem.join("; "), { cause: error })),
    offline: () => Promise.resolve(),
    check: () => Promise.resolve(problem.join("; ")),
    terminate: () => Promise.resolve(),
    undo: [],
  };
}

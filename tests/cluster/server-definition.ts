import {
  DEFAULT_FAILBACK,
  DEFAULT_FAILOVER_LIMIT,
  DEFAULT_RESOURCE_POLICY,
  type ResourceDefinition,
  type ResourcePolicy,
  type VirtualServerDefinition,
} from "@lockstep/core";

/** A virtual server of these resources, wanted and enabled, with the defaults of everything else. */
export function defineServer(
  resources: readonly ResourceDefinition[],
  changed: Partial<VirtualServerDefinition> = {},
): VirtualServerDefinition {
  return {
    name: "JOBS",
    isEnabled: true,
    wanted: "online",
    inMaintenance: false,
    resources,
    preferredOwners: [],
    antiAffinity: [],
    weight: 1,
    failback: DEFAULT_FAILBACK,
    failover: DEFAULT_FAILOVER_LIMIT,
    lease: null,
    lockDelayMs: 0,
    failsafe: false,
    useNetworkName: true,
    checkpoints: [],
    config: null,
    ...changed,
  };
}

export function defineResource(
  name: string,
  type: ResourceDefinition["type"],
  settings: ResourceDefinition["settings"] = {},
  policy: Partial<ResourcePolicy> = {},
): ResourceDefinition {
  return { name, type, settings, policy: { ...DEFAULT_RESOURCE_POLICY, ...policy } };
}

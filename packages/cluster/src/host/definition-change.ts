import type { ResourceDefinition, VirtualServerDefinition } from "@lockstep/core";

/** Whether nothing but the policy differs. */
export const isSameThing = (one: ResourceDefinition, other: ResourceDefinition): boolean =>
  one.type === other.type && JSON.stringify(one.settings) === JSON.stringify(other.settings);

/** Whether what is online can stay so: no resource goes or becomes another one, whatever comes. */
export const leavesUntouched = (present: VirtualServerDefinition, next: VirtualServerDefinition): boolean =>
  present.useNetworkName === next.useNetworkName &&
  present.resources.every((each) => {
    const same = next.resources.find(({ name }) => name === each.name);
    return same !== undefined && isSameThing(each, same);
  });

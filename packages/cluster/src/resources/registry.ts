import type { ResourceDefinition, ResourceType } from "@lockstep/core";
import type { HostedContext } from "../host/host-types.ts";
import { openFileShare } from "./file-share.ts";
import { checkFileShareSettings } from "./file-share-settings.ts";
import { openGenericService } from "./generic-service.ts";
import { checkGenericServiceSettings } from "./generic-service-settings.ts";
import { openIpAddress } from "./ip-address.ts";
import { checkIpAddressSettings } from "./ip-address-settings.ts";
import { openMount } from "./mount.ts";
import { checkMountSettings } from "./mount-settings.ts";
import { openNetworkName } from "./network-name.ts";
import { checkNetworkNameSettings } from "./network-name-settings.ts";
import { openOcf } from "./ocf.ts";
import { checkOcfSettings } from "./ocf-settings.ts";
import type { Resource } from "./resource.ts";

/** What makes the resources of each type. */
export const resourceFactories: Readonly<Record<ResourceType, (context: HostedContext) => Resource>> = {
  "ip-address": openIpAddress,
  "network-name": openNetworkName,
  "generic-service": openGenericService,
  "file-share": openFileShare,
  mount: openMount,
  ocf: openOcf,
};

const checks: Readonly<
  Record<ResourceType, (settings: ResourceDefinition["settings"]) => readonly string[]>
> = {
  "ip-address": checkIpAddressSettings,
  "network-name": checkNetworkNameSettings,
  "generic-service": checkGenericServiceSettings,
  "file-share": checkFileShareSettings,
  mount: checkMountSettings,
  ocf: checkOcfSettings,
};

/** What is wrong with the settings of a resource, each in words, as far as can be told on any machine. */
export const checkResourceSettings = ({ type, settings }: ResourceDefinition): readonly string[] =>
  checks[type](settings);

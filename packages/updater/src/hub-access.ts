import { HubClient, resolveToken } from "@lockstep/client";
import type { InstallationHub } from "@lockstep/core";

/** How a caller wants to reach the hub; whatever is absent comes from the installation or the environment. */
export interface HubAccess {
  readonly url?: string | undefined;
  readonly caFile?: string | undefined;
  readonly tokenFile?: string | undefined;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly connectTimeoutMs?: number | undefined;
  readonly idleTimeoutMs?: number | undefined;
}

/** The hub of an installation, with the credentials that this process has. */
export async function connectHub(recorded: InstallationHub | null, access: HubAccess): Promise<HubClient> {
  const { environment } = access;
  const url = access.url ?? recorded?.url ?? environment.LOCKSTEP_HUB ?? "";
  const caFile = access.caFile ?? recorded?.caFile ?? environment.LOCKSTEP_CA ?? null;
  const tokenFile = access.tokenFile ?? (environment.LOCKSTEP_TOKEN ? null : (recorded?.tokenFile ?? null));
  const token = await resolveToken({ tokenFile, environment });
  return new HubClient({
    url,
    token,
    caFile,
    ...(access.connectTimeoutMs === undefined ? {} : { connectTimeoutMs: access.connectTimeoutMs }),
    ...(access.idleTimeoutMs === undefined ? {} : { idleTimeoutMs: access.idleTimeoutMs }),
  });
}

import { HubClient, resolveToken, type Throttle } from "@lockstep/client";
import type { InstallationHub } from "@lockstep/core";
import type { InstallationPaths } from "./layout.ts";
import type { TransferOrder } from "./transfer-throttle.ts";

/** How a caller wants to reach the hub; whatever is absent comes from the installation or the environment. */
export interface HubAccess {
  readonly url?: string | undefined;
  readonly caFile?: string | undefined;
  readonly tokenFile?: string | undefined;
  /** A relay that is asked before the hub. */
  readonly relay?: string | undefined;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly connectTimeoutMs?: number | undefined;
  readonly idleTimeoutMs?: number | undefined;
  /** What the hub says of transfers; goes with a run to the process that carries it out. */
  readonly transfer?: TransferOrder | undefined;
  /** Holds this process to them. */
  readonly throttle?: Throttle | undefined;
}

/**
 * The hub of an installation, with the credentials that this process has. With the paths of the installation: as that
 * installation, where it enrolled; what the hub answers without asking for anybody costs nothing more.
 */
export async function connectHub(
  recorded: InstallationHub | null,
  access: HubAccess,
  paths: InstallationPaths | null = null,
): Promise<HubClient> {
  const { environment } = access;
  const { url, caFile } = hubOf(recorded, access);
  const tokenFile = access.tokenFile ?? (environment.LOCKSTEP_TOKEN ? null : (recorded?.tokenFile ?? null));
  const relay = access.relay ?? (environment.LOCKSTEP_RELAY || recorded?.relay || null);
  const token = await resolveToken({ tokenFile, environment });
  return new HubClient({
    url,
    token,
    caFile,
    ...(paths === null
      ? {}
      : { renewToken: async (refused) => await ownSession(paths, { url, caFile }, refused) }),
    relay: relay === "none" ? null : relay,
    throttle: access.throttle,
    ...(access.connectTimeoutMs === undefined ? {} : { connectTimeoutMs: access.connectTimeoutMs }),
    ...(access.idleTimeoutMs === undefined ? {} : { idleTimeoutMs: access.idleTimeoutMs }),
  });
}

/** Which hub it is, by what was given, recorded, or stands in the environment. */
export function hubOf(
  recorded: InstallationHub | null,
  { url, caFile, environment }: HubAccess,
): { readonly url: string; readonly caFile: string | null } {
  return {
    url: url ?? recorded?.url ?? environment.LOCKSTEP_HUB ?? "",
    caFile: caFile ?? recorded?.caFile ?? environment.LOCKSTEP_CA ?? null,
  };
}

/** A session of the installation's own key; null: it did not enrol. */
async function ownSession(
  paths: InstallationPaths,
  hub: { readonly url: string; readonly caFile: string | null },
  refused: string | null,
): Promise<string | null> {
  const { obtainSession } = await import("./identity.ts");
  return await obtainSession(paths, hub, refused);
}

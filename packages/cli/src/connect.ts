import { HubClient, resolveToken } from "@lockstep/client";
import { givenHubUrl, type HubArguments } from "./hub-address.ts";
import { usage } from "./options.ts";

/** The address of the hub. Throws USAGE when nobody named one. */
export function demandHub(given: HubArguments): string {
  const url = givenHubUrl(given);
  if (url !== null) return url;
  throw usage("no hub was named", undefined, undefined, "Give --hub http://HOST:PORT, or set LOCKSTEP_HUB.");
}

/** Makes the client of a command that needs a hub. */
async function connectHub(given: HubArguments): Promise<HubClient> {
  const url = demandHub(given);
  return new HubClient({
    url,
    token: await resolveToken({ tokenFile: given.tokenFile ?? null, environment: process.env }),
    caFile: given.caFile ?? (process.env.LOCKSTEP_CA || null),
  });
}

/** Runs something with the hub's client and closes its connections afterwards, however it ends. */
export async function withHub<T>(given: HubArguments, use: (hub: HubClient) => Promise<T>): Promise<T> {
  const hub = await connectHub(given);
  try {
    return await use(hub);
  } finally {
    await hub.close();
  }
}

import { HubClient, resolveToken } from "@lockstep/client";
import { givenHubUrl, type HubArguments } from "./hub-address.ts";
import { usage } from "./options.ts";

/** Makes the client of a command that needs a hub. Throws USAGE when nobody said which. */
async function connectHub(given: HubArguments): Promise<HubClient> {
  const url = givenHubUrl(given);
  if (url === null)
    throw usage(
      "no hub was named",
      undefined,
      undefined,
      "Give --hub http://HOST:PORT, or set LOCKSTEP_HUB.",
    );
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

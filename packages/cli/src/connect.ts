import { HubClient, resolveToken } from "@lockstep/client";
import { LockstepError } from "@lockstep/protocol/wire";

/** How a command reaches the hub, as options of its command line. */
export interface HubArguments {
  readonly hub?: string;
  readonly tokenFile?: string;
  readonly caFile?: string;
}

/** The address that was given: `--hub`, else LOCKSTEP_HUB, else null. */
export function givenHubUrl(given: HubArguments): string | null {
  return given.hub ?? (process.env.LOCKSTEP_HUB || null);
}

/** Makes the client of a command that needs a hub. Throws USAGE when nobody said which. */
export async function connectHub(given: HubArguments): Promise<HubClient> {
  const url = givenHubUrl(given);
  if (url === null)
    throw new LockstepError("USAGE", "no hub was named", {
      hint: "Give --hub http://HOST:PORT, or set LOCKSTEP_HUB.",
    });
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

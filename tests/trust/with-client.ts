import { HubClient, InstallationClient } from "@lockstep/client";
import type { TestHub } from "../hub/support/test-hub.ts";

/** Asks a hub, with its own token, what concerns installations; the connection is closed afterwards. */
export async function withClient<T>(
  hub: TestHub,
  use: (client: InstallationClient) => Promise<T>,
): Promise<T> {
  const client = new HubClient({ url: hub.url, token: hub.token });
  try {
    return await use(new InstallationClient(client));
  } finally {
    await client.close();
  }
}

import type { HubConnection } from "@lockstep/client";

/** Where a relay asks: a hub over the network, or what was carried here on a disk. */
export type Upstream = Pick<HubConnection, "send" | "read" | "chunks">;

import type { HubClient } from "@lockstep/client";
import type { Sha256 } from "@lockstep/core";
import { isLockstepError } from "@lockstep/protocol/wire";

/** A file that is in the present revision, and in the repository no more. */
export interface Removed {
  readonly path: string;
  readonly sha256: Sha256;
  readonly module: string;
}

const ORIGIN_BYTES_MAX = 64 * 1024 * 1024;

/**
 * What led to what waits for a signature, as the hub says it: the loads, oldest first, each as "MODULE VERSION (KIND)", and the
 * files that went with their modules. Nothing from a hub that is older, or where nothing waits.
 */
export async function readOrigin(
  hub: Pick<HubClient, "connection">,
  signal?: AbortSignal,
): Promise<{ releases: string[]; removed: Removed[] }> {
  try {
    const { body } = await hub.connection.read(
      { method: "GET", path: "/v1/signing/awaiting/origin", ...(signal === undefined ? {} : { signal }) },
      ORIGIN_BYTES_MAX,
    );
    const { releases, removed } = JSON.parse(body.toString("utf8")) as Record<string, unknown>;
    return {
      releases: Array.isArray(releases) ? releases.filter((each) => typeof each === "string") : [],
      removed: Array.isArray(removed) ? removed.filter(isRemoved) : [],
    };
  } catch (error) {
    if (isLockstepError(error, "NOT_FOUND") || error instanceof SyntaxError)
      return { releases: [], removed: [] };
    throw error;
  }
}

function isRemoved(value: unknown): value is Removed {
  if (typeof value !== "object" || value === null) return false;
  const { path, sha256, module } = value as Partial<Record<keyof Removed, unknown>>;
  return typeof path === "string" && typeof sha256 === "string" && typeof module === "string";
}

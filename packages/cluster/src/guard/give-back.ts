import { WRITTEN_BY_GUARD } from "@lockstep/core";
import { isLockstepError } from "@lockstep/protocol/wire";
import type { Coordination } from "../coordination/coordination.ts";

const TRIES = 5;

/**
 * Gives back the lease of a daemon that is gone, so that nobody need wait for it. Only what still names that life and that
 * token is touched. Returns whether it was given back; the store may be away, and then the others wait the lease out.
 */
export async function giveBackLease(
  store: Coordination,
  virtualServer: string,
  instance: string,
  token: number,
): Promise<boolean> {
  for (let tries = 0; tries < TRIES; tries++) {
    try {
      const { record, revision } = await store.read(virtualServer);
      if (record?.instance !== instance || record.token !== token || record.node === null) return false;
      const given = { ...record, node: null, next: null, write: WRITTEN_BY_GUARD };
      const answer = await store.swap(virtualServer, { expected: revision, record: given, takes: false });
      if (answer.swapped) return true;
      // A last renewal was still on its way.
    } catch (error) {
      if (!isLockstepError(error, "COORDINATION_UNREACHABLE")) throw error;
    }
  }
  return false;
}

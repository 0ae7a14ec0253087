import type { Clock } from "@lockstep/platform";
import type { Coordination } from "./coordination.ts";
import { openEtcd } from "./etcd.ts";

/** Which store, as it stands in a configuration and travels to the guard. */
export type CoordinationConfig =
  | { readonly store: "etcd"; readonly endpoints: readonly string[]; readonly callMs: number }
  | {
      readonly store: "postgres";
      readonly url: string;
      readonly callMs: number;
      readonly watchMs: number;
    };

/** Opens it. Throws COORDINATION_UNREACHABLE where that takes a connection. */
export async function openCoordination(config: CoordinationConfig, clock: Clock): Promise<Coordination> {
  if (config.store === "etcd") return openEtcd({ ...config, clock });
  // Loaded only where it is used: a guard on etcd need not carry it.
  const { openPostgres } = await import("./postgres.ts");
  const { url, callMs, watchMs } = config;
  return openPostgres({ connection: { connectionString: url }, callMs, watchMs, clock });
}

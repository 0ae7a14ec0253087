/** The node's part of a cluster: coordination stores, the lease as it is driven, the guard. */
export { bootClock } from "./boot-clock.ts";
export type { Coordination, RecordSwap, SwapAnswer } from "./coordination/coordination.ts";
export { type EtcdCoordinationOptions, openEtcd } from "./coordination/etcd.ts";
export { type CoordinationConfig, openCoordination } from "./coordination/open.ts";
export { openPostgres, type PostgresCoordinationOptions } from "./coordination/postgres.ts";
export { type Guard, type GuardListener, startGuardProcess } from "./guard/guard-client.ts";
export type { FromGuard, GuardConfig, ToGuard } from "./guard/messages.ts";
export { LeaseDriver, type LeaseDriverOptions } from "./lease-driver.ts";

/** The node's part of a cluster: coordination stores, the lease as it is driven, the guard. */
export type { Coordination, RecordSwap, SwapAnswer } from "./coordination/coordination.ts";
export { type EtcdCoordinationOptions, openEtcd } from "./coordination/etcd.ts";
export { openPostgres, type PostgresCoordinationOptions } from "./coordination/postgres.ts";

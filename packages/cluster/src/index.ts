/** The node's part of a cluster: coordination stores, the lease as it is driven, the guard. */
export { bootClock } from "./boot-clock.ts";
export type { Coordination, RecordSwap, SwapAnswer } from "./coordination/coordination.ts";
export {
  type ClusterDocument,
  checkDocument,
  DOCUMENT_BYTES_MAX,
  type Documents,
} from "./coordination/documents.ts";
export { type EtcdCoordinationOptions, openEtcd } from "./coordination/etcd.ts";
export { type CoordinationConfig, openCoordination } from "./coordination/open.ts";
export { patientCoordination } from "./coordination/patient.ts";
export { openPostgres, type PostgresCoordinationOptions } from "./coordination/postgres.ts";
export * from "./documents/addresses.ts";
export {
  type BrokenDocument,
  ClusterDocuments,
  documentInvalid,
  type Listed,
} from "./documents/cluster-documents.ts";
export { checkServer, type DefinitionSurroundings, leaseTimesUnsafe } from "./documents/definition-check.ts";
export { type Guard, type GuardListener, startGuardProcess } from "./guard/guard-client.ts";
export type { FromGuard, GuardConfig, ToGuard } from "./guard/messages.ts";
export type {
  FailoverQuestion,
  GuardTuning,
  HostedContext,
  HostedServer,
  HostListener,
  HostNote,
  ResourceFactories,
  VirtualServerHostOptions,
} from "./host/host-types.ts";
export type { LaunchedService, ServiceEnd, ServiceLauncher, ServiceRun } from "./host/service-launcher.ts";
export { VirtualServerHost } from "./host/virtual-server-host.ts";
export { readClusterKey } from "./node/cluster-key.ts";
export { loadNodeConfig, type NodeConfig, parseNodeConfig } from "./node/node-config.ts";
export { type MeasureOptions, measurePeer, type PeerMeasurement } from "./node/peer-channel.ts";
export { type ReadyNode, runNode } from "./node/run-node.ts";
export { checkResourceSettings, resourceFactories } from "./resources/registry.ts";
export type { Resource, ResourceContext, ResourceFactory, UndoCommand } from "./resources/resource.ts";
export {
  ServerSettings,
  type ServerSettingsOptions,
  type SettingsListener,
} from "./settings/server-settings.ts";

/** The job service. */
export * from "./config/load.ts";
export type * from "./config/types.ts";
export { type ConfigWatch, watchServiceConfig } from "./config/watch.ts";
export { tablesOf, templateTables, type WrittenTable, writeConfig } from "./config/write.ts";
export { type ImportedConfig, importConfig } from "./import-xml/convert.ts";
export { NODE_UNIT_MARK, type NodeProgram, nodeUnit } from "./install/node-unit.ts";
export { formatLaunchdPlist, formatWindowsCommands } from "./install/other-systems.ts";
export {
  registerService,
  registerUnit,
  SYSTEM_UNITS,
  type Unit,
  unregisterService,
} from "./install/registration.ts";
export { formatUnit, type ServiceProgram } from "./install/systemd-unit.ts";
export { findSeverity, parseLine, SEVERITIES } from "./log/line.ts";
export { createSystemLog } from "./log/system-log.ts";
export { readLog } from "./log/tail.ts";
export type * from "./log/types.ts";
export { createLogWriter } from "./log/writer.ts";
export type * from "./run-options.ts";
export { askStatus, findStatusPage, type StatusAddress } from "./status/ask.ts";
export { readPassword } from "./status/authentication.ts";
export { isWanted } from "./status/log-filter.ts";
export { openStatusPage, type StatusDocument, type StatusPage } from "./status/server.ts";
export type * from "./status/types.ts";
export { findInstallation } from "./supervise/installation.ts";

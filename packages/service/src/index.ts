/** The job service. */
export * from "./config/load.ts";
export type * from "./config/types.ts";
export { type ConfigWatch, watchServiceConfig } from "./config/watch.ts";
export { type ImportedConfig, importConfig } from "./import-xml/convert.ts";
export { parseLine } from "./log/line.ts";
export { createSystemLog } from "./log/system-log.ts";
export { readLog } from "./log/tail.ts";
export type * from "./log/types.ts";
export { createLogWriter, loggerOf } from "./log/writer.ts";
export type * from "./run-options.ts";
export { openStatusPage, type StatusDocument, type StatusPage } from "./status/server.ts";
export type * from "./status/types.ts";

/** The job service. */
export * from "./config/load.ts";
export type * from "./config/types.ts";
export type * from "./log/types.ts";
export type * from "./run-options.ts";
export type * from "./status/types.ts";

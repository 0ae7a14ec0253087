export * from "./clock.ts";
export * from "./host.ts";
export * from "./interrupt.ts";
export * from "./log.ts";
export * from "./process-identity.ts";
export * from "./random.ts";
export * from "./terminal.ts";

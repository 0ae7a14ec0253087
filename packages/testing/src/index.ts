export * from "./job-history.ts";
export * from "./prng.ts";
export * from "./sim-agenda.ts";
export * from "./sim-clock.ts";
export * from "./sim-disk.ts";
export * from "./sim-network.ts";
export * from "./sim-record-store.ts";

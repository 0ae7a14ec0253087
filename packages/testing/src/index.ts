export * from "./job-history.ts";
export * from "./prng.ts";
export * from "./sim-disk.ts";

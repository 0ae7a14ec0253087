export * from "./prng.ts";
export * from "./sim-disk.ts";

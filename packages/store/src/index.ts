export * from "./content-store.ts";
export * from "./verify.ts";

/**
 * The protocol without its schemas, for programs that start often: the types of every message, the wire formats and
 * the errors. Loading the schemas alone takes longer than a whole `check`; who validates requests imports the index.
 */
export type * from "./api.ts";
export type * from "./api-installations.ts";
export type { SigningStatus } from "./api-signing.ts";
export * from "./cluster-environment.ts";
export * from "./conditions.ts";
export * from "./content-stream.ts";
export * from "./errors.ts";
export * from "./manifest-text.ts";
export * from "./signed-mark.ts";
export * from "./step-tag.ts";
export * from "./update-archive.ts";

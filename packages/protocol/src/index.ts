export * from "./api.ts";
export * from "./content-stream.ts";
export * from "./errors.ts";
export * from "./growing-bytes.ts";
export * from "./json-shape.ts";
export * from "./manifest-text.ts";
export * from "./update-archive.ts";

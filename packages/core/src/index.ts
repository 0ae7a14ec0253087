export * from "./deploy-target.ts";
export * from "./file.ts";
export * from "./manifest.ts";
export * from "./path.ts";

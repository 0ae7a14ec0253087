export * from "./assign.ts";
export * from "./deploy-target.ts";
export * from "./file.ts";
export * from "./glob.ts";
export * from "./manifest.ts";
export * from "./module.ts";
export * from "./path.ts";
export * from "./version.ts";

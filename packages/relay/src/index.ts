export { type Exported, exportBundle } from "./bundle-export.ts";
export { type Imported, importBundle } from "./bundle-import.ts";
export { type Relay, startCarriedRelay, startRelay } from "./relay.ts";

export { HUB_VERSION, type HubOptions, type RunningHub, startHub } from "./hub.ts";
export { DEFAULT_LISTEN } from "./listen-address.ts";

export type { DbQueueTuning } from "./options.ts";
export { createDbQueue, type DbQueueProcessor } from "./processor.ts";

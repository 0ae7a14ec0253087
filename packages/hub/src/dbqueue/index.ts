export { type DbQueueTuning, DEFAULT_TUNING } from "./options.ts";
export type { Procedure, TaskOutcome, TaskRow, TaskRun } from "./procedure.ts";
export { createDbQueue, type DbQueueOptions, type DbQueueProcessor } from "./processor.ts";

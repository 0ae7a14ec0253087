export { commit } from "./commit.ts";
export { installationError } from "./failure.ts";
export { recover } from "./recover.ts";
export { readRevisionFile, writeRevisionFile } from "./revision-file.ts";
export { previousRevision, type RollbackRequest, type RollbackResult, rollbackPrevious } from "./rollback.ts";
export { beginStaging, discardStaging } from "./staging.ts";
export { demandSpace } from "./survey.ts";
export type {
  ApplyContext,
  ApplyHooks,
  CommitRequest,
  CommitResult,
  IndexBuilder,
  Interrupted,
  Operation,
  RecoverHooks,
  RecoverResult,
  RevisionFile,
  RolledBack,
  Staging,
} from "./types.ts";

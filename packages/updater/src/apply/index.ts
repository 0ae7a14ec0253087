export { commit } from "./commit.ts";
export { installationError } from "./failure.ts";
export { recover } from "./recover.ts";
export { readRevisionFile, writeRevisionFile } from "./revision-file.ts";
export { forgetPrevious, previousRevision, rollbackPrevious } from "./rollback.ts";
export { beginStaging, discardStaging } from "./staging.ts";
export { demandSpace } from "./survey.ts";
export type {
  ApplyContext,
  CommitRequest,
  CommitResult,
  IndexBuilder,
  Operation,
  RecoverResult,
  Staging,
} from "./types.ts";

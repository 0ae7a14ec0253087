export { readAuthorities } from "./authorities.ts";
export { type HubConnection, type HubOptions, parseHubUrl, type Throttle } from "./connection.ts";
export { type CredentialSources, readTokenFile, resolveToken } from "./credentials.ts";
export { type DocumentAnswer, openDocument } from "./document.ts";
export { invalidAnswer, retryAfterSeconds } from "./failures.ts";
export {
  type CallOptions,
  type ContentAnswer,
  type ContentResume,
  entityTag,
  HubClient,
} from "./hub-client.ts";
export { InstallationClient } from "./installation-client.ts";
export { JobClient, type ProcessQuery } from "./job-client.ts";
export type { SemaphoreAnswer } from "./semaphore-answer.ts";
export type { UploadContent, UploadFrames, UploadOptions, UploadPart } from "./upload.ts";

export { type HubOptions, parseHubUrl } from "./connection.ts";
export { type CredentialSources, readTokenFile, resolveToken } from "./credentials.ts";
export { retryAfterSeconds } from "./failures.ts";
export {
  type CallOptions,
  type ContentAnswer,
  type ContentResume,
  entityTag,
  HubClient,
  type SemaphoreAnswer,
} from "./hub-client.ts";
export { JobClient, type ProcessQuery } from "./job-client.ts";
export type { UploadContent, UploadFrames, UploadOptions, UploadPart } from "./upload.ts";

import type { FuzzTarget } from "./fuzz.ts";
import { answersTarget, apiTarget } from "./targets-api.ts";
import {
  contentStreamTarget,
  updateDescriptionTarget,
  updateZipTarget,
  zstdFrameTarget,
} from "./targets-content.ts";
import { archiveDeltaTarget, deltaTarget, stepTarget, unfoldingTarget } from "./targets-delta.ts";
import { manifestDeltaTarget, manifestTarget, metadataTarget, strictJsonTarget } from "./targets-trust.ts";

/** Everything that reads what a stranger wrote. */
export const FUZZ_TARGETS: readonly FuzzTarget[] = [
  strictJsonTarget,
  metadataTarget,
  manifestTarget,
  manifestDeltaTarget,
  deltaTarget,
  archiveDeltaTarget,
  unfoldingTarget,
  stepTarget,
  updateZipTarget,
  updateDescriptionTarget,
  contentStreamTarget,
  zstdFrameTarget,
  apiTarget,
  answersTarget,
] as readonly FuzzTarget[];

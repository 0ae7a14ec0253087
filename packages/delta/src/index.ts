/** Deltas between two contents, and steps between two manifests: made by hubs, applied by updaters. */

export { applyDelta } from "./apply-delta.ts";
export { applyArchiveDelta, makeArchiveDelta } from "./archive-delta.ts";
export { type ByteSource, sourceOf } from "./delta-format.ts";
export { FileSources } from "./file-source.ts";
export { makeDelta } from "./make-delta.ts";
export { makeStep, type OpenContent, readStep, type StepDeltas, type StepPart, writeStep } from "./step.ts";
export { type Content, planStep, stepContents } from "./step-plan.ts";

import { isSha256, type Sha256 } from "@lockstep/core";
import { isLockstepError, LockstepError } from "@lockstep/protocol/wire";

/**
 * What travels on a disk instead of a network: the signed objects of one software revision in one content stream.
 *
 *   document   BundleHead: which revision, the signed documents as they are, the log of releases, which contents follow
 *   content*   manifests, contents, steps, each under its digest, as the hub stores them
 *   end
 *
 * It needs no more trust than a network: whoever reads it verifies signatures and digests from the pinned root down.
 */
export const BUNDLE_FORMAT = "lockstep-bundle/1";

export interface BundleHead {
  readonly format: typeof BUNDLE_FORMAT;
  readonly revision: number;
  /** The semaphore's text, as the hub gave it. */
  readonly semaphore: string;
  /** Signed documents by name, base64. */
  readonly documents: Readonly<Record<string, string>>;
  readonly log: { readonly epoch: number; readonly entries: readonly unknown[] };
  /** The revisions whose contents were left out, since installations have them. */
  readonly from: readonly number[];
  readonly steps: readonly BundleStep[];
  /** All that follow, each once, in order. */
  readonly contents: readonly Sha256[];
}

export interface BundleStep {
  readonly from: Sha256;
  readonly to: Sha256;
  /** The step's own digest, and its tag at the hub. */
  readonly sha256: Sha256;
  readonly etag: string | null;
}

export const BUNDLE_LIMITS = { documentBytesMax: 256 * 2 ** 20, contentBytesMax: 2 ** 40 } as const;

/** Reads the head of a bundle. Throws BUNDLE_INVALID. */
export function readBundleHead(value: unknown): BundleHead {
  const head = value as BundleHead | null;
  if (typeof head !== "object" || head === null) throw invalidBundle("it has no head");
  if (head.format !== BUNDLE_FORMAT) throw invalidBundle(`its format is ${String(head.format)}`);
  const { revision, semaphore, documents, log, from, steps, contents } = head;
  const good =
    Number.isSafeInteger(revision) &&
    typeof semaphore === "string" &&
    typeof documents === "object" &&
    documents !== null &&
    Object.entries(documents).every(([name, text]) => NAME.test(name) && typeof text === "string") &&
    Number.isSafeInteger(log?.epoch) &&
    Array.isArray(log.entries) &&
    Array.isArray(from) &&
    from.every(Number.isSafeInteger) &&
    Array.isArray(contents) &&
    contents.every(isSha256) &&
    Array.isArray(steps) &&
    steps.every((step) => isSha256(step?.from) && isSha256(step.to) && isSha256(step.sha256));
  if (!good) throw invalidBundle("its head does not say what it should");
  return head;
}

const NAME = /^(timestamp|root|[1-9]\d{0,15}\.(root|snapshot|targets))\.json$/;

export function invalidBundle(found: string, cause?: unknown): LockstepError {
  return new LockstepError("BUNDLE_INVALID", "the bundle cannot be used", {
    expected: `a whole bundle of the format ${BUNDLE_FORMAT}`,
    found,
    hint: "Nothing was changed. Copy or export it again; what is here already is not read twice.",
    cause,
  });
}

/** What a content stream has against a file, in the words of a bundle. */
export function asBundleFault(error: unknown): unknown {
  return isLockstepError(error, "REQUEST_INVALID", "CONTENT_TOO_LARGE")
    ? invalidBundle(error.message, error)
    : error;
}

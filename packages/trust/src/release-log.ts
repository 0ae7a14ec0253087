import { createHash } from "node:crypto";
import { LockstepError } from "@lockstep/protocol/wire";

/**
 * The log of releases: every software revision that was ever signed, in one chain.
 *
 * Signatures say that a revision is genuine; they do not say that everybody is shown the same ones. A hub that gives one
 * site a release of its own (A23) needs the release keys for it, but nobody would notice. So each entry names the digest
 * of all entries before it, the newest head stands in the signed targets, and an installation that has seen one head
 * accepts only heads that continue it. Heads are short; whoever compares those of two installations finds a split.
 */
export interface ReleaseEntry {
  /** 1 for the first; no gaps. */
  readonly index: number;
  readonly revision: number;
  /** The digest of everything that the revision stands for. */
  readonly digest: string;
}

export interface LogHead {
  /** How many entries there are. */
  readonly size: number;
  /** SHA-256 over the chain, hexadecimal. */
  readonly head: string;
}

/** Before all. */
export const EMPTY_LOG: LogHead = { size: 0, head: "0".repeat(64) };

/** The head after one more entry. */
export function appendEntry(log: LogHead, entry: ReleaseEntry): LogHead {
  if (entry.index !== log.size + 1) throw new RangeError(`entry ${entry.index} after ${log.size}`);
  const text = `lockstep-release/1\n${log.head}\n${entry.index} ${entry.revision} ${entry.digest}\n`;
  return { size: entry.index, head: createHash("sha256").update(text).digest("hex") };
}

/**
 * Demands that a signed head continues the one that was seen before. `entries` are those between them, in order, from
 * anywhere: they prove themselves. Throws TRUST_HISTORY_DIFFERS.
 */
export function demandContinuation(seen: LogHead, signed: LogHead, entries: readonly ReleaseEntry[]): void {
  if (signed.size < seen.size) throw differs(seen, signed, "a shorter log");
  let log = seen;
  for (const entry of entries) {
    if (entry.index !== log.size + 1 || entry.index > signed.size)
      throw differs(seen, signed, "entries with gaps");
    log = appendEntry(log, entry);
  }
  if (log.size !== signed.size) throw differs(seen, signed, "too few entries");
  if (log.head !== signed.head) throw differs(seen, signed, "another history");
}

function differs(seen: LogHead, signed: LogHead, found: string): LockstepError {
  return new LockstepError(
    "TRUST_HISTORY_DIFFERS",
    "the log of releases does not continue the one that was seen here before",
    {
      expected: `a continuation of ${describe(seen)}`,
      found: `${found}: ${describe(signed)}`,
      hint: "Nothing was taken. Compare lockstep trust show of several installations: somebody shows them different releases.",
    },
  );
}

function describe({ size, head }: LogHead): string {
  return `${size} release${size === 1 ? "" : "s"} with head ${head.slice(0, 16)}`;
}

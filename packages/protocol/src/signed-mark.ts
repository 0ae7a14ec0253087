/**
 * What is signed now, in a few characters of a header.
 *
 * An installation that is in step hears of nothing but its own number. Two things can change without another number: the root
 * (keys were rotated or recovered), and, at a hub that was restored from an older backup, what the number stands for. So the
 * answer to the one question that is asked all the time says both, and whoever knows something else looks at the signatures at
 * once. It is a hint like the number itself: nothing is believed of it, and who leaves it out wins no more than the hours until
 * the next look that nobody has to ask for.
 */
export const SIGNED_HEADER = "lockstep-signed";

export interface SignedMark {
  /** Version of the newest root. */
  readonly root: number;
  /** The newest software revision, and the beginning of its digest. */
  readonly revision: number;
  readonly digest: string;
}

const DIGITS = 16;
const MARK = /^(\d{1,15})\.(\d{1,15})\.([0-9a-f]{16})$/;

/** Writes it. `digest`: of the revision, hexadecimal, at least 16 digits. */
export function formatSignedMark({ root, revision, digest }: SignedMark): string {
  return `${root}.${revision}.${digest.slice(0, DIGITS)}`;
}

/** Reads it; null for anything else. */
export function readSignedMark(text: unknown): SignedMark | null {
  const match = typeof text === "string" ? MARK.exec(text) : null;
  if (match === null) return null;
  const [, root, revision, digest = ""] = match;
  return { root: Number(root), revision: Number(revision), digest };
}

/** What an installation knows: the root that it trusts, and the revision that it has, with its digest as it was signed. */
export interface KnownSigned {
  readonly root: number | null;
  readonly revision: number | null;
  readonly digest: string | null;
}

/** Whether somebody who knows this has to look at the signatures. What is not known here cannot differ. */
export function judgeMark(
  mark: SignedMark | null,
  known: KnownSigned,
): "as-known" | "root-differs" | "revision-differs" {
  if (mark === null) return "as-known";
  if (known.digest !== null && mark.revision === known.revision && !known.digest.startsWith(mark.digest))
    return "revision-differs";
  return known.root !== null && mark.root !== known.root ? "root-differs" : "as-known";
}

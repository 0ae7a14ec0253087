import { LockstepError } from "@lockstep/protocol/wire";

/**
 * The documents of a cluster in the coordination store: short texts by key, each changed by compare and swap. Not under a
 * fencing token: they say what administrators want and what nodes report, never what an owner did.
 *
 * Every call ends within the time limit that the store was opened with; COORDINATION_UNREACHABLE may have happened.
 */
export interface Documents {
  /** Null: there is none. */
  read(key: string): Promise<ClusterDocument | null>;
  /** All whose key begins with `prefix`, as of one moment. */
  list(prefix: string): Promise<ReadonlyMap<string, ClusterDocument>>;
  /**
   * Writes if the document is still at `expected` (0: there is none); null deletes. Returns the new revision, or null
   * when somebody else was faster.
   */
  write(key: string, expected: number, text: string | null): Promise<number | null>;
  /**
   * Tells that something below the prefix may have changed, until the signal is aborted; then resolves. A hint, like
   * every watch: whoever must know looks by itself from time to time too.
   */
  watch(prefix: string, tell: () => void, signal: AbortSignal): Promise<void>;
}

export interface ClusterDocument {
  readonly text: string;
  /** Grows with each write of any document; a key that was deleted and written anew never has an old one. */
  readonly revision: number;
}

/** At most this long, in bytes of UTF-8; a store need not hold more. */
export const DOCUMENT_BYTES_MAX = 512 * 1024;

const KEY_BYTES_MAX = 512;

/**
 * What every store asks of a document before it writes. Throws DOCUMENT_TOO_LARGE; a key that no store could hold is a
 * fault of ours.
 */
export function checkDocument(key: string, text: string | null): void {
  if (key === "" || key.includes("\0") || Buffer.byteLength(key) > KEY_BYTES_MAX)
    throw new RangeError(`${key} is no key of a document`);
  const sizeBytes = text === null ? 0 : Buffer.byteLength(text);
  if (sizeBytes > DOCUMENT_BYTES_MAX)
    throw new LockstepError("DOCUMENT_TOO_LARGE", `${key} is too large for the coordination store`, {
      expected: DOCUMENT_BYTES_MAX,
      found: sizeBytes,
      hint: "Shorten what it holds; files of this size belong on a shared volume or into the repository.",
    });
}

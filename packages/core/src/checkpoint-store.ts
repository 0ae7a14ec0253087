import type { CheckpointManifest, StoredEntry } from "./checkpoint.ts";
import { closed, documentKind, listOf, oneOf, textLike, textUpTo, whole } from "./document-shape.ts";

/** How settings stand in the coordination store: keys, the text of a manifest, and in which order what is written. */

const MANIFESTS = "checkpoint/manifest/";
const PIECES = "checkpoint/piece/";
export const CHECKPOINT_KEYS = { manifests: MANIFESTS, pieces: PIECES, all: "checkpoint/" } as const;

const DIGITS = 12;
export const manifestKey = (number: number) => `${MANIFESTS}${String(number).padStart(DIGITS, "0")}`;
/** A piece is named by its owner's token and counted, so that no name ever comes back, and none begins like another. */
export const pieceKey = (token: number, count: number) =>
  `${PIECES}${token}.${String(count).padStart(DIGITS, "0")}`;

/** Bytes of content in one piece: one transaction, far below what etcd takes, so that renewals are not held up. */
export const PIECE_BYTES = 256 * 1024;
/** Characters of values in one transaction. */
const BATCH_LENGTH_MAX = 400_000;
const BATCH_KEYS_MAX = 64;
/** As long as a document may be. */
export const MANIFEST_LENGTH_MAX = 512 * 1024;

const entry = closed<StoredEntry>({
  root: textUpTo(4_096),
  path: textUpTo(1_024),
  kind: oneOf(["file", "directory"]),
  mode: whole(0, 0o777),
  size: whole(),
  sha256: textLike(/^(?:[0-9a-f]{64})?$/, "a SHA-256 in lower case hexadecimal, or empty"),
  pieces: listOf(textLike(/^checkpoint\/piece\/[0-9]+\.[0-9]{12}$/, "the key of a piece"), 1_000),
});

export const CHECKPOINT_MANIFEST = documentKind<CheckpointManifest>(
  "lockstep-checkpoint/1",
  closed<CheckpointManifest>({
    number: whole(1),
    node: textUpTo(100),
    token: whole(1),
    roots: listOf(textUpTo(4_096), 1_002),
    entries: listOf(entry, 10_000),
  }),
);

/** The key of the manifest that counts, or null. */
export function newestManifestKey(keys: Iterable<string>): string | null {
  let newest: string | null = null;
  for (const key of keys)
    if (key.startsWith(MANIFESTS) && /^[0-9]{12}$/.test(key.slice(MANIFESTS.length)))
      if (newest === null || key > newest) newest = key;
  return newest;
}

export const manifestNumber = (key: string) => Number(key.slice(MANIFESTS.length));

/**
 * In which transactions a change goes to the store: pieces first, the manifest in the last one. Whoever sees the manifest
 * sees all that it names, wherever the owner died.
 */
export function batchesOf(
  pieces: ReadonlyMap<string, string>,
  manifest: readonly [key: string, text: string],
): ReadonlyMap<string, string>[] {
  const batches: Map<string, string>[] = [];
  let batch = new Map<string, string>();
  let length = 0;
  for (const [key, text] of [...pieces, manifest]) {
    if (batch.size > 0 && (length + text.length > BATCH_LENGTH_MAX || batch.size >= BATCH_KEYS_MAX)) {
      batches.push(batch);
      batch = new Map();
      length = 0;
    }
    batch.set(key, text);
    length += text.length;
  }
  return [...batches, batch];
}

/** What may be deleted when this manifest is in the store: every other one below it, and each piece that it does not name. */
export function garbageOf(keys: Iterable<string>, manifest: CheckpointManifest): string[] {
  const kept = new Set(manifest.entries.flatMap(({ pieces }) => pieces));
  const own = manifestKey(manifest.number);
  return [...keys].filter((key) =>
    key.startsWith(MANIFESTS) ? key < own : key.startsWith(PIECES) && !kept.has(key),
  );
}

/** Deletions in transactions of a size that every store takes. */
export function deletionsOf(keys: readonly string[]): ReadonlyMap<string, null>[] {
  const batches: Map<string, null>[] = [];
  for (let start = 0; start < keys.length; start += BATCH_KEYS_MAX)
    batches.push(new Map(keys.slice(start, start + BATCH_KEYS_MAX).map((key) => [key, null])));
  return batches;
}

/** What a node stored or laid down itself: of each file the hash of its content. */
export interface CheckpointRecord {
  readonly settled: readonly KnownContent[];
  /** Begun and perhaps finished. */
  readonly pending: readonly KnownContent[];
}

export interface KnownContent {
  readonly key: string;
  readonly sha256: string;
}

const known = listOf(
  closed<KnownContent>({
    key: textUpTo(8_192),
    sha256: textLike(/^[0-9a-f]{64}$/, "a SHA-256 in lower case hexadecimal"),
  }),
  100_000,
);

export const CHECKPOINT_RECORD = documentKind<CheckpointRecord>(
  "lockstep-checkpoint-record/1",
  closed<CheckpointRecord>({ settled: known, pending: known }),
);

import { promisify } from "node:util";
import { constants, zstdCompress, zstdDecompressSync } from "node:zlib";
import { LockstepError } from "@lockstep/protocol/wire";
import type { ReleaseEntry } from "./release-log.ts";

/**
 * All signed metadata that is new to somebody, in one answer.
 *
 * Asked for one by one, root, timestamp, snapshot, targets and the log of releases cost an update more bytes than what
 * changed, most of them headers and digits. So they travel together, as one zstd frame over a dictionary of what always
 * stands in them. It is a way to carry them and nothing else: each document is examined as if it had come by itself, and
 * what is missing here is fetched by its name.
 */
export interface MetadataChanges {
  /** Documents by their names; null: there is none of that name now. */
  readonly documents: ReadonlyMap<string, Uint8Array | null>;
  /** Entries of the log of releases, after the one that was asked for. */
  readonly entries: readonly ReleaseEntry[];
}

/** What somebody has who asks. */
export interface KnownMetadata {
  readonly root: number;
  readonly snapshot: number;
  readonly targets: number;
  readonly epoch: number;
  /** Entries of the log that were seen. */
  readonly log: number;
}

/** Small ones get all that the compressor can do: a thousand installations ask for them. */
const LEVELS = { small: 19, large: 3 };
const SMALL_BYTES_MAX = 64 * 1024;
/** Entries of the log that travel along; a longer gap is fetched page by page. */
export const CHANGES_ENTRIES_MAX = 256;
const compress = promisify(zstdCompress);
/** More than all documents together may have. */
const BYTES_MAX = 24 * 1024 * 1024;

/** Belongs to the format: whoever reads must have the same. */
const DICTIONARY = Buffer.from(
  '"expires":"2026-01-01T00:00:00Z","hashes":{"sha256":"}},"custom":{"files":,"bytes":' +
    '"roles":{"root":{"keyids":["keys":{"keytype":"ed25519","scheme":"ed25519","keyval":{"public":"' +
    '"targets":{"manifests/package/manifests/role/Server/manifests/role/Client":{"length":"Update.zip":{"length":' +
    '"lockstep":{"format":1,"revision":,"digest":"","createdAt":1795401891812,"packageClosure":{},"selectableRoles":["' +
    '"],"selectablePackages":[],"log":{"size":,"head":"}},"spec_version":"1.0.34","version":"expires":"20' +
    '{"documents":[["2.root.json",null],["timestamp.json","{\\"signatures\\":[{\\"keyid\\":\\"\\",\\"sig\\":\\"' +
    '\\"}],\\"signed\\":{\\"_type\\":\\"timestamp\\",\\"spec_version\\":\\"1.0.34\\",\\"version\\":' +
    ',\\"expires\\":\\"20T:Z\\",\\"meta\\":{\\"snapshot.json\\":{\\"version\\":,\\"length\\":,\\"hashes\\":{\\"sha256\\":\\"' +
    '\\"}}}}}\\n"],[".snapshot.json","{\\"signatures\\":[{\\"keyid\\":\\"\\",\\"sig\\":\\"\\"}],' +
    '\\"signed\\":{\\"_type\\":\\"snapshot\\",\\"meta\\":{\\"targets.json\\":{\\"version\\":,\\"length\\":,\\"hashes\\":{\\"sha256\\":\\"' +
    '\\"}}},\\"spec_version\\":\\"1.0.34\\",\\"version\\":,\\"expires\\":\\"2026-12-Z\\"}}\\n"],[".targets.json","' +
    '{\\"signatures\\":[{\\"keyid\\":\\"\\",\\"sig\\":\\"\\"}],\\"signed\\":{\\"_type\\":\\"targets\\",\\"spec_version\\":\\"1.0.34\\",' +
    '\\"version\\":,\\"expires\\":\\"2027-11-Z\\",\\"targets\\":{\\"manifests/role/Client\\":{\\"length\\":,\\"hashes\\":{\\"sha256\\":\\"' +
    '\\"},\\"custom\\":{\\"files\\":,\\"bytes\\":}},\\"Update.zip\\":{\\"length\\":,\\"hashes\\":{\\"sha256\\":\\"\\"}}},' +
    '\\"lockstep\\":{\\"format\\":1,\\"revision\\":,\\"digest\\":\\"\\",\\"createdAt\\":17,\\"packageClosure\\":{},' +
    '\\"selectableRoles\\":[\\"\\"],\\"selectablePackages\\":[],\\"log\\":{\\"size\\":,\\"head\\":\\"\\"}}}}\\n"]],' +
    '"entries":[{"index":,"revision":,"digest":""}]}',
);

/** The path and query that ask for what is new. */
export function changesPath(known: KnownMetadata): string {
  const { root, snapshot, targets, epoch, log } = known;
  return `changes?root=${root}&snapshot=${snapshot}&targets=${targets}&epoch=${epoch}&log=${log}`;
}

/** Writes the body of the answer. */
export async function packChanges({ documents, entries }: MetadataChanges): Promise<Buffer> {
  const listed = [...documents].map(([name, bytes]) => [
    name,
    bytes === null ? null : Buffer.from(bytes).toString("utf8"),
  ]);
  const text = Buffer.from(JSON.stringify({ documents: listed, entries }));
  const level = text.length <= SMALL_BYTES_MAX ? LEVELS.small : LEVELS.large;
  return await compress(text, {
    dictionary: DICTIONARY,
    params: { [constants.ZSTD_c_compressionLevel]: level },
  });
}

/** Reads it. Throws HUB_ANSWER_INVALID, whatever the bytes are. */
export function readChanges(bytes: Uint8Array): MetadataChanges {
  try {
    const text = zstdDecompressSync(bytes, { dictionary: DICTIONARY, maxOutputLength: BYTES_MAX });
    const { documents, entries } = JSON.parse(text.toString("utf8")) as Record<string, unknown>;
    if (!Array.isArray(documents) || !Array.isArray(entries)) throw new TypeError("no lists");
    return {
      documents: new Map(documents.map(readDocument)),
      entries: entries.filter((entry) => typeof entry === "object" && entry !== null),
    };
  } catch (cause) {
    throw new LockstepError("HUB_ANSWER_INVALID", "the hub's changes of signed metadata cannot be read", {
      expected: "a zstd frame with documents and entries",
      found: cause instanceof Error ? cause.message : "something else",
      hint: "The documents are fetched one by one instead.",
      cause,
    });
  }
}

function readDocument(value: unknown): [string, Uint8Array | null] {
  if (!Array.isArray(value)) throw new TypeError("no pair");
  const [name, text] = value as unknown[];
  if (typeof name !== "string" || (typeof text !== "string" && text !== null)) throw new TypeError("no pair");
  return [name, text === null ? null : Buffer.from(text)];
}

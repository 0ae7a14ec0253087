import {
  batchesOf,
  CHECKPOINT_KEYS,
  CHECKPOINT_MANIFEST,
  type CheckpointEntry,
  type CheckpointManifest,
  deletionsOf,
  findManifestProblem,
  garbageOf,
  MANIFEST_LENGTH_MAX,
  manifestKey,
  manifestNumber,
  newestManifestKey,
  PIECE_BYTES,
  pieceKey,
  type StoredEntry,
  showEntry,
} from "@lockstep/core";
import { LockstepError } from "@lockstep/protocol/wire";
import type { Coordination } from "../coordination/coordination.ts";
import { hashOf } from "./checkpoint-scan.ts";

/** Calls to the store at the same time while contents are fetched. */
const FETCHES_MAX = 6;

/**
 * The settings of one virtual server in the coordination store. One of these lives as long as its daemon: it remembers
 * which names it has given out, so that none is ever written twice, whatever became of a call.
 */
export class CheckpointStore {
  readonly #coordination: Coordination;
  readonly #server: string;
  readonly #node: string;
  /** The highest number that was seen or tried. */
  #number = 0;
  #pieces = 0;
  /** Contents that are certainly in the store and that nobody deletes: by hash, the keys of their pieces. */
  #stored = new Map<string, readonly string[]>();

  constructor(coordination: Coordination, server: string, node: string) {
    this.#coordination = coordination;
    this.#server = server;
    this.#node = node;
  }

  /**
   * The manifest that counts, or null. Under our own token nobody else can write meanwhile.
   * Throws CHECKPOINT_INVALID, COORDINATION_UNREACHABLE.
   */
  async read(): Promise<CheckpointManifest | null> {
    const found = await this.#coordination.readValues(this.#server, CHECKPOINT_KEYS.manifests);
    const key = newestManifestKey(found.keys());
    if (key === null) {
      this.#stored = new Map();
      return null;
    }
    this.#number = Math.max(this.#number, manifestNumber(key));
    const parsed = CHECKPOINT_MANIFEST.parse(found.get(key) ?? "");
    if (!parsed.ok)
      throw invalid(key, parsed.faults.map(({ at, problem }) => `${at}: ${problem}`).join("; "));
    const problem = findManifestProblem(parsed.value);
    if (problem !== null) throw invalid(key, problem);
    this.#stored = piecesOf(parsed.value);
    return parsed.value;
  }

  /** The number of the manifest that counts; 0: none. Costs little. */
  async readNumber(): Promise<number> {
    const key = newestManifestKey(
      await this.#coordination.readValueKeys(this.#server, CHECKPOINT_KEYS.manifests),
    );
    return key === null ? 0 : manifestNumber(key);
  }

  /** Contents by hash, verified. Throws CHECKPOINT_INVALID. */
  async fetch(entries: readonly StoredEntry[]): Promise<ReadonlyMap<string, Uint8Array>> {
    const contents = new Map<string, Uint8Array>();
    const waiting = [...new Map(entries.map((entry) => [entry.sha256, entry])).values()];
    const work = async () => {
      for (let entry = waiting.pop(); entry !== undefined; entry = waiting.pop())
        contents.set(entry.sha256, await this.#content(entry));
    };
    await Promise.all(Array.from({ length: FETCHES_MAX }, work));
    return contents;
  }

  async #content(entry: StoredEntry): Promise<Uint8Array> {
    const parts: Buffer[] = [];
    for (const key of entry.pieces) {
      const text = (await this.#coordination.readValues(this.#server, key)).get(key);
      if (text === undefined) throw invalid(showEntry(entry), `${key} is missing`);
      parts.push(Buffer.from(text, "base64"));
    }
    const bytes = Buffer.concat(parts);
    const found = hashOf(bytes);
    if (found === entry.sha256) return bytes;
    throw new LockstepError(
      "CHECKPOINT_INVALID",
      `the content of ${showEntry(entry)} in the store is damaged`,
      {
        expected: entry.sha256,
        found,
        hint: "docs/operating/cluster-settings.md says how to begin anew with the settings of one node.",
      },
    );
  }

  /** Whether a content is in the store already. */
  has(sha256: string): boolean {
    return this.#stored.has(sha256);
  }

  /**
   * Stores a set under the token: contents first, then the manifest, which is the moment at which it has happened. Null:
   * the fence refused it, somebody else is the owner. Throws CHECKPOINT_TOO_LARGE; COORDINATION_UNREACHABLE: it may have
   * happened, and writing again is right.
   */
  async write(
    token: number,
    roots: readonly string[],
    entries: readonly CheckpointEntry[],
    contentOf: (entry: CheckpointEntry) => Uint8Array,
  ): Promise<CheckpointManifest | null> {
    const values = new Map<string, string>();
    const fresh = new Map<string, readonly string[]>();
    const stored = entries.map((entry): StoredEntry => {
      if (entry.kind === "directory") return { ...entry, pieces: [] };
      let pieces = this.#stored.get(entry.sha256) ?? fresh.get(entry.sha256);
      if (pieces === undefined) {
        pieces = this.#cut(token, contentOf(entry), values);
        fresh.set(entry.sha256, pieces);
      }
      return { ...entry, pieces };
    });
    // A number of its own for every try: an earlier one may still arrive.
    this.#number += 1;
    const manifest = { number: this.#number, node: this.#node, token, roots, entries: stored };
    const text = CHECKPOINT_MANIFEST.format(manifest);
    if (text.length > MANIFEST_LENGTH_MAX)
      throw new LockstepError("CHECKPOINT_TOO_LARGE", "the list of a service's settings is too long", {
        expected: `at most ${MANIFEST_LENGTH_MAX} characters`,
        found: text.length,
      });
    for (const batch of batchesOf(values, [manifestKey(manifest.number), text]))
      if (!(await this.#coordination.writeGuarded(this.#server, token, batch))) return null;
    this.#stored = piecesOf(manifest);
    return manifest;
  }

  /** Deletes what no longer counts. Returns whether the fence let it. */
  async collect(token: number, manifest: CheckpointManifest): Promise<boolean> {
    const keys = await this.#coordination.readValueKeys(this.#server, CHECKPOINT_KEYS.all);
    for (const batch of deletionsOf(garbageOf(keys, manifest)))
      if (!(await this.#coordination.writeGuarded(this.#server, token, batch))) return false;
    return true;
  }

  #cut(token: number, bytes: Uint8Array, values: Map<string, string>): string[] {
    const keys: string[] = [];
    for (let start = 0; start < bytes.length; start += PIECE_BYTES) {
      this.#pieces += 1;
      const key = pieceKey(token, this.#pieces);
      values.set(key, Buffer.from(bytes.subarray(start, start + PIECE_BYTES)).toString("base64"));
      keys.push(key);
    }
    return keys;
  }
}

const piecesOf = ({ entries }: CheckpointManifest) =>
  new Map(entries.filter(({ kind }) => kind === "file").map(({ sha256, pieces }) => [sha256, pieces]));

function invalid(what: string, problem: string): LockstepError {
  return new LockstepError(
    "CHECKPOINT_INVALID",
    `the settings in the coordination store cannot be used: ${what}`,
    {
      found: problem.slice(0, 500),
      hint: "docs/operating/cluster-settings.md says how to begin anew with the settings of one node.",
    },
  );
}

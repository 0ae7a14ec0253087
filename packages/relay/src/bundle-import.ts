import { createReadStream } from "node:fs";
import { mkdir, open, rename, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { PassThrough } from "node:stream";
import type { Sha256 } from "@lockstep/core";
import { counted } from "@lockstep/core";
import { realDisk, silentLogger, systemClock } from "@lockstep/platform";
import {
  type ContentEvent,
  type ContentHeader,
  ContentStreamReader,
  parseManifest,
  type RevisionDocument,
} from "@lockstep/protocol/wire";
import type { ContentStore } from "@lockstep/store";
import {
  demandContinuation,
  EMPTY_LOG,
  epochOf,
  type KeptMetadata,
  MetadataCopy,
  MetadataStore,
  MirrorSource,
  type ReleaseEntry,
  TrustClient,
} from "@lockstep/trust";
import {
  asBundleFault,
  BUNDLE_LIMITS,
  type BundleHead,
  invalidBundle,
  readBundleHead,
} from "./bundle-format.ts";
import { CARRIED_FILE, type CarriedState } from "./carried.ts";
import { ObjectCache } from "./object-cache.ts";

/**
 * Takes a bundle into the directory of a relay, which then stands for the hub of a site without a network.
 *
 * First the signatures, from the pinned root and what was trusted before, exactly as an installation verifies them: a bundle
 * that is older, expired or signed by others ends here. Then each content, by its digest. When every manifest and all that
 * it lists is here, one file is replaced, and with it everything counts; until then nothing has changed but what a cache holds,
 * so that an import that broke off goes on.
 */
export interface ImportOptions {
  readonly file: string;
  /** Of the relay. */
  readonly directory: string;
  /** The root to pin where none is pinned; null: the first in the bundle, which is said. */
  readonly root: Uint8Array | null;
  /** What was trusted before; null: what stands in the directory. */
  readonly trusted?: KeptMetadata | null;
}

export interface Imported {
  readonly revision: number;
  readonly contents: number;
  /** Contents that were here already. */
  readonly known: number;
  /** Contents that installations must have, since the bundle is one from revisions that were named. */
  readonly leftOut: number;
  readonly expiresAt: number;
  readonly notices: readonly string[];
}

const IN_MEMORY_BYTES_MAX = 4 * 1024 * 1024;
const READ_BYTES = 1024 * 1024;
const UNBOUNDED = 2 ** 50;

/** Throws BUNDLE_INVALID, CONTENT_MISMATCH, TRUST_*, MANIFEST_INVALID, and what the file system throws. */
export async function importBundle(options: ImportOptions): Promise<Imported> {
  const directory = resolve(options.directory);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const own = new MetadataStore(realDisk, join(directory, "trust"));
  const cache = await ObjectCache.open(join(directory, "cache"), NOBODY, {
    clock: systemClock,
    log: silentLogger,
    stopping: new AbortController().signal,
    sizeBytesMax: UNBOUNDED,
  });
  const events = readEvents(options.file);
  const head = await readHead(events);
  const trusted = new MetadataCopy(options.trusted ?? own);
  const { document, expiresAt, notices } = await verifySigned(head, trusted, options.root);
  const known = await takeContents(events, head, cache.store);
  const leftOut = await demandWhole(document, head, cache.store);
  for (const { from, to, sha256, etag } of head.steps)
    await cache.remember(`/v1/steps/${from}/${to}`, sha256, etag);
  await trusted.keepIn(own);
  const { revision, semaphore, documents, log } = head;
  await replaceState(directory, { format: "lockstep-carried/1", revision, semaphore, documents, log });
  return { revision, contents: head.contents.length, known, leftOut, expiresAt, notices };
}

const NOBODY = {
  send: () => Promise.reject(new Error("nobody is asked")),
  read: () => Promise.reject(new Error("nobody is asked")),
  async *chunks(): AsyncGenerator<Buffer, void> {
    // Nothing comes.
  },
};

async function* readEvents(file: string): AsyncGenerator<ContentEvent, void> {
  const reader = new ContentStreamReader(BUNDLE_LIMITS);
  try {
    const chunks = createReadStream(file, { highWaterMark: READ_BYTES }) as AsyncIterable<Buffer>;
    for await (const chunk of chunks) yield* reader.push(chunk);
  } catch (error) {
    throw asBundleFault(error);
  }
  if (!reader.complete) throw invalidBundle("it is cut off");
}

async function readHead(events: AsyncGenerator<ContentEvent, void>): Promise<BundleHead> {
  const first = await events.next();
  if (first.done === true || first.value.kind !== "document") throw invalidBundle("it has no head");
  return readBundleHead(first.value.value);
}

async function verifySigned(
  head: BundleHead,
  trusted: KeptMetadata,
  root: Uint8Array | null,
): Promise<{ document: RevisionDocument; expiresAt: number; notices: string[] }> {
  const bytesOf = (name: string) => {
    const text = Object.hasOwn(head.documents, name) ? head.documents[name] : undefined;
    return text === undefined ? null : Buffer.from(text, "base64");
  };
  const source = new MirrorSource(
    [
      {
        name: "the bundle",
        open: async (name) => {
          const bytes = bytesOf(name);
          return bytes === null ? null : { offset: 0, chunks: once(bytes) };
        },
      },
    ],
    systemClock,
  );
  const notices: string[] = [];
  if (trusted.read("root") === null) {
    const pinned = root ?? newestRoot(head, bytesOf);
    if (pinned === null) throw invalidBundle("it holds no root of trust");
    if (root === null) notices.push("the root of trust was taken from the bundle at first sight; compare it");
    await TrustClient.pin(trusted, pinned);
  }
  const trust = await TrustClient.open(trusted, systemClock);
  await trust.refresh(source);
  const { document, log } = trust.currentRevision();
  if (document.number !== head.revision) throw invalidBundle("it announces another revision than is signed");
  // The entries prove themselves; an installation needs them to see that history went on.
  if (head.log.epoch !== epochOf(trust.root)) throw invalidBundle("its log of releases is of another epoch");
  demandContinuation(EMPTY_LOG, log, head.log.entries as readonly ReleaseEntry[]);
  return { document, expiresAt: Date.parse(trust.timestamp?.expires ?? ""), notices };
}

function newestRoot(head: BundleHead, bytesOf: (name: string) => Buffer | null): Buffer | null {
  const numbers = Object.keys(head.documents)
    .map((name) => Number(/^(\d+)\.root\.json$/.exec(name)?.[1] ?? Number.NaN))
    .filter(Number.isSafeInteger);
  return numbers.length === 0 ? null : bytesOf(`${Math.max(...numbers)}.root.json`);
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array, void> {
  yield bytes;
}

/** Takes what is not here yet into the store, each by its digest. Returns how many were here. */
async function takeContents(
  events: AsyncGenerator<ContentEvent, void>,
  head: BundleHead,
  store: ContentStore,
): Promise<number> {
  let number = 0;
  let known = 0;
  let taking: Taking | null = null;
  for await (const event of events) {
    if (event.kind === "content") {
      if (event.header.sha256 !== head.contents[number])
        throw invalidBundle("another content than its head says");
      number++;
      const here = await store.has(event.header);
      if (here) known++;
      taking = here ? null : new Taking(store, event.header);
    } else if (event.kind === "bytes") await taking?.add(event.bytes);
    else if (event.kind === "content-end") {
      await taking?.end();
      taking = null;
    }
  }
  if (number !== head.contents.length)
    throw invalidBundle(`${number} of ${counted(head.contents.length, "content")}`);
  return known;
}

/** One content on its way into the store: a small one in memory, a large one as a stream. */
class Taking {
  readonly #store: ContentStore;
  readonly #header: ContentHeader;
  readonly #pieces: Buffer[] = [];
  readonly #pipe: PassThrough | null;
  readonly #writing: Promise<void> | null;

  constructor(store: ContentStore, header: ContentHeader) {
    this.#store = store;
    this.#header = header;
    this.#pipe = header.stored > IN_MEMORY_BYTES_MAX ? new PassThrough({ highWaterMark: READ_BYTES }) : null;
    this.#writing = this.#pipe === null ? null : store.write(header, this.#pipe);
    this.#writing?.catch((error: unknown) => this.#pipe?.destroy(error instanceof Error ? error : undefined));
  }

  async add(bytes: Uint8Array): Promise<void> {
    const piece = Buffer.from(bytes);
    if (this.#pipe === null) this.#pieces.push(piece);
    else if (!this.#pipe.write(piece))
      await Promise.race([
        new Promise<void>((done) => this.#pipe?.once("drain", done)),
        this.#writing ?? Promise.resolve(),
      ]);
  }

  async end(): Promise<void> {
    if (this.#pipe === null) return await this.#store.put(this.#header, Buffer.concat(this.#pieces));
    this.#pipe.end();
    await this.#writing;
  }
}

/** Demands that all manifests are here, and all that they list, save what was left out on purpose. */
async function demandWhole(
  document: RevisionDocument,
  head: BundleHead,
  store: ContentStore,
): Promise<number> {
  const missing = new Set<Sha256>();
  const has = async (sha256: Sha256) =>
    (await store.has({ sha256, size: null, encoding: "zstd" })) ||
    (await store.has({ sha256, size: null, encoding: "identity" }));
  for (const { sha256, target } of document.manifests) {
    const text = await readText(store, sha256);
    if (text === null) throw invalidBundle(`the manifest of ${target} is missing`);
    for (const entry of parseManifest(text).entries)
      if (!missing.has(entry.sha256) && !(await has(entry.sha256))) missing.add(entry.sha256);
  }
  const archive = document.updateArchive;
  if (archive !== null && !(await has(archive.sha256))) throw invalidBundle("Update.zip is missing");
  if (missing.size > 0 && head.from.length === 0)
    throw invalidBundle(`${counted(missing.size, "content is", "contents are")} missing`);
  return missing.size;
}

async function readText(store: ContentStore, sha256: Sha256): Promise<string | null> {
  const plain = await store.read({ sha256, size: null, encoding: "identity" });
  if (plain !== null) return plain.toString("utf8");
  const packed = await store.read({ sha256, size: null, encoding: "zstd" });
  if (packed === null) return null;
  const { zstdDecompressSync } = await import("node:zlib");
  return zstdDecompressSync(packed).toString("utf8");
}

async function replaceState(directory: string, state: CarriedState): Promise<void> {
  const path = join(directory, CARRIED_FILE);
  await writeFile(`${path}.new`, JSON.stringify(state), { mode: 0o600, flush: true });
  await rename(`${path}.new`, path);
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

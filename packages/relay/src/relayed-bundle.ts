import type { Sha256 } from "@lockstep/core";
import {
  CONTENT_STREAM_TYPE,
  type ContentHeader,
  ContentStreamReader,
  encodeContentHeader,
  encodeEnd,
  encodeMagic,
  LockstepError,
} from "@lockstep/protocol/wire";
import type { ContentStore, OpenContent } from "@lockstep/store";
import type { Upstream } from "./upstream.ts";

/**
 * Many contents in one answer, out of the cache: only what is missing is asked of the hub, as one bundle, and what a
 * neighbour's bundle brings already is waited for. Each content is kept as soon as it is whole and verified, so a bundle
 * that is cut is no loss, and two neighbours with different lists share what they have in common.
 */
const ASK_AT_ONCE = 4_096;
const IN_MEMORY_BYTES_MAX = 4 * 1024 * 1024;
const WRITES_AT_ONCE = 8;
const JOINED_BYTES = 256 * 1024;
const READ_BYTES = 128 * 1024;

export class RelayedBundles {
  readonly #hub: Upstream;
  readonly #store: ContentStore;
  readonly #coming = new Map<Sha256, Promise<void>>();
  readonly #stopping: AbortSignal;

  constructor(hub: Upstream, store: ContentStore, stopping: AbortSignal) {
    this.#hub = hub;
    this.#store = store;
    this.#stopping = stopping;
  }

  /**
   * Makes ready what is asked for: asks the hub for what is neither here nor coming. Returns how many that were, when the
   * hub has begun to answer; throws what it says instead.
   */
  async prepare(wanted: readonly Sha256[], authorization: string | undefined): Promise<number> {
    const missing: Sha256[] = [];
    for (const sha256 of wanted)
      if (!this.#coming.has(sha256) && !(await this.#isHere(sha256))) missing.push(sha256);
    for (let at = 0; at < missing.length; at += ASK_AT_ONCE) {
      const part = missing.slice(at, at + ASK_AT_ONCE).filter((sha256) => !this.#coming.has(sha256));
      if (part.length > 0) await this.#ask(part, authorization);
    }
    return missing.length;
  }

  /** The content stream, in the order asked for. Throws what kept a content from coming. */
  async *stream(
    wanted: readonly Sha256[],
    authorization: string | undefined,
  ): AsyncGenerator<Uint8Array, void> {
    let joined: Uint8Array[] = [encodeMagic()];
    let length = 0;
    for (const sha256 of wanted) {
      const { header, content } = await this.#open(sha256, authorization);
      try {
        joined.push(encodeContentHeader(header));
        for (let at = 0; at < header.stored; ) {
          const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, header.stored - at));
          const { bytesRead } = await content.file.read(buffer, 0, buffer.length, at);
          if (bytesRead === 0) throw vanished(sha256);
          at += bytesRead;
          joined.push(buffer.subarray(0, bytesRead));
          length += bytesRead;
          if (length < JOINED_BYTES) continue;
          yield Buffer.concat(joined);
          joined = [];
          length = 0;
        }
      } finally {
        await content.file.close();
      }
    }
    joined.push(encodeEnd(wanted.length));
    yield Buffer.concat(joined);
  }

  async #open(
    sha256: Sha256,
    authorization: string | undefined,
  ): Promise<{ header: ContentHeader; content: OpenContent }> {
    for (let attempt = 0; attempt < 3; attempt++) {
      await this.#coming.get(sha256);
      for (const encoding of ["zstd", "identity"] as const) {
        const content = await this.#store.openMeasured({ sha256, size: null, encoding });
        if (content === null) continue;
        const { size, stored } = content;
        return { header: { sha256, encoding, size, stored }, content };
      }
      // It was damaged, or had to make room.
      if (!this.#coming.has(sha256)) await this.#ask([sha256], authorization);
    }
    throw vanished(sha256);
  }

  async #isHere(sha256: Sha256): Promise<boolean> {
    for (const encoding of ["zstd", "identity"] as const)
      if (await this.#store.has({ sha256, size: null, encoding })) return true;
    return false;
  }

  /** Returns when the answer has begun; what comes of each content shows in `#coming`. */
  async #ask(part: readonly Sha256[], authorization: string | undefined): Promise<void> {
    const arrivals = new Map(part.map((sha256) => [sha256, Promise.withResolvers<void>()]));
    for (const [sha256, { promise }] of arrivals) {
      promise.catch(() => {});
      this.#coming.set(sha256, promise);
    }
    const fail = (error: unknown) => {
      for (const [sha256, { reject }] of arrivals) {
        this.#coming.delete(sha256);
        reject(error);
      }
    };
    try {
      const response = await this.#hub.send({
        method: "POST",
        path: "/v1/bundle",
        body: JSON.stringify({ sha256: part }),
        repeatable: true,
        headers: {
          accept: CONTENT_STREAM_TYPE,
          ...(authorization === undefined ? {} : { authorization }),
        },
        signal: this.#stopping,
      });
      const landed = (sha256: Sha256) => {
        this.#coming.delete(sha256);
        arrivals.get(sha256)?.resolve();
        arrivals.delete(sha256);
      };
      void this.#receive(this.#hub.chunks(response, this.#stopping), arrivals, landed).then(
        () => fail(incomplete(arrivals.size)),
        fail,
      );
    } catch (error) {
      fail(error);
      throw error;
    }
  }

  async #receive(
    chunks: AsyncIterable<Uint8Array>,
    expected: ReadonlyMap<Sha256, unknown>,
    landed: (sha256: Sha256) => void,
  ): Promise<void> {
    const reader = new ContentStreamReader({
      documentBytesMax: 64 * 1024,
      contentBytesMax: IN_MEMORY_BYTES_MAX,
    });
    const writing = new Set<Promise<void>>();
    let failure: { readonly error: unknown } | null = null;
    let bytes = Buffer.alloc(0);
    let filled = 0;
    for await (const chunk of chunks)
      for (const event of reader.push(chunk)) {
        if (event.kind === "content") {
          if (!expected.has(event.header.sha256)) throw unasked(event.header.sha256);
          bytes = Buffer.allocUnsafe(event.header.stored);
          filled = 0;
        } else if (event.kind === "bytes") {
          bytes.set(event.bytes, filled);
          filled += event.bytes.length;
        } else if (event.kind === "content-end") {
          const { sha256, size, encoding } = event.header;
          const write = this.#store.put({ sha256, size, encoding }, bytes).then(
            () => landed(sha256),
            (error: unknown) => {
              failure ??= { error };
            },
          );
          writing.add(write);
          void write.finally(() => writing.delete(write));
          if (writing.size >= WRITES_AT_ONCE) await Promise.race(writing);
        }
        if (failure !== null) throw (failure as { readonly error: unknown }).error;
      }
    await Promise.all(writing);
    if (failure !== null) throw (failure as { readonly error: unknown }).error;
  }
}

function incomplete(missing: number): LockstepError {
  return new LockstepError("HUB_UNREACHABLE", "the hub's bundle ended before everything had come", {
    expected: `${missing} more contents`,
    found: "the end",
    hint: "Ask again: what has come is kept.",
  });
}

function unasked(sha256: Sha256): LockstepError {
  return new LockstepError("HUB_ANSWER_INVALID", "the hub sent a content that was not asked for", {
    found: sha256,
  });
}

function vanished(sha256: Sha256): LockstepError {
  return new LockstepError("RELAY_CACHE_FAILED", `content ${sha256} does not stay in the cache`, {
    found: sha256,
    hint: "Give the relay a larger cache, or look at its disk.",
  });
}

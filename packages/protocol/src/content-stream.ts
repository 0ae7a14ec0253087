import type { Sha256 } from "@lockstep/core";
import { LockstepError } from "./errors.ts";
import { GrowingBytes } from "./growing-bytes.ts";
import { parseBoundedJson } from "./json-shape.ts";

/**
 * Many file contents in one body: what `POST /v1/bundle` answers and what `POST /v1/loads` takes.
 *
 *   stream  := magic frame* end
 *   magic   := "LSCONT01"                                            8 bytes
 *   frame   := 0x01 sha256[32] encoding[1] size[8] stored[8] byte*   a content; `stored` bytes follow
 *            | 0x02 length[4] byte*                                  a JSON document in UTF-8
 *   end     := 0x00 contents[4]                                      how many contents there were
 *
 * Numbers are unsigned and big-endian. `encoding` 0 is identity, 1 one zstd frame; `size` is the length in bytes of
 * the decoded content, `sha256` its digest. A stream without its end was cut: what came whole before the cut is good.
 */
export const CONTENT_STREAM_TYPE = "application/vnd.lockstep.content-stream";

export type ContentEncoding = "identity" | "zstd";

export interface ContentHeader {
  readonly sha256: Sha256;
  readonly encoding: ContentEncoding;
  /** Decoded length in bytes. */
  readonly size: number;
  /** Length in bytes as it travels. */
  readonly stored: number;
}

export type ContentEvent =
  | { readonly kind: "document"; readonly value: unknown }
  | { readonly kind: "content"; readonly header: ContentHeader }
  /** The next bytes of the content announced last. They point into the pushed chunk: use or copy them at once. */
  | { readonly kind: "bytes"; readonly bytes: Uint8Array }
  | { readonly kind: "content-end"; readonly header: ContentHeader }
  | { readonly kind: "end" };

const MAGIC = "LSCONT01";
const FRAME_END = 0;
const FRAME_CONTENT = 1;
const FRAME_DOCUMENT = 2;
/** Length of what stands before the bytes of a content. */
export const CONTENT_HEADER_BYTES = 1 + 32 + 1 + 8 + 8;
const ENCODINGS: readonly ContentEncoding[] = ["identity", "zstd"];

const utf8 = new TextEncoder();

/** The first bytes of a stream. */
export function encodeMagic(): Uint8Array {
  return utf8.encode(MAGIC);
}

/** A JSON document as a frame. */
export function encodeDocument(value: unknown): Uint8Array {
  const text = JSON.stringify(value);
  // Written once, into room for the worst: what is not touched of it costs nothing.
  const frame = new Uint8Array(5 + 3 * text.length);
  const { written } = utf8.encodeInto(text, frame.subarray(5));
  frame[0] = FRAME_DOCUMENT;
  new DataView(frame.buffer).setUint32(1, written);
  return frame.subarray(0, 5 + written);
}

/** What stands before the bytes of a content. */
export function encodeContentHeader(header: ContentHeader): Uint8Array {
  const frame = new Uint8Array(CONTENT_HEADER_BYTES);
  const view = new DataView(frame.buffer);
  frame[0] = FRAME_CONTENT;
  for (let i = 0; i < 32; i++) frame[1 + i] = Number.parseInt(header.sha256.slice(2 * i, 2 * i + 2), 16);
  frame[33] = ENCODINGS.indexOf(header.encoding);
  view.setBigUint64(34, BigInt(header.size));
  view.setBigUint64(42, BigInt(header.stored));
  return frame;
}

/** The last bytes of a stream. */
export function encodeEnd(contents: number): Uint8Array {
  const frame = new Uint8Array(5);
  frame[0] = FRAME_END;
  new DataView(frame.buffer).setUint32(1, contents);
  return frame;
}

export interface ContentStreamLimits {
  /** Longest JSON document accepted, in bytes. */
  readonly documentBytesMax: number;
  /** Largest content accepted, in bytes, decoded or stored. */
  readonly contentBytesMax: number;
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/**
 * Takes a stream apart as it arrives. Pure: bytes in, events out; keeps at most one header or document in memory.
 * `push` throws REQUEST_INVALID for anything that is not such a stream, CONTENT_TOO_LARGE beyond the limits.
 */
export class ContentStreamReader {
  readonly #limits: ContentStreamLimits;
  /** What is there of the header or document that is awaited. */
  readonly #pending = new GrowingBytes();
  #need = MAGIC.length;
  #expecting:
    | "magic"
    | "frame"
    | "content-header"
    | "document-length"
    | "document"
    | "bytes"
    | "end"
    | "nothing" = "magic";
  #header: ContentHeader | null = null;
  #left = 0;
  #contents = 0;

  constructor(limits: ContentStreamLimits) {
    this.#limits = limits;
  }

  /** Whether the end of the stream was seen. False after the last chunk means that the stream was cut. */
  get complete(): boolean {
    return this.#expecting === "nothing";
  }

  *push(chunk: Uint8Array): Generator<ContentEvent, void> {
    let rest = chunk;
    while (true) {
      if (this.#expecting === "bytes") {
        if (this.#left > 0) {
          if (rest.length === 0) return;
          const bytes = rest.subarray(0, Math.min(this.#left, rest.length));
          rest = rest.subarray(bytes.length);
          this.#left -= bytes.length;
          yield { kind: "bytes", bytes };
        }
        if (this.#left === 0) {
          const header = this.#header;
          if (header === null) throw malformed("bytes without a header");
          this.#expect("frame", 1);
          yield { kind: "content-end", header };
        }
        continue;
      }
      if (this.#expecting === "nothing") {
        if (rest.length > 0) throw malformed("bytes after its end");
        return;
      }
      const missing = this.#need - this.#pending.length;
      if (rest.length < missing) {
        // A copy: the chunk may be used again for other bytes once push has returned.
        if (rest.length > 0) this.#pending.add(rest);
        return;
      }
      let piece = rest.subarray(0, missing);
      if (this.#pending.length > 0) {
        this.#pending.add(piece);
        piece = this.#pending.take();
      }
      rest = rest.subarray(missing);
      const event = this.#take(piece);
      if (event !== null) yield event;
    }
  }

  #expect(what: "frame" | "content-header" | "document-length" | "document" | "end", need: number): void {
    this.#expecting = what;
    this.#need = need;
  }

  #take(piece: Uint8Array): ContentEvent | null {
    const view = new DataView(piece.buffer, piece.byteOffset, piece.length);
    switch (this.#expecting) {
      case "magic":
        if (new TextDecoder().decode(piece) !== MAGIC) throw malformed("it does not begin with LSCONT01");
        this.#expect("frame", 1);
        return null;
      case "frame":
        if (piece[0] === FRAME_CONTENT) this.#expect("content-header", CONTENT_HEADER_BYTES - 1);
        else if (piece[0] === FRAME_DOCUMENT) this.#expect("document-length", 4);
        else if (piece[0] === FRAME_END) this.#expect("end", 4);
        else throw malformed(`a frame of kind ${piece[0]}`);
        return null;
      case "content-header":
        return this.#takeHeader(piece, view);
      case "document-length": {
        const length = view.getUint32(0);
        if (length > this.#limits.documentBytesMax) throw tooLarge(this.#limits.documentBytesMax, length);
        this.#expect("document", length);
        return null;
      }
      case "document":
        this.#expect("frame", 1);
        return { kind: "document", value: parseBoundedJson(piece, "a document of the content stream") };
      case "end":
        if (view.getUint32(0) !== this.#contents) throw malformed("the count of contents at its end");
        this.#expecting = "nothing";
        return { kind: "end" };
      default:
        throw malformed("an impossible state");
    }
  }

  #takeHeader(piece: Uint8Array, view: DataView): ContentEvent {
    let sha256 = "";
    for (let i = 0; i < 32; i++) sha256 += HEX[piece[i] ?? 0];
    const encoding = ENCODINGS[piece[32] ?? -1];
    if (encoding === undefined) throw malformed(`encoding ${piece[32]}`);
    const size = Number(view.getBigUint64(33));
    const stored = Number(view.getBigUint64(41));
    if (!(size <= this.#limits.contentBytesMax)) throw tooLarge(this.#limits.contentBytesMax, size);
    if (!(stored <= this.#limits.contentBytesMax)) throw tooLarge(this.#limits.contentBytesMax, stored);
    if (encoding === "identity" && stored !== size) throw malformed("an identity content of another length");
    this.#header = { sha256, encoding, size, stored };
    this.#left = stored;
    this.#contents++;
    this.#expecting = "bytes";
    return { kind: "content", header: this.#header };
  }
}

function malformed(problem: string): LockstepError {
  return new LockstepError("REQUEST_INVALID", `not a content stream: ${problem}`);
}

function tooLarge(max: number, found: number): LockstepError {
  return new LockstepError("CONTENT_TOO_LARGE", "a part of the content stream is larger than allowed", {
    expected: max,
    found,
    hint: "Raise the hub's limit, or split the file.",
  });
}

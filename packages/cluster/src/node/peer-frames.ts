import type { LeaseEvent } from "@lockstep/core";

/**
 * What daemons tell each other: JSON with its length before it. Who sends anything else is no daemon of ours, and its
 * connection is ended.
 */
export type PeerMessage =
  /** Failsafe: an owner without a store asks, another node agrees. */
  | { readonly kind: "lease"; readonly server: string; readonly event: PeerLeaseEvent }
  /** Who are you, and what does your clock say? */
  | { readonly kind: "hello"; readonly call: number }
  | { readonly kind: "hello-answer"; readonly call: number; readonly answer: PeerAnswer };

export type PeerLeaseEvent = Extract<LeaseEvent, { readonly kind: "asked" | "agreed" }>;

export interface PeerAnswer {
  readonly node: string;
  readonly instance: string;
  readonly version: string;
  /** Milliseconds of the clock by which leases are counted there; means nothing here but by its rate. */
  readonly monotonicMs: number;
  /** Wall-clock milliseconds. */
  readonly wallMs: number;
}

export const FRAME_BYTES_MAX = 16 * 1024;
const HEAD_BYTES = 4;

export function formatFrame(message: PeerMessage): Buffer {
  const body = Buffer.from(JSON.stringify(message), "utf8");
  if (body.length > FRAME_BYTES_MAX) throw new RangeError(`a message of ${body.length} bytes`);
  const frame = Buffer.allocUnsafe(HEAD_BYTES + body.length);
  frame.writeUInt32BE(body.length);
  body.copy(frame, HEAD_BYTES);
  return frame;
}

/** Takes a stream of bytes apart. Throws what is wrong with it; nothing may be read from it after that. */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0);

  read(chunk: Buffer): PeerMessage[] {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const messages: PeerMessage[] = [];
    while (this.#rest.length >= HEAD_BYTES) {
      const length = this.#rest.readUInt32BE();
      if (length > FRAME_BYTES_MAX) throw new Error(`it announces a message of ${length} bytes`);
      if (this.#rest.length < HEAD_BYTES + length) break;
      messages.push(parseMessage(this.#rest.subarray(HEAD_BYTES, HEAD_BYTES + length)));
      this.#rest = this.#rest.subarray(HEAD_BYTES + length);
    }
    return messages;
  }
}

function parseMessage(bytes: Buffer): PeerMessage {
  const message: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  if (isObject(message)) {
    const { kind, server, event, call, answer } = message;
    if (kind === "lease" && isName(server) && isLeaseEvent(event)) return { kind, server, event };
    if (kind === "hello" && isCount(call)) return { kind, call };
    if (kind === "hello-answer" && isCount(call) && isAnswer(answer)) return { kind, call, answer };
  }
  throw new Error("it sends a message of no known kind");
}

function isLeaseEvent(value: unknown): value is PeerLeaseEvent {
  if (!isObject(value)) return false;
  const { kind, member, token, round } = value;
  return (kind === "asked" || kind === "agreed") && isName(member) && isCount(token) && isCount(round);
}

function isAnswer(value: unknown): value is PeerAnswer {
  if (!isObject(value)) return false;
  const { node, instance, version, monotonicMs, wallMs } = value;
  return isName(node) && isName(instance) && isName(version) && isTime(monotonicMs) && isTime(wallMs);
}

const NAME_MAX = 200;
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const isName = (value: unknown): value is string => typeof value === "string" && value.length <= NAME_MAX;
const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && Number(value) >= 0;
const isTime = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value);

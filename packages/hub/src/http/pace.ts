import type { Socket } from "node:net";
import type { Clock, Logger } from "@lockstep/platform";
import type { FastifyReply, FastifyRequest } from "fastify";

/**
 * The lowest rate at which an answer must be taken.
 *
 * An answer that is not read costs its buffers and its place at a gate, and whoever reads a few bytes now and then is
 * never silent, so a time limit for silence does not end him. Therefore each long answer is looked at in windows of
 * time: when bytes waited for the reader and it took fewer than `bytesMin` of them in a whole window, its connection is
 * cut. Contents can be fetched on from where they broke off, so an honest reader on a bad line loses nothing but the
 * connection. A hub that itself is slow (nothing waits to be sent) or stands still cuts nobody.
 *
 * What counts as taken is what the machine's network buffers took. They hold up to some megabytes and empty in leaps,
 * so a window must be long and the rate low: this is no means to favour fast readers.
 */
export interface Pace {
  readonly windowMs: number;
  /** Fewest bytes taken in a window, where that many waited. */
  readonly bytesMin: number;
}

export const DEFAULT_PACE: Pace = { windowMs: 30_000, bytesMin: 256 * 1024 };

/**
 * A window is waited for in this many parts. However long the hub stood still, one part alone is over when it goes on, and
 * in the others what the reader takes is counted again.
 */
const PARTS = 10;

/** An answer whose text is shorter fits into the buffers of a connection. */
const SHORT_CHARACTERS = 256 * 1024;

type Connection = Pick<Socket, "bytesWritten" | "writableLength" | "destroyed">;

/** Whether a reader took too little since `before`: bytes wait for it, and it took fewer than it must. */
export function isTooSlow(before: number, connection: Connection, pace: Pace): boolean {
  const { bytesWritten, writableLength } = connection;
  // What Node calls written includes what it still holds back.
  return writableLength > 0 && bytesWritten - writableLength - before < pace.bytesMin;
}

/** Whether an answer is long enough to be looked at. */
export function needsPace(payload: unknown): boolean {
  if (typeof payload === "string") return payload.length > SHORT_CHARACTERS;
  if (payload instanceof Uint8Array) return payload.length > SHORT_CHARACTERS;
  return payload !== null && typeof payload === "object";
}

/** Watches an answer from now to its end and cuts the connection of a reader that is too slow. */
export function keepPace(
  request: FastifyRequest,
  reply: FastifyReply,
  { pace, clock, log }: { readonly pace: Pace; readonly clock: Clock; readonly log: Logger },
): void {
  // Not the request's: that one lets go of its socket as soon as its body has been read.
  const { socket } = reply.raw;
  if (socket === null) return;
  const ended = new AbortController();
  const end = () => ended.abort();
  reply.raw.once("close", end);
  const watch = async () => {
    while (!ended.signal.aborted && !socket.destroyed) {
      const before = socket.bytesWritten - socket.writableLength;
      for (let part = 0; part < PARTS && !ended.signal.aborted; part++)
        await clock.sleep(pace.windowMs / PARTS, ended.signal);
      if (ended.signal.aborted || !isTooSlow(before, socket, pace)) continue;
      log.warn("cut an answer whose reader was too slow", {
        path: request.url.split("?", 1)[0] ?? "",
        from: request.from,
        bytes: socket.bytesWritten - socket.writableLength - before,
        bytesMin: pace.bytesMin,
        windowMs: pace.windowMs,
      });
      socket.destroy();
    }
  };
  void watch();
}

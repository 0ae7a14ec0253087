import type { Clock } from "@lockstep/platform";
import type { FastifyReply, FastifyRequest } from "fastify";

/**
 * An answer that comes before its request has been read.
 *
 * Closing the connection then makes the system throw away what the client has sent meanwhile, and tell the client so by
 * a reset, which also throws away the answer that it has not read yet: it learns of a broken connection instead of what
 * was wrong. So the rest of the request is read and thrown away for a moment, in which the client reads the answer and
 * stops; one that sends on is cut.
 */
const LINGER_MS = 2_000;

/** Call before such an answer is sent. */
export function lingerAfter(request: FastifyRequest, reply: FastifyReply, clock: Clock): void {
  // Node closes at once after an answer that says so.
  void reply.removeHeader("connection");
  reply.raw.shouldKeepAlive = true;
  const { socket } = reply.raw;
  if (socket === null) return;
  const closed = new AbortController();
  socket.once("close", () => closed.abort());
  reply.raw.once("finish", async () => {
    // Whoever read the body may have paused the connection when he left.
    socket.resume();
    await clock.sleep(LINGER_MS, closed.signal);
    if (!request.raw.complete) socket.destroy();
  });
}

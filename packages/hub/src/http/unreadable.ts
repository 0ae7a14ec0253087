import { STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import { LockstepError, toErrorBody } from "@lockstep/protocol";
import type { FastifyError, FastifyReply } from "fastify";

/**
 * Requests that never reach a route, because their address or their head cannot be read. HTTP has statuses of its own
 * for them; the body is ours like everywhere else, so that a client needs to know one form only.
 */

/** For what node could not parse: the connection has no request yet, so the answer is written by hand. */
export function answerUnreadable(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === "ECONNRESET" || socket.destroyed) return;
  if (socket.writable) {
    const status = statusOfClientError(error.code);
    const body = JSON.stringify(toErrorBody(unreadable(error.code ?? error.message)));
    const head = [
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
      "content-type: application/json; charset=utf-8",
      `content-length: ${Buffer.byteLength(body)}`,
      "cache-control: no-store",
      "connection: close",
    ];
    socket.end(`${head.join("\r\n")}\r\n\r\n${body}`);
  }
  socket.destroySoon();
}

/** For an address that the router cannot take apart. */
export function sendUnroutable(error: FastifyError, reply: FastifyReply): void {
  const status = error.code === "FST_ERR_MAX_PARAM_LENGTH" ? 414 : 400;
  void reply
    .code(status)
    .header("content-type", "application/json; charset=utf-8")
    .header("cache-control", "no-store")
    .send(JSON.stringify(toErrorBody(unreadable(error.message))));
}

function statusOfClientError(code: string | undefined): number {
  if (code === "HPE_HEADER_OVERFLOW") return 431;
  return code === "ERR_HTTP_REQUEST_TIMEOUT" ? 408 : 400;
}

function unreadable(found: string): LockstepError {
  return new LockstepError("REQUEST_INVALID", "the head of the request cannot be read", {
    expected: "HTTP/1.1, an address in UTF-8, and a head of 16 KiB at most",
    found,
  });
}

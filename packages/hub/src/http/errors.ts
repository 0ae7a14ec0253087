import type { Clock } from "@lockstep/platform";
import { ERRORS, isLockstepError, LockstepError, toErrorBody } from "@lockstep/protocol";
import type { FastifyError, FastifyReply, FastifyRequest } from "fastify";
import { sqlState, toDatabaseError } from "../db/connect.ts";
import { lingerAfter } from "./linger.ts";

/** Seconds that a client should wait where nobody knows better. */
const RETRY_AFTER_SECONDS = 5;

/** A number out of range; a zero byte in a text, or in JSON; half a character in JSON. */
const UNSTORABLE: ReadonlySet<string> = new Set(["22003", "22021", "22P02", "22P05"]);

/** Gives whatever a handler threw its code; what nobody foresaw becomes HUB_INTERNAL and keeps its cause for the log. */
export function toHubError(error: unknown): LockstepError {
  const known = toDatabaseError(error);
  if (known instanceof LockstepError) return known;
  const code = (known as Partial<FastifyError> | null)?.code;
  if (typeof code === "string" && code.startsWith("FST_ERR_CTP"))
    return new LockstepError("REQUEST_INVALID", "the body of the request cannot be read", {
      found: (known as Error).message,
      hint: "Send JSON as application/json; a load is sent as a content stream.",
      cause: error,
    });
  if (known instanceof SyntaxError || (known as { statusCode?: unknown } | null)?.statusCode === 400)
    return new LockstepError("REQUEST_INVALID", "the request cannot be read", {
      found: (known as Error).message,
      cause: error,
    });
  if (UNSTORABLE.has(sqlState(known) ?? ""))
    return new LockstepError("REQUEST_INVALID", "the database cannot store a value of the request", {
      found: (known as Error).message,
      cause: error,
    });
  return new LockstepError("HUB_INTERNAL", "the hub could not do this", {
    hint: "The hub's log says why. Try again; report it if it stays.",
    cause: error,
  });
}

/**
 * Whether an answer failed for no other reason than that nobody is there to take it: its stream is given up as soon as the
 * connection is gone, which happens every day. What failed otherwise stays a fault, also when its client has left meanwhile.
 */
export function hasLeft(error: unknown, { raw }: Pick<FastifyReply, "raw">): boolean {
  const { code } = (error ?? {}) as { code?: unknown };
  return code === "ERR_STREAM_PREMATURE_CLOSE" && (raw.closed || raw.destroyed);
}

/** What stands in the log as the end of such a request; nobody reads it as an answer. */
export function clientLeft(): LockstepError {
  return new LockstepError("INTERRUPTED", "the client left before its answer began", {
    hint: "Nothing is wrong with the hub. Ask again.",
  });
}

/** Answers an error: its status, its code in the body, and when to come back. */
export function sendError(
  error: LockstepError,
  request: FastifyRequest,
  reply: FastifyReply,
  clock: Clock,
): FastifyReply {
  const { http, retry } = ERRORS[error.code];
  const seconds = error.retryAfterSeconds ?? (retry === "later" && http === 503 ? RETRY_AFTER_SECONDS : null);
  if (seconds !== null) void reply.header("retry-after", seconds);
  if (error.code === "AUTHENTICATION_REQUIRED") void reply.header("www-authenticate", "Bearer");
  // One that came inside of another has no connection.
  if (request.raw.complete === false) lingerAfter(request, reply, clock);
  return reply
    .code(http)
    .header("content-type", "application/json; charset=utf-8")
    .header("cache-control", "no-store")
    .send(JSON.stringify(toErrorBody(error)));
}

/** Whether an error is the hub's own fault, so that its log must tell everything. */
export function isOwnFault(error: LockstepError): boolean {
  return isLockstepError(error, "HUB_INTERNAL", "INTERNAL");
}

import type { IncomingMessage } from "node:http";
import type { Readable } from "node:stream";
import { GrowingBytes, isLockstepError, LockstepError, parseBoundedJson } from "@lockstep/protocol";
import type { FastifyRequest } from "fastify";
import { atLeast } from "../repository/body-rate.ts";

/**
 * Reads a JSON body without holding more than the route allows: a length that is announced is believed at once, one
 * that is not is counted while it comes, and what came is looked at before it is parsed. For fastify.
 */
const RATE = { windowMs: 30_000, bytesMin: 16 * 1024 };

/** Throws CONTENT_TOO_LARGE, REQUEST_INVALID. */
export async function readJsonBody(
  request: FastifyRequest,
  payload: IncomingMessage | Readable,
): Promise<unknown> {
  return parseBoundedJson(await readBody(request, payload), "the body");
}

/** The same for a body that is something else. Throws CONTENT_TOO_LARGE, REQUEST_INVALID. */
export async function readBody(
  request: FastifyRequest,
  payload: IncomingMessage | Readable,
): Promise<Uint8Array> {
  const limit = request.routeOptions.bodyLimit;
  const announced = Number(request.headers["content-length"] ?? 0);
  if (announced > limit) throw tooLarge(limit, announced);
  const text = new GrowingBytes();
  try {
    for await (const chunk of atLeast(RATE, payload as Readable, tooSlow)) {
      if (text.length + chunk.length > limit) throw tooLarge(limit, text.length + chunk.length);
      text.add(chunk);
    }
  } catch (error) {
    if (isLockstepError(error)) throw error;
    throw new LockstepError("REQUEST_INVALID", "the body was cut off", {
      found: `${text.length} bytes`,
      cause: error,
    });
  }
  return text.take();
}

function tooLarge(limit: number, found: number): LockstepError {
  return new LockstepError("CONTENT_TOO_LARGE", "the request is larger than the hub takes", {
    expected: `at most ${limit} bytes`,
    found: `${found} bytes or more`,
    hint: "Ask for less at once; a module of more files has to be split.",
  });
}

function tooSlow(found: string): LockstepError {
  return new LockstepError("REQUEST_INVALID", "the body arrives too slowly", {
    expected: `${RATE.bytesMin} bytes in ${RATE.windowMs / 1000} s, or the end`,
    found,
  });
}

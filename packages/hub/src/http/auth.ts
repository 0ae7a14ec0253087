import { createHash, timingSafeEqual } from "node:crypto";
import { LockstepError } from "@lockstep/protocol";
import type { FastifyRequest } from "fastify";

/**
 * Who may do what, until finer permissions come: whoever knows the token may do everything, everybody may ask for the
 * semaphore, the health and the description of the interface. Decided when the head of a request is there, before any
 * of its body is read.
 *
 * Without a token (`--dev`) the hub listens on loopback alone. There a browser is the danger: any page may send requests
 * to this machine, or give its own name this address. So only requests that address the hub by a loopback name, and
 * that come from no other site, are heard.
 */
export function createGuard(token: string | null): (request: FastifyRequest) => void {
  if (token === null) return guardLoopback;
  const expected = digest(token);
  return (request) => {
    const header = request.headers.authorization;
    if (header === undefined)
      throw new LockstepError("AUTHENTICATION_REQUIRED", "the hub asks for a token", {
        expected: "Authorization: Bearer TOKEN",
        found: "none",
        hint: "Set LOCKSTEP_TOKEN or name a token file; the hub keeps its own in the file `token` of its data directory.",
      });
    const match = /^Bearer +(\S+)$/i.exec(header);
    // Digests have one length, so the comparison tells nothing about the token's.
    if (match?.[1] === undefined || !timingSafeEqual(digest(match[1]), expected))
      throw new LockstepError("AUTHENTICATION_FAILED", "the hub does not accept this token", {
        expected: "the token of the file `token` in the hub's data directory",
        found: match === null ? "no bearer token" : "another token",
        hint: "Check LOCKSTEP_TOKEN or the token file against it.",
      });
  };
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function guardLoopback(request: FastifyRequest): void {
  const { host, origin } = request.headers;
  if (host !== undefined && !isLoopbackHost(host))
    throw new LockstepError("AUTHENTICATION_FAILED", "a hub without a token answers this machine only", {
      expected: "Host: 127.0.0.1 or localhost",
      found: host,
      hint: "Use the address that the hub printed.",
    });
  if (origin !== undefined && !isSameOrigin(origin, host ?? ""))
    throw new LockstepError("AUTHENTICATION_FAILED", "the request comes from another site", {
      expected: host ?? "no Origin",
      found: origin,
    });
}

/** Whether a Host header names this machine by a name that nobody else can give out. */
export function isLoopbackHost(host: string): boolean {
  const name = host
    .replace(/:\d+$/, "")
    .replace(/^\[|\]$/g, "")
    .toLowerCase();
  return name === "localhost" || name === "::1" || /^127(?:\.\d{1,3}){3}$/.test(name);
}

function isSameOrigin(origin: string, host: string): boolean {
  return origin === `http://${host}` || origin === `https://${host}`;
}

import { createHash, timingSafeEqual } from "node:crypto";
import { isLoopbackHeader, readingToken } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol";
import type { FastifyRequest } from "fastify";
import { SESSION_PREFIX, sessionOwner } from "../installations/enrolment.ts";
import type { HubServices } from "./services.ts";

/**
 * Who may do what, until finer permissions come: whoever knows the token may do everything, an enrolled installation what an
 * update needs, everybody may ask for the semaphore, the health and the description of the interface. Decided when the head of
 * a request is there, before any of its body is read. The reading token, which is made of the hub's token, is as good as an installation: it is what a relay
 * gets to see.
 *
 * Without a token (`--dev`) the hub listens on loopback alone. There a browser is the danger: any page may send requests
 * to this machine, or give its own name this address. So only requests that address the hub by a loopback name, and
 * that come from no other site, are heard.
 */
export function createGuard(token: string | null): (request: FastifyRequest) => void {
  if (token === null) return guardLoopback;
  const expected = digest(token);
  const reading = digest(readingToken(token));
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
    const given = digest(match?.[1] ?? "");
    const known = timingSafeEqual(given, expected) || (timingSafeEqual(given, reading) && isReading(request));
    if (match?.[1] === undefined || !known)
      throw new LockstepError("AUTHENTICATION_FAILED", "the hub does not accept this token", {
        expected: "the token of the file `token` in the hub's data directory",
        found: match === null ? "no bearer token" : "another token",
        hint: "Check LOCKSTEP_TOKEN or the token file against it.",
      });
  };
}

/**
 * What the session of an installation and the reading token are good for: reading what is distributed, and the own report and
 * order.
 */
const FOR_INSTALLATIONS: ReadonlySet<string> = new Set([
  "GET /v1/revisions/:number",
  "GET /v1/manifests/sha256/:sha256",
  "GET /v1/manifests/delta",
  "GET /v1/files/sha256/:sha256",
  "GET /v1/steps/:from/:to",
  "POST /v1/bundle",
  "GET /v1/trust/:name",
  "GET /v1/trust/changes",
  "GET /v1/trust/log/:epoch",
  "PUT /v1/installations/:id",
  "GET /v1/orders/:id",
  "GET /v1/settings",
]);

function isReading({ method, routeOptions }: FastifyRequest): boolean {
  return FOR_INSTALLATIONS.has(`${method} ${routeOptions.url ?? ""}`);
}

/** The session that a request shows; null: none, or something else. */
export function sessionToken(request: FastifyRequest): string | null {
  const token = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? "")?.[1];
  return token?.startsWith(SESSION_PREFIX) === true ? token : null;
}

/** Whose session it is. Throws AUTHENTICATION_REQUIRED when its time is over, AUTHENTICATION_FAILED for what it is not for. */
export async function demandSession(
  services: HubServices,
  request: FastifyRequest,
  token: string,
): Promise<string> {
  services.repository();
  const owner = await sessionOwner(services.pool, token);
  if (owner === null)
    throw new LockstepError("AUTHENTICATION_REQUIRED", "the session of this installation is over", {
      hint: "The updater begins a new one by itself.",
    });
  const route = `${request.method} ${request.routeOptions.url ?? "none"}`;
  if (FOR_INSTALLATIONS.has(route)) return owner;
  throw new LockstepError("AUTHENTICATION_FAILED", "an installation may not do this", {
    expected: "the token of the hub",
    found: `the session of installation ${owner}`,
    hint: "Give the hub's token: LOCKSTEP_TOKEN or a token file.",
  });
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function guardLoopback(request: FastifyRequest): void {
  const { host, origin } = request.headers;
  if (host !== undefined && !isLoopbackHeader(host))
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

function isSameOrigin(origin: string, host: string): boolean {
  return origin === `http://${host}` || origin === `https://${host}`;
}

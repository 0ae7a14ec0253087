import type { FastifyRequest } from "fastify";

/** Names the person or program behind a request, for histories. Nobody checks it: the token decides what may be done. */
export const ACTOR_HEADER = "lockstep-actor";
const ACTOR_LENGTH_MAX = 200;

/** Who did it, in words: what the request says, else its address. */
export function actorOf(request: FastifyRequest): string {
  const said = request.headers[ACTOR_HEADER];
  const name = (typeof said === "string" ? said : "").replaceAll(/[^\x20-\x7e]/g, "").trim();
  return name === "" ? request.from : name.slice(0, ACTOR_LENGTH_MAX);
}

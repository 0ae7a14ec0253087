import type { FastifyReply } from "fastify";

type Sender = { code(status: number): { send(): unknown } } & Pick<FastifyReply, "header">;

/**
 * 304 without a body. `never`, since no schema describes it: to the types of a route its one answer is the described
 * one, and fastify takes a reply that was sent for an answer.
 */
export function sendNotModified(reply: unknown): never {
  return (reply as Sender).code(304).send() as never;
}

/** JSON that is text already. */
export function sendJsonText(reply: unknown, text: string): never {
  return (reply as FastifyReply).header("content-type", "application/json").send(text) as never;
}

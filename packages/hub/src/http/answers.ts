import type { Readable } from "node:stream";
import type { Clock } from "@lockstep/platform";
import type { FastifyReply } from "fastify";

type Sender = { code(status: number): { send(): unknown } } & Pick<FastifyReply, "header">;

/**
 * 304 without a body. `never`, since no schema describes it: to the types of a route its one answer is the described
 * one, and fastify takes a reply that was sent for an answer.
 */
export function sendNotModified(reply: unknown): never {
  return (reply as Sender).code(304).send() as never;
}

/** How often an answer that takes its time shows that it is still being made: well within what proxies and clients endure. */
const SIGN_OF_LIFE_MS = 15_000;

/**
 * The text of a JSON answer that takes its time, with a blank now and then before it, which JSON allows: nothing else
 * travels meanwhile, and whoever hears nothing for a minute gives up. The status has been sent by then, so `work` must
 * answer what goes wrong, not throw it; what it throws cuts the answer.
 */
export async function* patientJson(
  work: Promise<unknown>,
  clock: Pick<Clock, "sleep">,
): AsyncGenerator<string, void, undefined> {
  const done = new AbortController();
  const end = () => done.abort();
  work.then(end, end);
  while (!done.signal.aborted) {
    await clock.sleep(SIGN_OF_LIFE_MS, done.signal);
    if (!done.signal.aborted) yield " ";
  }
  yield JSON.stringify(await work);
}

/** JSON that is text already, whole or as it comes. */
export function sendJsonText(reply: unknown, text: string | Readable): never {
  return (reply as FastifyReply).header("content-type", "application/json").send(text) as never;
}

import type { Sha256 } from "@lockstep/core";
import { type ContentEncoding, type ContentHeader, LockstepError } from "@lockstep/protocol";
import type { FastifyReply, FastifyRequest } from "fastify";
import { createDecoder, findContent, readStored } from "../repository/content-read.ts";
import { chooseEncoding, matchesTag, readRange } from "./conditions.ts";
import type { HubServices } from "./services.ts";

/**
 * Serves contents by their digest. They never change, so a digest is an entity tag for ever; the zstd form has a tag
 * of its own, because its bytes are others. Bytes come from the cache on disk, filled from the database and verified
 * when they are; no file is ever whole in memory.
 */
const READ_BYTES = 256 * 1024;
/** A proxy may keep contents for everybody: only who has been told a digest can ask for it. */
const IMMUTABLE = "public, max-age=31536000, immutable";

/** Answers with one content, or a range of it. Throws NOT_FOUND, HUB_BUSY. */
export async function serveContent(
  services: HubServices,
  sha256: Sha256,
  type: string,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const stored = await findContent(services.pool, sha256);
  if (stored === null) throw unknownContent(sha256);
  const encoding = chooseEncoding(request.headers["accept-encoding"], stored.encoding);
  const tag = entityTag(sha256, encoding);
  void reply
    .header("etag", tag)
    .header("cache-control", IMMUTABLE)
    .header("vary", "accept-encoding")
    .header("accept-ranges", "bytes");
  if (matchesTag(request.headers["if-none-match"], tag)) return reply.code(304).send();
  const length = encoding === "zstd" ? stored.stored : stored.size;
  const condition = request.headers["if-range"];
  const range =
    condition === undefined || condition === tag
      ? readRange(request.headers.range, length)
      : { kind: "all" as const };
  void reply.header("content-type", type);
  if (encoding === "zstd") void reply.header("content-encoding", "zstd");
  if (range.kind === "unsatisfiable")
    return reply.code(416).header("content-range", `bytes */${length}`).send();
  if (length === 0) return reply.header("content-length", 0).send("");

  const leave = await services.gates.contents.enter();
  try {
    const file = await services.cache.openOrFill({ sha256, size: stored.size, encoding }, () =>
      produce(services, stored, encoding),
    );
    collectWhenOverfull(services);
    const [start, end] = range.kind === "part" ? [range.start, range.end] : [0, length - 1];
    if (range.kind === "part")
      void reply.code(206).header("content-range", `bytes ${start}-${end}/${length}`);
    const stream = file.createReadStream({ start, end, highWaterMark: READ_BYTES });
    stream.once("close", leave);
    return reply.header("content-length", end - start + 1).send(stream);
  } catch (error) {
    leave();
    throw error;
  }
}

export function entityTag(sha256: Sha256, encoding: ContentEncoding): string {
  return encoding === "zstd" ? `"${sha256}-zstd"` : `"${sha256}"`;
}

/** A content in the cache's identity form, whole: for the hub's own use of small ones. */
export async function readContent(services: HubServices, sha256: Sha256): Promise<Buffer | null> {
  const stored = await findContent(services.pool, sha256);
  if (stored === null) return null;
  const file = await services.cache.openOrFill({ sha256, size: stored.size, encoding: "identity" }, () =>
    produce(services, stored, "identity"),
  );
  try {
    return await file.readFile();
  } finally {
    await file.close();
  }
}

export function unknownContent(sha256: Sha256): LockstepError {
  return new LockstepError("NOT_FOUND", `the hub has no content ${sha256}`, {
    found: sha256,
    hint: "It may belong to a revision that is no longer kept. Ask for the current revision.",
  });
}

function produce(
  services: HubServices,
  stored: ContentHeader,
  encoding: ContentEncoding,
): AsyncIterable<Uint8Array> {
  const parts = readStored(services.pool, stored);
  return stored.encoding === "zstd" && encoding === "identity" ? createDecoder(parts) : parts;
}

const collecting = new WeakSet<HubServices["cache"]>();

function collectWhenOverfull({ cache, log }: HubServices): void {
  if (!cache.isOverfull || collecting.has(cache)) return;
  collecting.add(cache);
  cache
    .collect()
    .catch((error: unknown) => log.warn("the cache could not be cleared up", { error }))
    .finally(() => collecting.delete(cache));
}

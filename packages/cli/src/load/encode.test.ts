import assert from "node:assert/strict";
import { hash, randomBytes } from "node:crypto";
import { lstatSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { zstdDecompressSync } from "node:zlib";
import { ContentStreamReader, encodeContentHeader, encodeEnd, encodeMagic } from "@lockstep/protocol";
import { encodeContents } from "./encode.ts";
import type { DigestedFile } from "./work.ts";
import { WorkerPool } from "./worker-pool.ts";

const base = mkdtempSync(join(tmpdir(), "lockstep-encode-"));
const files: DigestedFile[] = [];

before(() => {
  const sizes = [0, 1, 900, 30_000, 70_000, 500_000, 2 ** 20, 2 ** 21, 2 ** 21 + 1, 5_000_000];
  for (let index = 0; index < 400; index++) {
    const size = sizes[index % (index < 60 ? sizes.length : 5)] ?? 0;
    const random = randomBytes(Math.ceil(size / (index % 2 === 0 ? 1 : 64)));
    const bytes = Buffer.alloc(size, random.length === 0 ? undefined : random);
    const path = `d${index % 7}/f${index}`;
    mkdirSync(dirname(join(base, path)), { recursive: true });
    writeFileSync(join(base, path), bytes);
    const { mtimeMs, ctimeMs, ino, mode } = lstatSync(join(base, path));
    files.push({
      path,
      size,
      mtimeMs,
      ctimeMs,
      ino,
      mode: mode & 0o777,
      sha256: hash("sha256", bytes, "hex"),
    });
  }
});

after(() => rmSync(base, { recursive: true, force: true }));

/** Sends everything as a content stream would be sent, and reads it as the hub does. Returns what came out. */
async function roundTrip(pool: WorkerPool): Promise<{ digests: string[]; rooms: Set<ArrayBufferLike> }> {
  const reader = new ContentStreamReader({ documentBytesMax: 0, contentBytesMax: 2 ** 30 });
  const digests: string[] = [];
  const rooms = new Set<ArrayBufferLike>();
  let pieces: Buffer[] = [];
  let count = 0;
  const take = (bytes: Uint8Array) => {
    for (const event of reader.push(bytes)) {
      if (event.kind === "content") pieces = [];
      if (event.kind === "bytes") pieces.push(Buffer.from(event.bytes));
      if (event.kind !== "content-end") continue;
      const stored = Buffer.concat(pieces);
      const bytesOf = event.header.encoding === "zstd" ? zstdDecompressSync(stored) : stored;
      assert.equal(bytesOf.length, event.header.size);
      digests.push(hash("sha256", bytesOf, "hex"));
      assert.equal(digests.at(-1), event.header.sha256);
    }
  };
  take(encodeMagic());
  for await (const { part } of encodeContents(base, files, pool, new AbortController().signal)) {
    if ("frames" in part) {
      rooms.add(part.frames.buffer);
      take(part.frames);
      count += part.contents;
      continue;
    }
    take(encodeContentHeader(part.header));
    for await (const piece of part.bytes instanceof Uint8Array ? [part.bytes] : part.bytes) take(piece);
    count++;
  }
  take(encodeEnd(count));
  assert.ok(reader.complete);
  return { digests, rooms };
}

test("every file comes out as it went in, small and large, through threads or without", async () => {
  const expected = files.map(({ sha256 }) => sha256).sort();
  for (const threads of [0, 2]) {
    const pool = new WorkerPool(threads);
    try {
      const { digests, rooms } = await roundTrip(pool);
      assert.deepEqual(digests.sort(), expected);
      if (threads === 0) assert.ok(rooms.size <= pool.ordersWanted + 1, `${rooms.size} pieces of memory`);
    } finally {
      await pool.close();
    }
  }
});

import assert from "node:assert/strict";
import { hash, randomBytes } from "node:crypto";
import { lstatSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { zstdDecompressSync } from "node:zlib";
import { numberedLines } from "@lockstep/testing";
import { largeContent } from "./large-content.ts";

const base = mkdtempSync(join(tmpdir(), "lockstep-large-content-"));
after(() => rmSync(base, { recursive: true, force: true }));

/** How a file of these bytes travels; it must come out as it was. */
async function travels(bytes: Buffer): Promise<{ encoding: string; stored: number }> {
  writeFileSync(join(base, "file"), bytes);
  const { mtimeMs, ctimeMs, ino, mode, size } = lstatSync(join(base, "file"));
  const sha256 = hash("sha256", bytes, "hex");
  const file = { path: "file", size, mtimeMs, ctimeMs, ino, mode: mode & 0o777, sha256 };
  const { content, dispose } = await largeContent(base, file, new AbortController().signal);
  try {
    assert.ok(!(content.bytes instanceof Uint8Array));
    const pieces: Buffer[] = [];
    for await (const piece of content.bytes) pieces.push(Buffer.from(piece));
    const sent = Buffer.concat(pieces);
    const { encoding, stored } = content.header;
    assert.equal(sent.length, stored);
    assert.ok(bytes.equals(encoding === "zstd" ? zstdDecompressSync(sent) : sent));
    return { encoding, stored };
  } finally {
    dispose();
  }
}

const noise = randomBytes(4_000_000);
const text = numberedLines(100_000, 1).subarray(0, 2_000_000);

test("text behind what no compressor helps is compressed, wherever it lies", async () => {
  for (const parts of [
    [noise, text],
    [text, noise],
    [noise.subarray(0, 2_000_000), text, noise.subarray(2_000_000)],
  ]) {
    const { encoding, stored } = await travels(Buffer.concat(parts));
    assert.equal(encoding, "zstd");
    assert.ok(stored < noise.length + text.length / 2, `${stored} bytes`);
  }
});

test("what no compressor helps travels as it is", async () => {
  assert.deepEqual(await travels(noise), { encoding: "identity", stored: noise.length });
});

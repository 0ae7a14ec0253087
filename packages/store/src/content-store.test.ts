import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { zstdCompressSync } from "node:zlib";
import { isLockstepError } from "@lockstep/protocol/wire";
import fc from "fast-check";
import { ContentStore, type ContentStoreOptions } from "./content-store.ts";
import type { ContentKey } from "./verify.ts";

async function openStore(t: TestContext, options: Partial<ContentStoreOptions> = {}) {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-store-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const reopen = () => ContentStore.open(directory, { sizeBytesMax: 1e9, ...options });
  return { directory, reopen, store: await reopen() };
}

function keyOf(bytes: Uint8Array, encoding: ContentKey["encoding"] = "identity"): ContentKey {
  return { sha256: createHash("sha256").update(bytes).digest("hex"), size: bytes.length, encoding };
}

async function* chunks(bytes: Uint8Array, length = 7): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
}

const hello = Buffer.from("hello, installation");

test("what was written is read back, in both encodings, at any chunk size", async (t) => {
  const { store } = await openStore(t);
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ maxLength: 5000 }),
      fc.integer({ min: 1, max: 6000 }),
      async (bytes, length) => {
        await store.write(keyOf(bytes), chunks(bytes, length));
        assert.deepEqual(await store.read(keyOf(bytes)), Buffer.from(bytes));
        const frame = zstdCompressSync(bytes);
        await store.write(keyOf(bytes, "zstd"), chunks(frame, length));
        assert.deepEqual(await store.read(keyOf(bytes, "zstd")), frame);
      },
    ),
    { numRuns: 40 },
  );
});

test("a content that differs from its name is refused and leaves nothing", async (t) => {
  const { store, directory } = await openStore(t);
  const wrong: [ContentKey, Uint8Array][] = [
    [{ ...keyOf(hello), size: 3 }, hello],
    [{ ...keyOf(hello), size: 300 }, hello],
    [keyOf(hello), Buffer.from("HELLO, installation")],
    [keyOf(hello, "zstd"), hello],
    [keyOf(hello, "zstd"), zstdCompressSync(hello).subarray(0, 12)],
    // A frame that says little and unfolds to much must not fill the disk or the memory.
    [keyOf(hello, "zstd"), zstdCompressSync(Buffer.alloc(50_000_000))],
  ];
  for (const [key, bytes] of wrong)
    await assert.rejects(store.write(key, chunks(bytes, 4096)), (error) =>
      isLockstepError(error, "CONTENT_MISMATCH"),
    );
  assert.deepEqual(await readdir(join(directory, "partial")), []);
  assert.equal(await store.has(keyOf(hello)), false);
  assert.equal(store.sizeBytes, 0);
});

test("a source that breaks off leaves nothing", async (t) => {
  const { store, directory } = await openStore(t);
  const broken = async function* () {
    yield hello.subarray(0, 5);
    throw new Error("connection lost");
  };
  await assert.rejects(store.write(keyOf(hello), broken()), /connection lost/);
  assert.deepEqual(await readdir(join(directory, "partial")), []);
  assert.equal(await store.has(keyOf(hello)), false);
});

test("a file that a power cut emptied is found at its first use after the start and dropped", async (t) => {
  const { store, reopen } = await openStore(t);
  const key = keyOf(hello);
  await store.write(key, chunks(hello));
  await truncate(store.path(key), 0);
  const next = await reopen();
  assert.equal(await next.open(key), null);
  await assert.rejects(readFile(next.path(key)), { code: "ENOENT" });
});

test("verifying a content does not move the place from which it is read", async (t) => {
  const { store, reopen } = await openStore(t);
  await store.write(keyOf(hello), chunks(hello));
  assert.deepEqual(await (await reopen()).read(keyOf(hello)), hello);
});

test("a file with one flipped bit is dropped as well, and filled in anew", async (t) => {
  const { store, reopen } = await openStore(t);
  const key = keyOf(hello);
  await store.write(key, chunks(hello));
  const damaged = Buffer.from(hello);
  damaged[3] = (damaged[3] ?? 0) ^ 1;
  await writeFile(store.path(key), damaged);
  const next = await reopen();
  const file = await next.openOrFill(key, () => chunks(hello));
  assert.deepEqual(await file.readFile(), hello);
  await file.close();
});

test("what happens to a file while the process runs is noticed as well: a flip, a cut, a directory", async (t) => {
  const { store, directory } = await openStore(t);
  const key = keyOf(hello);
  const damages = [
    () => writeFile(store.path(key), Buffer.from(hello).fill(0, 0, 1)),
    () => truncate(store.path(key), 3),
    async () => {
      await rm(store.path(key));
      await mkdir(join(store.path(key), "in the way"), { recursive: true });
    },
  ];
  // Within one tick of the file system's clock nobody could tell.
  const tick = async () => {
    const { ctimeMs } = await stat(store.path(key));
    const other = join(directory, "tick");
    do await writeFile(other, "");
    while ((await stat(other)).ctimeMs <= ctimeMs);
  };
  for (const damage of damages) {
    await (await store.openOrFill(key, () => chunks(hello))).close();
    await tick();
    await damage();
    const file = await store.openOrFill(key, () => chunks(hello));
    assert.deepEqual(await file.readFile(), hello);
    await file.close();
  }
});

test("many who ask for the same content have it filled in once", async (t) => {
  const { store } = await openStore(t);
  let fillings = 0;
  const produce = () => {
    fillings++;
    return chunks(hello);
  };
  const files = await Promise.all(Array.from({ length: 20 }, () => store.openOrFill(keyOf(hello), produce)));
  for (const file of files) {
    assert.deepEqual(await file.readFile(), hello);
    await file.close();
  }
  assert.equal(fillings, 1);
});

test("a filling that fails is reported to who began it, and the next one tries again", async (t) => {
  const { store } = await openStore(t);
  await assert.rejects(
    store.openOrFill(keyOf(hello), () => chunks(Buffer.from("wrong"))),
    (error) => isLockstepError(error, "CONTENT_MISMATCH"),
  );
  const file = await store.openOrFill(keyOf(hello), () => chunks(hello));
  await file.close();
});

test("two stores in one directory write the same content at the same time", async (t) => {
  const { store, reopen } = await openStore(t);
  const other = await reopen();
  const bytes = Buffer.alloc(300_000, "x");
  await Promise.all([
    store.write(keyOf(bytes), chunks(bytes, 1000)),
    other.write(keyOf(bytes), chunks(bytes, 900)),
  ]);
  assert.deepEqual(await other.read(keyOf(bytes)), bytes);
});

test("the longest unused goes first, and the store ends below its limit", async (t) => {
  const { store, reopen } = await openStore(t, { sizeBytesMax: 1000 });
  const contents = Array.from({ length: 5 }, (_, i) => Buffer.alloc(300, String(i)));
  for (const [age, bytes] of contents.entries()) {
    await store.write(keyOf(bytes), chunks(bytes, 300));
    const time = Date.now() / 1000 - 100_000 + age * 1000;
    await utimes(store.path(keyOf(bytes)), time, time);
  }
  const [first = hello, second = hello] = contents;
  // Used just now, so no longer the oldest.
  assert.equal(await store.has(keyOf(first)), true);
  assert.equal(store.isOverfull, true);
  assert.deepEqual(await store.collect(), { files: 2, bytes: 600 });
  assert.equal(await store.has(keyOf(first)), true);
  assert.equal(await store.has(keyOf(second)), false);
  assert.equal(store.sizeBytes, 900);
  assert.equal((await reopen()).sizeBytes, 900);
});

test("a content that is collected while somebody reads it is read to its end", async (t) => {
  const { store } = await openStore(t, { sizeBytesMax: 10 });
  await store.write(keyOf(hello), chunks(hello));
  const file = await store.open(keyOf(hello));
  await store.collect();
  assert.equal(await store.has(keyOf(hello)), false);
  assert.deepEqual(await file?.readFile(), hello);
  await file?.close();
});

test("what a killed process left half written is cleared away, what is being written is not", async (t) => {
  const { store, directory } = await openStore(t);
  await writeFile(join(directory, "partial", "1-old"), "x");
  await writeFile(join(directory, "partial", "1-new"), "x");
  const old = Date.now() / 1000 - 7200;
  await utimes(join(directory, "partial", "1-old"), old, old);
  await store.collect();
  assert.deepEqual(await readdir(join(directory, "partial")), ["1-new"]);
});

test("an aborted write leaves nothing", async (t) => {
  const { store, directory } = await openStore(t);
  const controller = new AbortController();
  const slow = async function* () {
    yield hello.subarray(0, 3);
    controller.abort(new Error("stopped"));
    yield hello.subarray(3);
  };
  await assert.rejects(store.write(keyOf(hello), slow(), controller.signal));
  assert.deepEqual(await readdir(join(directory, "partial")), []);
});

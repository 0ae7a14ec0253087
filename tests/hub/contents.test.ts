import "../support/property-seed.ts";
import assert from "node:assert/strict";
import { hash, randomBytes } from "node:crypto";
import { readdir, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { zstdDecompressSync } from "node:zlib";
import {
  applyDelta,
  ContentStreamReader,
  formatManifest,
  parseDelta,
  parseManifest,
  type RevisionDocument,
} from "@lockstep/protocol";
import fc from "fast-check";
import { usePostgres } from "../support/postgres.ts";
import { loadAndSettle, type Release, release } from "./support/release.ts";
import { type Answer, ask, askJson, codeOf } from "./support/requests.ts";
import { startTestHub, type TestHub } from "./support/test-hub.ts";

const MIXED: Record<string, Buffer> = {
  text: Buffer.from("a line of text\n".repeat(20_000)),
  random: randomBytes(100_000),
  large: Buffer.concat([randomBytes(2 * 2 ** 20), Buffer.alloc(2 * 2 ** 20, "tail")]),
  empty: Buffer.alloc(0),
};

describe("contents", () => {
  const server = usePostgres();

  async function loaded(t: Parameters<typeof startTestHub>[0]): Promise<{ hub: TestHub; what: Release }> {
    const hub = await startTestHub(t, server);
    const what = release(
      Object.fromEntries(Object.entries(MIXED).map(([path, content]) => [path, { content }])),
    );
    await loadAndSettle(hub, what);
    return { hub, what };
  }

  const sha = (bytes: Buffer) => hash("sha256", bytes, "hex");
  const address = (bytes: Buffer) => `/v1/files/sha256/${sha(bytes)}`;

  test("one is served as it is, or as the zstd frame that is stored, each with its own tag", async (t) => {
    const { hub } = await loaded(t);
    for (const [name, bytes] of Object.entries(MIXED)) {
      const plain = await ask(hub, "GET", address(bytes));
      assert.ok(plain.body.equals(bytes), name);
      assert.equal(plain.headers.etag, `"${sha(bytes)}"`);
      assert.equal(plain.headers["content-length"], String(bytes.length));
      assert.match(plain.headers["cache-control"] ?? "", /immutable/);
      const packed = await ask(hub, "GET", address(bytes), { headers: { "accept-encoding": "gzip, zstd" } });
      const isPacked = name === "text" || name === "large";
      assert.equal(packed.headers["content-encoding"], isPacked ? "zstd" : undefined, name);
      assert.equal(packed.headers.etag, isPacked ? `"${sha(bytes)}-zstd"` : `"${sha(bytes)}"`);
      assert.ok((isPacked ? zstdDecompressSync(packed.body) : packed.body).equals(bytes), name);
      const refused = await ask(hub, "GET", address(bytes), { headers: { "accept-encoding": "zstd;q=0" } });
      assert.ok(refused.body.equals(bytes), name);
    }
  });

  test("any range gives those bytes, with If-Range only of the right representation", async (t) => {
    const { hub } = await loaded(t);
    const bytes = MIXED.large ?? Buffer.alloc(0);
    const packed = (await ask(hub, "GET", address(bytes), { headers: { "accept-encoding": "zstd" } })).body;
    const positions = fc.integer({ min: 0, max: bytes.length + 10 });
    await fc.assert(
      fc.asyncProperty(positions, positions, fc.constantFrom("zstd", "identity"), async (a, b, encoding) => {
        const whole = encoding === "zstd" ? packed : bytes;
        const headers = { range: `bytes=${a}-${b}`, "accept-encoding": encoding };
        const answer = await ask(hub, "GET", address(bytes), { headers });
        if (b < a) assert.equal(answer.status, 200);
        else if (a >= whole.length) {
          assert.equal(answer.status, 416);
          assert.equal(answer.headers["content-range"], `bytes */${whole.length}`);
        } else {
          const end = Math.min(b, whole.length - 1);
          assert.equal(answer.status, 206);
          assert.equal(answer.headers["content-range"], `bytes ${a}-${end}/${whole.length}`);
          assert.ok(answer.body.equals(whole.subarray(a, end + 1)));
        }
      }),
      { numRuns: 40 },
    );
    const get = (headers: Record<string, string>) => ask(hub, "GET", address(bytes), { headers });
    const tail = await get({ range: "bytes=-100" });
    assert.ok(tail.body.equals(bytes.subarray(-100)));
    assert.equal((await get({ range: "bytes=10-", "if-range": `"${sha(bytes)}"` })).status, 206);
    assert.equal((await get({ range: "bytes=10-", "if-range": `"${sha(bytes)}-zstd"` })).status, 200);
    const zstd = { range: "bytes=10-", "accept-encoding": "zstd" };
    assert.equal((await get({ ...zstd, "if-range": `"${sha(bytes)}-zstd"` })).status, 206);
    assert.equal((await get({ ...zstd, "if-range": `"${sha(bytes)}"` })).status, 200);
    assert.equal((await get({ range: "bytes=0-1,5-6" })).status, 200);
    assert.equal((await get({ range: "lines=1-2" })).status, 200);
    assert.equal((await get({ range: "bytes=0-", "if-none-match": `"${sha(bytes)}"` })).status, 304);
    const none = await get({ "if-none-match": `"${sha(bytes)}-zstd", "other"` });
    assert.equal(none.status, 200);
  });

  test("the cache on disk may be emptied or damaged at any time", async (t) => {
    const { hub } = await loaded(t);
    const bytes = MIXED.text ?? Buffer.alloc(0);
    assert.ok((await ask(hub, "GET", address(bytes))).body.equals(bytes));
    const cache = join(hub.directory, "cache", "sha256");
    const file = join(cache, sha(bytes).slice(0, 2), sha(bytes));
    await rm(file);
    assert.ok((await ask(hub, "GET", address(bytes))).body.equals(bytes));
    await hub.stop();
    await truncate(file, 100);
    await writeFile(join(cache, "stray"), "");
    const again = await startTestHub(t, server, { shared: hub.database, dataDirectory: hub.directory });
    assert.ok((await ask(again, "GET", address(bytes))).body.equals(bytes));
    assert.deepEqual(await readdir(join(hub.directory, "cache", "partial")), []);
  });

  test("what the hub does not have is not found", async (t) => {
    const hub = await startTestHub(t, server);
    const nobody = "f".repeat(64);
    assert.equal(codeOf(await ask(hub, "GET", `/v1/files/sha256/${nobody}`)), "NOT_FOUND");
    assert.equal(codeOf(await ask(hub, "GET", `/v1/manifests/sha256/${nobody}`)), "NOT_FOUND");
    assert.equal(
      codeOf(await ask(hub, "GET", `/v1/manifests/delta?from=${nobody}&to=${nobody}`)),
      "NOT_FOUND",
    );
    assert.equal(codeOf(await ask(hub, "POST", "/v1/bundle", { body: { sha256: [nobody] } })), "NOT_FOUND");
    assert.equal(codeOf(await ask(hub, "GET", "/v1/revisions/7")), "REVISION_UNKNOWN");
    assert.equal(codeOf(await ask(hub, "GET", "/v1/revisions/diff?from=0&to=7")), "REVISION_UNKNOWN");
    assert.equal(codeOf(await ask(hub, "POST", "/v1/revisions/7/revert")), "REVISION_UNKNOWN");
    assert.equal(codeOf(await ask(hub, "GET", "/v1/loads/7/revision")), "NOT_FOUND");
  });

  /** Takes a bundle apart: digests and decoded contents, in order. */
  function unbundle(answer: Answer): { sha256: string; bytes: Buffer }[] {
    const reader = new ContentStreamReader({ documentBytesMax: 0, contentBytesMax: 2 ** 30 });
    const found: { sha256: string; bytes: Buffer }[] = [];
    let pieces: Buffer[] = [];
    for (const event of reader.push(answer.body)) {
      if (event.kind === "content") pieces = [];
      if (event.kind === "bytes") pieces.push(Buffer.from(event.bytes));
      if (event.kind === "content-end") {
        const stored = Buffer.concat(pieces);
        const bytes = event.header.encoding === "zstd" ? zstdDecompressSync(stored) : stored;
        found.push({ sha256: event.header.sha256, bytes });
      }
    }
    assert.ok(reader.complete);
    return found;
  }

  test("a bundle holds what was asked for, in that order, small and large mixed", async (t) => {
    const hub = await startTestHub(t, server);
    const files = Object.fromEntries(
      Array.from({ length: 3_000 }, (_, index) => [`f${index}`, `content ${index} `.repeat(index % 50)]),
    );
    const what = release({
      ...files,
      ...Object.fromEntries(Object.entries(MIXED).map(([path, content]) => [path, { content }])),
    });
    await loadAndSettle(hub, what);
    const digests = [...what.contents.keys()];
    const shuffled = digests
      .map((digest) => ({ digest, place: hash("md5", digest) }))
      .sort((a, b) => (a.place < b.place ? -1 : 1));
    const order = [...shuffled.map(({ digest }) => digest), digests[0] ?? ""];
    const answer = await ask(hub, "POST", "/v1/bundle", { body: { sha256: order } });
    assert.equal(answer.status, 200);
    const found = unbundle(answer);
    assert.deepEqual(
      found.map(({ sha256 }) => sha256),
      order,
    );
    for (const { sha256, bytes } of found) assert.equal(hash("sha256", bytes, "hex"), sha256);
  });

  test("whoever goes away in the middle of a bundle or a file takes nothing with him", async (t) => {
    const hub = await startTestHub(t, server);
    const what = release({
      a: { content: randomBytes(20 * 2 ** 20) },
      b: { content: randomBytes(20 * 2 ** 20) },
    });
    await loadAndSettle(hub, what);
    const [first] = what.contents.keys();
    for (let round = 0; round < 80; round++) {
      const controller = new AbortController();
      const headers = { authorization: `Bearer ${hub.token}`, "content-type": "application/json" };
      const answer =
        round % 2 === 0
          ? await fetch(`${hub.url}/v1/bundle`, {
              method: "POST",
              headers,
              body: JSON.stringify({ sha256: [...what.contents.keys()] }),
              signal: controller.signal,
            })
          : await fetch(`${hub.url}/v1/files/sha256/${first}`, { headers, signal: controller.signal });
      const reader = answer.body?.getReader();
      await reader?.read();
      controller.abort();
    }
    // More than there are places at the gates: each one must have been given back.
    const whole = await ask(hub, "POST", "/v1/bundle", { body: { sha256: [...what.contents.keys()] } });
    assert.equal(unbundle(whole).length, 2);
    assert.equal((await ask(hub, "GET", `/v1/files/sha256/${first}`)).body.length, 20 * 2 ** 20);
  });

  test("manifests: the promised text, and a difference that leads from one to the other", async (t) => {
    const hub = await startTestHub(t, server);
    const files = Object.fromEntries(
      Array.from({ length: 500 }, (_, index) => [`f${index}`, `content ${index}`]),
    );
    await loadAndSettle(hub, release(files));
    const { f3: _, ...rest } = files;
    await loadAndSettle(hub, release({ ...rest, f7: "changed", "new/é": "1" }, { version: "2" }));
    const read = async (number: number) => {
      const revision = await askJson<RevisionDocument>(hub, "GET", `/v1/revisions/${number}`);
      const ref = revision.manifests.find((manifest) => manifest.target === "role:Server");
      assert.ok(ref !== undefined);
      const answer = await ask(hub, "GET", `/v1/manifests/sha256/${ref.sha256}`, {
        headers: { "accept-encoding": "zstd" },
      });
      const bytes =
        answer.headers["content-encoding"] === "zstd" ? zstdDecompressSync(answer.body) : answer.body;
      assert.equal(hash("sha256", bytes, "hex"), ref.sha256);
      assert.equal(bytes.length, ref.size);
      assert.match(answer.headers["content-type"] ?? "", /^text\/plain/);
      return { ref, text: bytes.toString("utf8") };
    };
    const [old, now] = [await read(1), await read(2)];
    const address = `/v1/manifests/delta?from=${old.ref.sha256}&to=${now.ref.sha256}`;
    const delta = await ask(hub, "GET", address);
    assert.ok(delta.body.length < 600, delta.body.toString());
    const entries = applyDelta(parseManifest(old.text).entries, parseDelta(delta.body.toString("utf8")));
    assert.equal(formatManifest({ ...parseManifest(now.text), entries }), now.text);
    const packed = await ask(hub, "GET", address, { headers: { "accept-encoding": "zstd" } });
    const same =
      packed.headers["content-encoding"] === "zstd" ? zstdDecompressSync(packed.body) : packed.body;
    assert.ok(same.equals(delta.body));
  });
});

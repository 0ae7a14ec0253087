import assert from "node:assert/strict";
import { hash, randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import { zstdCompressSync } from "node:zlib";
import {
  encodeContentHeader,
  encodeDocument,
  encodeEnd,
  encodeMagic,
  type LoadComparison,
} from "@lockstep/protocol";
import { usePostgres } from "../support/postgres.ts";
import { load, loadAndSettle, loadStream, type Release, release, sendLoad } from "./support/release.ts";
import { type Answer, ask, askJson, codeOf } from "./support/requests.ts";
import { countRows, startTestHub, type TestHub, untilUploading } from "./support/test-hub.ts";

describe("loads", () => {
  const server = usePostgres();

  async function revisionOf(hub: TestHub): Promise<number> {
    return (await askJson<{ revision: number }>(hub, "GET", "/v1/revision")).revision;
  }

  async function paths(hub: TestHub): Promise<string[]> {
    const { files } = await askJson<{ files: { path: string; module: string }[] }>(hub, "GET", "/v1/files");
    return files.filter((file) => file.module !== "LOCKSTEP").map((file) => `${file.module}:${file.path}`);
  }

  test("the four kinds do what they mean, and each moves the semaphore once", async (t) => {
    const hub = await startTestHub(t, server);
    assert.equal(await loadAndSettle(hub, release({ a: "1", b: "1", "dir/c": "1" })), 1);
    assert.equal(
      await loadAndSettle(hub, release({ a: "2", new: "1" }, { kind: "service-pack", version: "1.1" })),
      2,
    );
    assert.equal(await loadAndSettle(hub, release({ b: "3" }, { kind: "hotfix", version: "1.1.1" })), 3);
    assert.equal(await loadAndSettle(hub, release({ mine: "1" }, { kind: "custom", module: "CCC" })), 4);
    assert.deepEqual(await paths(hub), ["APP:a", "APP:b", "APP:dir/c", "CCC:mine", "APP:new"]);
    assert.equal(await loadAndSettle(hub, release({ a: "4" }, { version: "2.0" })), 5);
    assert.deepEqual(await paths(hub), ["APP:a", "CCC:mine"]);
    const list = await askJson<{ revisions: { number: number; releases: string[] }[] }>(
      hub,
      "GET",
      "/v1/revisions",
    );
    assert.deepEqual(
      list.revisions.map((row) => row.releases.join()),
      [
        "APP 2.0 (version)",
        "CCC 1.0 (custom)",
        "APP 1.1.1 (hotfix)",
        "APP 1.1 (service-pack)",
        "APP 1.0 (version)",
      ],
    );
  });

  test("a hotfix that says nothing of version text and backup leaves them as they are", async (t) => {
    const hub = await startTestHub(t, server);
    await loadAndSettle(hub, release({ etc: { content: "1", version: "1.4", backup: true }, bin: "1" }));
    const hotfix = { kind: "hotfix" as const, version: "1.1" };
    await loadAndSettle(hub, release({ etc: "2", bin: { content: "2", backup: true } }, hotfix));
    const rows = async () =>
      (
        await askJson<{ files: { path: string; version: string | null; backup: boolean }[] }>(
          hub,
          "GET",
          "/v1/files",
        )
      ).files
        .filter(({ path }) => path !== "Update.zip")
        .map(({ path, version, backup }) => [path, version, backup]);
    assert.deepEqual(await rows(), [
      ["bin", null, true],
      ["etc", "1.4", true],
    ]);
    await loadAndSettle(hub, release({ etc: { content: "2", version: null, backup: false } }, hotfix));
    assert.deepEqual((await rows())[1], ["etc", null, false]);
  });

  test("loading the same again moves nothing and writes nothing (behaviour 8)", async (t) => {
    const hub = await startTestHub(t, server);
    const same = release({ a: "1", b: "2" });
    await loadAndSettle(hub, same);
    const before = await countRows(hub.pool);
    const result = await load(hub, same);
    assert.equal(result.changes, false);
    assert.equal(result.load, 0);
    assert.equal(result.equal, 2);
    await hub.settled();
    assert.deepEqual(await countRows(hub.pool), before);
    assert.equal(await revisionOf(hub), 1);
  });

  test("a comparison says how each file stands, and changes nothing", async (t) => {
    const hub = await startTestHub(t, server);
    await loadAndSettle(hub, release({ same: "1", other: "1", gone: "1" }));
    await hub.pool.query(
      "insert into file_revision (path, path_key, module_id) values ('named', 'named', 'APP')",
    );
    await hub.settled();
    const before = await countRows(hub.pool);
    const { request } = release(
      { same: "1", other: "2", named: "3", new: { content: "4", targets: [] } },
      { version: "2" },
    );
    const found = await askJson<LoadComparison>(hub, "POST", "/v1/loads/compare", request);
    assert.deepEqual(found.statuses, ["equal", "changed", "never-loaded", "unknown"]);
    assert.deepEqual(found.removed, ["gone"]);
    assert.equal(found.missing.length, 3);
    assert.equal(found.undistributed, 1);
    assert.equal(found.currentVersion, "1.0");
    assert.deepEqual(found.refusals, []);
    assert.deepEqual(await countRows(hub.pool), before);
  });

  test("a refused load names every reason and leaves nothing", async (t) => {
    const hub = await startTestHub(t, server);
    await loadAndSettle(hub, release({ theirs: "1" }, { module: "OTHER" }));
    const before = await countRows(hub.pool);
    const cases: [Release, string, number][] = [
      [release({ theirs: "2", "../up": "1" }), "LOAD_REFUSED", 2],
      [release({ "C:/x": "1", "a/../b": "1", "nul.txt": "1" }), "PATH_REFUSED", 3],
      [release({ x: "1", X: "2" }), "PATH_REFUSED", 1],
      [release({ "straße/a": "1", "STRASSE/a": "2" }), "PATH_REFUSED", 1],
      [release({ x: "1", "x/y": "2" }), "PATH_REFUSED", 1],
      [release({ y: "1" }, { kind: "hotfix" }), "LOAD_REFUSED", 2],
      [release({}), "LOAD_EMPTY", 0],
    ];
    for (const [what, code, faults] of cases) {
      const answer = await sendLoad(hub, loadStream(what.request, what.contents.values()));
      assert.equal(codeOf(answer), code);
      const { error } = answer.json() as { error: { faults?: unknown[] } };
      assert.equal(error.faults?.length ?? 0, faults, JSON.stringify(error));
    }
    const needy = release({ z: "1" });
    const requires = [{ module: "OTHER", min: "7.1.*", max: "7.1.*" }];
    const request = { ...needy.request, module: { ...needy.request.module, requires } };
    assert.equal(codeOf(await sendLoad(hub, loadStream(request, []))), "MODULE_REQUIREMENT_UNMET");
    await hub.settled();
    assert.deepEqual(await countRows(hub.pool), before);
    assert.equal(await revisionOf(hub), 1);
  });

  test("an upload that is cut anywhere leaves nothing", async (t) => {
    const hub = await startTestHub(t, server);
    await loadAndSettle(hub, release({ a: "1" }));
    const before = await countRows(hub.pool);
    const what = release(
      { a: "2", small: "text ".repeat(100), large: { content: randomBytes(3 * 2 ** 20) } },
      { version: "2" },
    );
    const whole = Buffer.concat([...loadStream(what.request, what.contents.values())]);
    const places = [0, 3, 8, 20, 400, 1000, whole.length - 2 ** 20, whole.length - 1];
    for (const cut of places) {
      const answer = await sendLoad(hub, [whole.subarray(0, cut)]);
      // Cut within the first bytes it may also look like something else than a load.
      assert.ok(
        ["LOAD_INTERRUPTED", "REQUEST_INVALID"].includes(codeOf(answer)),
        `${cut}: ${codeOf(answer)}`,
      );
    }
    // And as it happens in life: the connection breaks.
    for (const cut of places.slice(3)) {
      const controller = new AbortController();
      const body = new ReadableStream({
        async start(stream) {
          stream.enqueue(whole.subarray(0, cut));
          await new Promise((resolve) => setTimeout(resolve, 50));
          controller.abort();
        },
      });
      const headers = {
        authorization: `Bearer ${hub.token}`,
        "content-type": "application/vnd.lockstep.content-stream",
      };
      await assert.rejects(
        fetch(`${hub.url}/v1/loads`, {
          method: "POST",
          body,
          headers,
          signal: controller.signal,
          duplex: "half",
        } as RequestInit),
      );
    }
    // The lock is free again and the rows are those from before.
    await hub.settled();
    assert.equal(
      (await ask(hub, "POST", "/v1/files/assign", { body: { match: "a", add: [], remove: [], only: false } }))
        .status,
      200,
    );
    assert.deepEqual(await countRows(hub.pool), before);
    assert.equal(await loadAndSettle(hub, what), 2);
  });

  test("a content that is not what it says it is stops the whole load", async (t) => {
    const hub = await startTestHub(t, server);
    const before = await countRows(hub.pool);
    const good = Buffer.from("good ".repeat(50));
    const big = Buffer.from("big ".repeat(600_000));
    const what = release({ good: { content: good }, big: { content: big } });
    const [goodFile, bigFile] = what.request.files;
    assert.ok(goodFile !== undefined && bigFile !== undefined);
    const packed = (bytes: Buffer) => zstdCompressSync(bytes);
    const content = (
      file: { sha256: string; size: number },
      stored: Buffer,
      encoding: "zstd" | "identity" = "zstd",
      size = file.size,
    ) =>
      Buffer.concat([
        encodeContentHeader({ sha256: file.sha256, encoding, size, stored: stored.length }),
        stored,
      ]);
    const bomb = packed(Buffer.alloc(64 * 2 ** 20));
    const cases: Record<string, Buffer[]> = {
      "another small content": [content(goodFile, packed(Buffer.from("evil ".repeat(50))))],
      "another large content": [content(bigFile, packed(Buffer.from("gib ".repeat(600_000))))],
      "a small bomb": [content(goodFile, bomb)],
      "a large bomb": [content(bigFile, bomb)],
      "a shorter content": [content(goodFile, packed(good.subarray(1)))],
      "a shorter large content": [content(bigFile, packed(big.subarray(1)))],
      "bytes behind the frame": [content(goodFile, Buffer.concat([packed(good), Buffer.from("tail")]))],
      "bytes behind the large frame": [content(bigFile, Buffer.concat([packed(big), Buffer.from("tail")]))],
      "two frames that give the content together": [
        content(goodFile, Buffer.concat([packed(good.subarray(0, 100)), packed(good.subarray(100))])),
      ],
      "half a frame": [content(goodFile, packed(good).subarray(0, 12))],
      "half a large frame": [content(bigFile, packed(big).subarray(0, 100))],
      "a frame that begins in one content and ends in the next": [
        content(goodFile, Buffer.concat([packed(good), packed(big).subarray(0, 20)])),
        content(bigFile, packed(big).subarray(20)),
      ],
      "no frame at all": [content(goodFile, Buffer.from("not zstd"))],
      "identity with other bytes": [content(goodFile, Buffer.from("evil ".repeat(50)), "identity")],
      "large identity with other bytes": [content(bigFile, Buffer.from("gib ".repeat(600_000)), "identity")],
      "another size than the file's": [content(goodFile, packed(good), "zstd", good.length + 1)],
    };
    for (const [name, contents] of Object.entries(cases)) {
      const body = [encodeMagic(), encodeDocument(what.request), ...contents, encodeEnd(contents.length)];
      const answer = await sendLoad(hub, body);
      assert.equal(codeOf(answer), "LOAD_CONTENT_MISMATCH", name);
      assert.deepEqual(await countRows(hub.pool), before, name);
    }
    assert.equal(await loadAndSettle(hub, what), 1);
  });

  test("a body that is no load is refused", async (t) => {
    const hub = await startTestHub(t, server);
    const { request, contents } = release({ a: "1" });
    const [bytes] = contents.values();
    assert.ok(bytes !== undefined);
    const stranger = Buffer.from("nobody asked");
    const send = async (body: Uint8Array[]) => codeOf(await sendLoad(hub, body));
    assert.equal(await send([Buffer.from("GET / HTTP/1.1")]), "REQUEST_INVALID");
    assert.equal(await send([encodeMagic(), encodeEnd(0)]), "REQUEST_INVALID");
    assert.equal(
      await send([encodeMagic(), encodeDocument({ ...request, extra: 1 }), encodeEnd(0)]),
      "REQUEST_INVALID",
    );
    assert.equal(
      await send([encodeMagic(), encodeDocument(request), encodeDocument(request), encodeEnd(0)]),
      "REQUEST_INVALID",
    );
    assert.equal(await send([...loadStream(request, [stranger])]), "REQUEST_INVALID");
    assert.equal(await send([...loadStream(request, [])]), "LOAD_CONFLICT");
    assert.equal(codeOf(await ask(hub, "POST", "/v1/loads", { body: request })), "REQUEST_INVALID");
    const { request: liar } = release({ a: "1" });
    const [file] = liar.files;
    assert.ok(file !== undefined);
    const doubled = { ...liar, files: [file, { ...file, path: "b", size: 2 }] };
    assert.equal(await send([...loadStream(doubled, [bytes])]), "LOAD_REFUSED");
  });

  test("limits: a document or a content beyond them is refused before it is taken in", async (t) => {
    const hub = await startTestHub(t, server, {
      limits: { documentBytesMax: 2_000, contentBytesMax: 10_000 },
    });
    const long = release(
      Object.fromEntries(Array.from({ length: 50 }, (_, index) => [`file-${index}`, "x"])),
    );
    assert.equal(codeOf(await sendLoad(hub, loadStream(long.request, []))), "CONTENT_TOO_LARGE");
    assert.equal(
      codeOf(await ask(hub, "POST", "/v1/loads/compare", { body: long.request })),
      "CONTENT_TOO_LARGE",
    );
    const large = release({ large: { content: randomBytes(20_000) } });
    assert.equal(
      codeOf(await sendLoad(hub, loadStream(large.request, large.contents.values()))),
      "CONTENT_TOO_LARGE",
    );
    assert.equal((await countRows(hub.pool)).content, 0);
  });

  test("contents of every size come out as they went in", async (t) => {
    const hub = await startTestHub(t, server);
    const mebibyte = 2 ** 20;
    const sizes = [0, 1, 2, 1000, mebibyte - 1, mebibyte, mebibyte + 1, 2 * mebibyte, 3 * mebibyte + 7];
    const files = Object.fromEntries(
      sizes.flatMap((size) => [
        [`random-${size}`, { content: randomBytes(size) }],
        [`repeated-${size}`, { content: Buffer.alloc(size, `${size} and so on `) }],
      ]),
    );
    const what = release(files);
    assert.equal(await loadAndSettle(hub, what), 1);
    for (const [sha256, bytes] of what.contents) {
      const answer = await ask(hub, "GET", `/v1/files/sha256/${sha256}`);
      assert.ok(answer.body.equals(bytes), `${bytes.length} bytes`);
    }
    // A file that is there twice, and one that is there already, travel once or not at all.
    const twice = release(
      { one: "the same", two: "the same", three: { content: Buffer.alloc(1000, "1000 and so on ") } },
      { module: "B" },
    );
    const result = await load(hub, twice);
    assert.equal(result.contents, 1);
  });

  test("concurrent loads follow one another, and each is whole", async (t) => {
    const hub = await startTestHub(t, server);
    const loads = Array.from({ length: 4 }, (_, number) => {
      const files = Object.fromEntries(
        Array.from({ length: 50 }, (_, file) => [
          `m${number}/f${file}`,
          `${number} ${file} ${"x".repeat(file * 100)}`,
        ]),
      );
      return load(
        hub,
        release({ ...files, [`shared/${number}`]: "the same content" }, { module: `M${number}` }),
      );
    });
    const results = await Promise.all(loads);
    assert.deepEqual(
      results.map((result) => result.added),
      [51, 51, 51, 51],
    );
    await hub.settled();
    assert.equal((await paths(hub)).length, 204);
    const { rows } = await hub.pool.query("select from release_load where revision is null");
    assert.equal(rows.length, 0);
  });

  /** A load that stands still in the middle of its upload until it is told to go on. */
  function haltingLoad(
    hub: TestHub,
    { request, contents }: Release,
  ): { goOn: () => void; answer: Promise<Answer> } {
    const pieces = [...loadStream(request, contents.values())];
    const { promise: held, resolve: goOn } = Promise.withResolvers<void>();
    const half = async function* () {
      const last = pieces.slice(2);
      const [content = Buffer.alloc(0)] = last;
      yield* pieces.slice(0, 2);
      yield content.subarray(0, content.length - 10);
      await held;
      yield content.subarray(content.length - 10);
      yield* last.slice(1);
    };
    return { goOn, answer: sendLoad(hub, half()) };
  }

  test("an upload keeps nobody from loading, assigning or collecting", async (t) => {
    const hub = await startTestHub(t, server);
    await loadAndSettle(hub, release({ old: "1" }, { module: "OLD" }));
    const slow = haltingLoad(
      hub,
      release({ slow: { content: randomBytes(3 * 2 ** 20) } }, { module: "SLOW" }),
    );
    await untilUploading(hub.pool);
    await loadAndSettle(hub, release({ quick: "1" }, { module: "QUICK" }));
    const assign = { match: "quick", add: ["role:Server"], remove: [], only: true };
    assert.equal((await ask(hub, "POST", "/v1/files/assign", { body: assign })).status, 200);
    assert.equal((await ask(hub, "POST", "/v1/files/remove", { body: { match: "old" } })).status, 200);
    await hub.settled();
    slow.goOn();
    assert.equal((await slow.answer).status, 200);
    const { rows } = await hub.pool.query<{ path: string }>("select path from file_revision order by path");
    assert.deepEqual(
      rows.map(({ path }) => path).filter((path) => path !== "Update.zip"),
      ["quick", "slow"],
    );
  });

  test("a content that two loads send at the same time is stored once", async (t) => {
    const hub = await startTestHub(t, server);
    const content = randomBytes(3 * 2 ** 20);
    const slow = haltingLoad(hub, release({ one: { content }, mine: "1" }, { module: "ONE" }));
    await untilUploading(hub.pool);
    const second = release({ two: { content }, other: "2" }, { module: "TWO" });
    const answer = await sendLoad(hub, loadStream(second.request, second.contents.values()));
    assert.deepEqual([answer.status, answer.json().contents], [200, 2]);
    slow.goOn();
    const later = await slow.answer;
    assert.deepEqual([later.status, later.json().contents], [200, 1]);
    await hub.settled();
    const { rows } = await hub.pool.query<{ bytes: number }>(
      "select sum(octet_length(bytes))::int as bytes from content_part where octet_length(bytes) > 100000",
    );
    assert.equal(rows[0]?.bytes, content.length);
    const sha256 = hash("sha256", content, "hex");
    assert.ok((await ask(hub, "GET", `/v1/files/sha256/${sha256}`)).body.equals(content));
  });

  test("what is decided before an upload is decided again after it", async (t) => {
    const hub = await startTestHub(t, server);
    const slow = haltingLoad(
      hub,
      release({ file: { content: randomBytes(3 * 2 ** 20) } }, { module: "ONE" }),
    );
    await untilUploading(hub.pool);
    await loadAndSettle(hub, release({ file: "2" }, { module: "TWO" }));
    slow.goOn();
    assert.equal(codeOf(await slow.answer), "LOAD_REFUSED");
    const { rows } = await hub.pool.query("select from content_part where octet_length(bytes) > 50000");
    assert.equal(rows.length, 0);
  });

  test("what another writer changes between comparison and load makes a conflict, and loading again works", async (t) => {
    const hub = await startTestHub(t, server);
    await loadAndSettle(hub, release({ a: "old", keep: "x" }));
    const what = release({ a: "x", keep: "x" }, { version: "2" });
    const { missing } = await askJson<LoadComparison>(hub, "POST", "/v1/loads/compare", what.request);
    assert.deepEqual(missing, []);
    // The content that the comparison counted on goes: its file, the revisions that held it, then a collection.
    await hub.pool.query("update setting set value = '1' where name = 'Common/Revision/Keep'");
    await ask(hub, "POST", "/v1/files/remove", { body: { match: "keep" } });
    await hub.settled();
    await load(hub, release({ a: "newer" }, { version: "1.5" }));
    await hub.settled();
    assert.equal(codeOf(await sendLoad(hub, loadStream(what.request, []))), "LOAD_CONFLICT");
    assert.equal((await load(hub, what)).changes, true);
  });
});

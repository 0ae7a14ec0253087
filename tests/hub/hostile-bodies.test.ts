import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { CONTENT_STREAM_TYPE, encodeMagic } from "@lockstep/protocol";
import { usePostgres } from "../support/postgres.ts";
import { type Answer, ask, codeOf } from "./support/requests.ts";
import { startProcess } from "./support/start-process.ts";
import { connectionString, temporaryDirectory } from "./support/test-hub.ts";

const MEBIBYTE = 2 ** 20;
/** Before there were bounds it was 565 to 935 MiB for a single one of them; now it is some 350 for all together. */
const MEMORY_MAX = 500 * MEBIBYTE;

function* repeated(piece: Buffer, times: number): Generator<Buffer> {
  for (let index = 0; index < times; index++) yield piece;
}

const mebibyteOf = (text: string) => Buffer.alloc(MEBIBYTE, text);

describe("bodies that are meant to cost more than they are", () => {
  const server = usePostgres();

  test("are refused by their code, the client hears it, and the hub stays small", async (t) => {
    const database = await server.database(t, { empty: true });
    const hub = await startProcess(t, {
      dataDirectory: await temporaryDirectory(t),
      database: connectionString(database.address),
      development: true,
    });
    const at = { url: hub.url, token: "" };
    const json = (path: string, pieces: Iterable<Buffer>, length?: number): Promise<Answer> =>
      ask(at, "POST", path, {
        stream: pieces,
        headers: {
          "content-type": "application/json",
          ...(length === undefined ? {} : { "content-length": String(length) }),
        },
      });
    const load = (length: number, pieces: Iterable<Buffer>): Promise<Answer> => {
      const head = Buffer.alloc(5);
      head[0] = 2;
      head.writeUInt32BE(length, 1);
      const stream = (function* () {
        yield Buffer.concat([encodeMagic(), head]);
        yield* pieces;
      })();
      return ask(at, "POST", "/v1/loads", { stream, headers: { "content-type": CONTENT_STREAM_TYPE } });
    };
    const blank = mebibyteOf(" ");
    const compare = "/v1/loads/compare";
    const assign = "/v1/files/assign";
    for (let round = 0; round < 3; round++) {
      // Announced: not read at all. Unannounced: read to the limit. In both cases the client is in the middle of it.
      assert.equal(codeOf(await json(compare, repeated(blank, 300), 300 * MEBIBYTE)), "CONTENT_TOO_LARGE");
      assert.equal(codeOf(await json(compare, repeated(blank, 300))), "CONTENT_TOO_LARGE");
      assert.equal(codeOf(await json(assign, repeated(blank, 300), 300 * MEBIBYTE)), "CONTENT_TOO_LARGE");
      assert.equal(codeOf(await json(assign, repeated(blank, 300))), "CONTENT_TOO_LARGE");
      assert.equal(codeOf(await load(250 * MEBIBYTE, repeated(blank, 250))), "CONTENT_TOO_LARGE");
    }
    assert.equal(codeOf(await json(compare, repeated(mebibyteOf("["), 8))), "REQUEST_INVALID");
    assert.equal(codeOf(await json(compare, repeated(mebibyteOf("[],"), 30))), "REQUEST_INVALID");
    assert.equal(codeOf(await json(compare, repeated(mebibyteOf('{"a":'), 30))), "REQUEST_INVALID");
    assert.equal(codeOf(await load(8 * MEBIBYTE, repeated(mebibyteOf("["), 8))), "REQUEST_INVALID");
    const crumbs = repeated(Buffer.from(" "), 100_000);
    assert.equal(codeOf(await json(assign, crumbs)), "REQUEST_INVALID");

    const status = await readFile(`/proc/${hub.process.pid}/status`, "utf8");
    const peak = Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) * 1024;
    t.diagnostic(`peak memory ${Math.round(peak / MEBIBYTE)} MiB`);
    assert.ok(peak < MEMORY_MAX, `${Math.round(peak / MEBIBYTE)} MiB`);
  });
});

import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { describe, test } from "node:test";
import { usePostgres } from "../support/postgres.ts";
import { loadStream, release, sendLoad } from "./support/release.ts";
import { ask, codeOf } from "./support/requests.ts";
import { startTestHub, type TestHub } from "./support/test-hub.ts";

const HUGE = ["9007199254740992", "99999999999999999999", "999999999999999999999", "1e400", "-1", "NaN"];

describe("odd requests", () => {
  const server = usePostgres();

  /** Sends bytes and reads until the hub closes; returns status and body. */
  async function raw(hub: TestHub, request: string): Promise<{ status: number; code: string }> {
    const { hostname, port } = new URL(hub.url);
    const socket = connect(Number(port), hostname);
    let answer = "";
    socket.setEncoding("latin1").on("data", (chunk) => {
      answer += chunk;
    });
    await once(socket, "connect");
    socket.write(request, "latin1");
    await once(socket, "close");
    const [head = "", body = ""] = answer.split("\r\n\r\n");
    assert.match(head, /content-type: application\/json/i, answer);
    return { status: Number(head.split(" ")[1]), code: JSON.parse(body).error.code };
  }

  test("numbers that nobody can hold are no fault of the hub", async (t) => {
    const hub = await startTestHub(t, server);
    const codes = ["REQUEST_INVALID", "REVISION_UNKNOWN", "NOT_FOUND"];
    for (const number of HUGE)
      for (const [method, path] of [
        ["GET", `/v1/revisions/${number}`],
        ["POST", `/v1/revisions/${number}/revert`],
        ["GET", `/v1/revisions?limit=${number}`],
        ["GET", `/v1/revisions/diff?from=${number}&to=1`],
        ["GET", `/v1/revisions/diff?from=0&to=${number}`],
        ["GET", `/v1/revision?after=${number}&wait=1`],
        ["GET", `/v1/revision?after=0&wait=${number}`],
        ["GET", `/v1/loads/${number}/revision`],
        ["GET", `/v1/loads/1/revision?wait=${number}`],
        ["GET", `/v1/files?limit=${number}`],
      ] as const)
        assert.ok(codes.includes(codeOf(await ask(hub, method, path))), `${method} ${path}`);
    // The largest numbers that can be held are merely not there.
    const largest = Number.MAX_SAFE_INTEGER;
    assert.equal(codeOf(await ask(hub, "GET", `/v1/revisions/${largest}`)), "REVISION_UNKNOWN");
    assert.equal(codeOf(await ask(hub, "GET", `/v1/loads/${largest}/revision`)), "NOT_FOUND");
  });

  test("texts that the database cannot store are no fault of the hub", async (t) => {
    const hub = await startTestHub(t, server);
    const refused = async (method: string, path: string, body?: unknown) => {
      const answer = await ask(hub, method, path, body === undefined ? {} : { body });
      assert.ok(answer.status < 500, `${method} ${path}: ${answer.body.toString("utf8")}`);
    };
    await refused("GET", "/v1/files?match=%00");
    await refused("GET", "/v1/files?after=%00");
    await refused("POST", "/v1/files/remove", { match: "a\0b" });
    await refused("POST", "/v1/files/assign", { match: "**", add: ["role:A\0"], remove: [], only: false });
    await refused("PUT", "/v1/dbqueue/stopped", { stopped: true, reason: "a\0" });
    const half = { host: "h", directory: "/opt", roles: ["\ud800"], packages: [], revision: 1 };
    await refused("PUT", "/v1/installations/i", {
      ...half,
      outcome: "updated",
      problem: null,
      autoUpdate: true,
      updaterVersion: "1",
    });
    await refused("PUT", "/v1/installations/i", {
      host: "a\0",
      directory: "/opt\ud800",
      roles: ["\0"],
      packages: [],
      revision: Number.MAX_SAFE_INTEGER,
      outcome: "updated",
      problem: "\0",
      autoUpdate: true,
      updaterVersion: "1",
    });
    const { request, contents } = release({ a: "1" }, { note: "a\0b" });
    const answer = await sendLoad(hub, loadStream(request, contents.values()));
    assert.equal(codeOf(answer), "REQUEST_INVALID");
  });

  test("what never reaches a route is answered by a code as well", async (t) => {
    const hub = await startTestHub(t, server);
    const close = "Host: 127.0.0.1\r\nConnection: close\r\n\r\n";
    const get = (path: string, head = close) => raw(hub, `GET ${path} HTTP/1.1\r\n${head}`);
    const invalid = (status: number) => ({ status, code: "REQUEST_INVALID" });
    assert.deepEqual(await get("/v1/%ff%fe"), invalid(400));
    assert.deepEqual(await get("/v1/files/sha256/%zz"), invalid(400));
    assert.deepEqual(await get(`/v1/files/sha256/${"0".repeat(9_000)}`), invalid(414));
    assert.deepEqual(await get(`/v1/${"x".repeat(70_000)}`), invalid(431));
    assert.deepEqual(await get("/v1/revision", `X: ${"y".repeat(70_000)}\r\n${close}`), invalid(431));
    assert.deepEqual(await get("/v1/revision", `no header at all\r\n${close}`), invalid(400));
    assert.deepEqual(await raw(hub, "\x16\x03\x01\x02\x00 this is no HTTP\r\n\r\n"), invalid(400));
  });
});

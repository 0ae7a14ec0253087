import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { describe, type TestContext, test } from "node:test";
import { usePostgres } from "../support/postgres.ts";
import { loadAndSettle, release } from "./support/release.ts";
import { ask } from "./support/requests.ts";
import { startTestHub, type TestHub } from "./support/test-hub.ts";

/** More than there are places at any gate. */
const READERS = 80;

describe("readers that take nothing", () => {
  const server = usePostgres();
  const bytes = randomBytes(24 * 2 ** 20);

  /** Asks for something large and reads nothing of the answer. */
  async function stall(t: TestContext, hub: TestHub, head: string[], body = ""): Promise<Socket> {
    const { hostname, port } = new URL(hub.url);
    const socket = connect(Number(port), hostname);
    t.after(() => socket.destroy());
    socket.on("error", () => {});
    await once(socket, "connect");
    const lines = [...head, `Host: ${hostname}:${port}`, `Authorization: Bearer ${hub.token}`];
    socket.write([...lines, "Connection: close", "", body].join("\r\n"));
    return socket;
  }

  async function hubWithReaders(
    t: TestContext,
    head: (digest: string) => string[],
    body?: (digest: string) => string,
  ) {
    const hub = await startTestHub(t, server, { pace: { windowMs: 300, bytesMin: 1024 } });
    const what = release({ large: { content: bytes }, small: "small" });
    await loadAndSettle(hub, what);
    const [large = "", small = ""] = what.contents.keys();
    const readers: Socket[] = [];
    for (let index = 0; index < READERS; index++)
      readers.push(await stall(t, hub, head(large), body?.(large)));
    return { hub, readers, large, small };
  }

  /** Reads on until the connection ends and returns how much came. */
  async function drain(socket: Socket): Promise<number> {
    let length = 0;
    socket.on("data", (chunk: Buffer) => {
      length += chunk.length;
    });
    if (!socket.destroyed && !socket.readableEnded) await once(socket, "close");
    return length;
  }

  /** Whoever got a place late may get everything while we read; those before must have been cut. */
  async function someCut(readers: readonly Socket[], whole: number): Promise<void> {
    const lengths = await Promise.all(readers.map(drain));
    assert.ok(lengths.some((length) => length > 0 && length < whole));
  }

  test("of files are cut, so others get their turn, and can fetch the rest later", async (t) => {
    const { hub, readers, large } = await hubWithReaders(t, (digest) => [
      `GET /v1/files/sha256/${digest} HTTP/1.1`,
    ]);
    const whole = await ask(hub, "GET", `/v1/files/sha256/${large}`);
    assert.ok(whole.body.equals(bytes));
    await someCut(readers, bytes.length);
    const rest = await ask(hub, "GET", `/v1/files/sha256/${large}`, { headers: { range: "bytes=1000000-" } });
    assert.ok(rest.body.equals(bytes.subarray(1_000_000)));
  });

  test("of bundles as well", async (t) => {
    const body = (digest: string) => JSON.stringify({ sha256: [digest, digest] });
    const { hub, readers, large, small } = await hubWithReaders(
      t,
      (digest) => [
        "POST /v1/bundle HTTP/1.1",
        "Content-Type: application/json",
        `Content-Length: ${body(digest).length}`,
      ],
      body,
    );
    const bundle = await ask(hub, "POST", "/v1/bundle", { body: { sha256: [large, small] } });
    assert.equal(bundle.status, 200);
    assert.ok(bundle.body.length > bytes.length);
    await someCut(readers, 2 * bytes.length);
  });
});

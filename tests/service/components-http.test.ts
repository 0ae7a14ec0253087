import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { LockstepError } from "@lockstep/protocol";
import { StopOrder } from "../../packages/service/src/components/stop-order.ts";
import { makeCertificate } from "../support/certificate.ts";
import { aStep, run, temporaryDirectory } from "./one-step.ts";

interface Seen {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}
type Answer = (seen: Seen, response: ServerResponse) => void;

/** A real server on a free port that remembers what it was asked. */
async function serve(t: TestContext, answer: Answer, tls?: { cert: Buffer; key: Buffer }) {
  const seen: Seen[] = [];
  const listener = (request: IncomingMessage, response: ServerResponse) => {
    const chunks: Buffer[] = [];
    request
      .on("data", (chunk: Buffer) => chunks.push(chunk))
      .on("end", () => {
        const one = {
          method: request.method ?? "",
          url: request.url ?? "",
          headers: request.headers,
          body: Buffer.concat(chunks).toString(),
        };
        seen.push(one);
        answer(one, response);
      });
  };
  const server: Server = tls === undefined ? createServer(listener) : createTlsServer(tls, listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { url: `http${tls === undefined ? "" : "s"}://127.0.0.1:${port}`, seen };
}

const json = (response: ServerResponse, value: unknown, status = 200) =>
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));

test("method, headers and body arrive, with the idempotency key; pointers give parameters", async (t) => {
  const server = await serve(t, (_, response) =>
    json(response, { items: [{ "a/b": "x", n: 5 }], ok: true }, 201),
  );
  const ended = await run(
    t,
    aStep("Http.Request", {
      url: `${server.url}/things?a=1`,
      method: "POST",
      headers: { Authorization: "Bearer t" },
      body: { name: "é" },
      output: { id: "/items/0/a~1b", n: "/items/0/n", ok: "/ok" },
    }),
  );
  assert.deepEqual(
    [ended.outcome, ended.output],
    ["success", { status: 201, id: "x", n: 5, ok: true }],
    ended.message,
  );
  const [seen] = server.seen;
  assert.deepEqual(
    [
      seen?.method,
      seen?.url,
      seen?.body,
      seen?.headers.authorization,
      seen?.headers["content-type"],
      seen?.headers["idempotency-key"],
    ],
    ["POST", "/things?a=1", '{"name":"é"}', "Bearer t", "application/json", "key-of-step-7"],
  );
});

test("the hub's token is never sent, and the transport's fields cannot be set", async (t) => {
  process.env.LOCKSTEP_TOKEN = "token-of-the-hub";
  t.after(() => delete process.env.LOCKSTEP_TOKEN);
  const server = await serve(t, (_, response) => json(response, {}));
  await run(t, aStep("Http.Request", { url: server.url }));
  assert.doesNotMatch(JSON.stringify(server.seen), /token-of-the-hub|authorization|idempotency/);
  const ended = await run(
    t,
    aStep("Http.Request", {
      url: "http://user:pw@127.0.0.1/",
      headers: { "Content-Length": "3" },
      method: "GETT",
      output: { status: "x" },
    }),
  );
  assert.match(ended.message, /4 faults/);
  for (const headers of [{ "X-A": "a\r\nX-B: b" }, { "X A": "b" }])
    assert.equal((await run(t, aStep("Http.Request", { url: server.url, headers }))).permanent, true);
});

test("an answer is permanent or may be tried again, by its status", async (t) => {
  const server = await serve(t, ({ url }, response) => {
    response.writeHead(Number(url.slice(1))).end("why: secret-token");
  });
  const ask = (status: number, more: object = {}) =>
    run(t, aStep("Http.Request", { url: `${server.url}/${status}`, ...more }));
  for (const [status, permanent] of [
    [500, false],
    [503, false],
    [429, false],
    [408, false],
    [404, true],
    [401, true],
    [501, true],
  ] as const) {
    const ended = await ask(status, { body: "secret-token", method: "POST" });
    assert.deepEqual([ended.outcome, ended.permanent, ended.output], ["error", permanent, { status }]);
    assert.match(ended.message, new RegExp(`POST http.*/${status} answered ${status}: why`));
  }
  assert.equal((await ask(404, { expectedStatus: [404] })).outcome, "success");
  assert.equal((await ask(404, { retryStatus: [404] })).permanent, false);
  const masked = await run(
    t,
    aStep(
      "Http.Request",
      { url: `${server.url}/500`, headers: { x: "secret-token" } },
      { hidden: ["headers"] },
    ),
  );
  assert.match(masked.message, /why: <HIDDEN>/);
});

test("credentials and bodies never go to another origin", async (t) => {
  const other = await serve(t, (_, response) => json(response, { here: "other" }));
  const own = await serve(t, ({ url }, response) => {
    const status = Number(url.slice(1, 4));
    response.writeHead(status, { location: url.endsWith("own") ? "/200" : `${other.url}/` }).end("{}");
  });
  const headers = {
    authorization: "Bearer t",
    cookie: "c=1",
    "x-anything": "token",
    accept: "application/json",
  };
  const go = (path: string, more: object = {}) =>
    run(t, aStep("Http.Request", { url: `${own.url}/${path}`, headers, ...more }));
  const ended = await go("302");
  assert.equal(ended.outcome, "success", ended.message);
  const got: IncomingMessage["headers"] = other.seen[0]?.headers ?? {};
  assert.deepEqual(
    [got.authorization, got.cookie, got["x-anything"], got.accept, got.host],
    [undefined, undefined, undefined, "application/json", new URL(other.url).host],
  );
  await go("302-own");
  assert.equal(own.seen.at(-1)?.headers.authorization, "Bearer t");
  for (const status of [307, 308]) {
    const refused = await go(String(status), { method: "POST", body: "password" });
    assert.deepEqual([refused.outcome, refused.permanent], ["error", true]);
  }
  await go("303", { method: "POST", body: "password" });
  assert.deepEqual(
    [other.seen.at(-1)?.method, other.seen.at(-1)?.body, other.seen.at(-1)?.headers["idempotency-key"]],
    ["GET", "", undefined],
  );
  await go("307-own", { method: "POST", body: "password" });
  assert.deepEqual(
    [own.seen.at(-1)?.method, own.seen.at(-1)?.body, own.seen.at(-1)?.url],
    ["POST", "password", "/200"],
  );
  const plain = await go("302", { redirects: 0 });
  assert.match(plain.message, /answered 302/);
  assert.equal((await go("302", { redirects: 0, expectedStatus: [302] })).outcome, "success");
});

test("redirects in a ring end, and none leads to a file or from https to http", async (t) => {
  const ring = await serve(t, (_, response) => response.writeHead(302, { location: "/again" }).end());
  const ended = await run(t, aStep("Http.Request", { url: ring.url, redirects: 3 }));
  assert.match(ended.message, /more than 3 times/);
  assert.equal(ring.seen.length, 4);
  const file = await serve(t, (_, response) =>
    response.writeHead(302, { location: "file:///etc/passwd" }).end(),
  );
  assert.match((await run(t, aStep("Http.Request", { url: file.url }))).message, /no http address/);
});

test("a long answer is cut off, a silent server too, and both are said", async (t) => {
  const server = await serve(t, ({ url }, response) => {
    if (url === "/silent") return;
    response.writeHead(200);
    const more = () => {
      while (!response.destroyed && response.write("x".repeat(65_536)));
      response.once("drain", more);
    };
    more();
  });
  const long = await run(
    t,
    aStep("Http.Request", { url: `${server.url}/long`, answerBytes: 100_000, keepBody: true }),
  );
  assert.match(long.message, /more than 100000 bytes/);
  const silent = await run(t, aStep("Http.Request", { url: `${server.url}/silent`, timeLimitSeconds: 1 }));
  assert.deepEqual([silent.permanent, /within 1 s/.test(silent.message)], [false, true], silent.message);
  const limited = await run(t, aStep("Http.Request", { url: `${server.url}/silent` }, { timeLimitMs: 100 }));
  assert.match(limited.message, /^JOB_TIME_LIMIT/);
});

test("a lost lease ends a request at once", async (t) => {
  const order = new StopOrder();
  const server = await serve(t, () => order.give(new LockstepError("INTERRUPTED", "the service stops")));
  const ended = await run(t, aStep("Http.Request", { url: server.url }), { stop: order });
  assert.equal(ended.outcome, "given-back");
});

test("nobody there may be tried again; no JSON where some is wanted may not", async (t) => {
  const gone = await serve(t, (_, response) => response.end());
  const ended = await run(t, aStep("Http.Request", { url: "http://127.0.0.1:1/" }));
  assert.deepEqual([ended.outcome, ended.permanent], ["error", false], ended.message);
  assert.match(ended.message, /ECONNREFUSED/);
  const text = await run(t, aStep("Http.Request", { url: gone.url, output: { a: "/a" } }));
  assert.match(text.message, /not with JSON/);
  const broken = await serve(t, (_, response) => response.socket?.destroy());
  assert.equal((await run(t, aStep("Http.Request", { url: broken.url }))).permanent, false);
});

test("https needs a certificate that is trusted; a CA file makes one", async (t) => {
  const directory = await temporaryDirectory(t);
  const { certFile, keyFile } = await makeCertificate(directory);
  const plain = await serve(t, (_, response) => json(response, {}));
  const server = await serve(
    t,
    ({ url }, response) =>
      url === "/down" ? response.writeHead(302, { location: plain.url }).end() : json(response, {}),
    { cert: await readFile(certFile), key: await readFile(keyFile) },
  );
  const stranger = await run(t, aStep("Http.Request", { url: server.url }));
  assert.deepEqual([stranger.outcome, stranger.permanent], ["error", true], stranger.message);
  assert.equal(server.seen.length, 0, "nothing was sent");
  const trusted = await run(t, aStep("Http.Request", { url: server.url, caFile: certFile }));
  assert.equal(trusted.outcome, "success", trusted.message);
  const down = await run(t, aStep("Http.Request", { url: `${server.url}/down`, caFile: certFile }));
  assert.match(down.message, /from https to http/);
  const absent = await run(t, aStep("Http.Request", { url: server.url, caFile: join(directory, "absent") }));
  assert.equal(absent.permanent, true, absent.message);
});

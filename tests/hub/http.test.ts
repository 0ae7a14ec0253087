import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { describe, test } from "node:test";
import { createLogger, systemClock } from "@lockstep/platform";
import { usePostgres } from "../support/postgres.ts";
import { loadAndSettle, release, load as sendRelease } from "./support/release.ts";
import { ask, askJson, codeOf } from "./support/requests.ts";
import { startTestHub, type TestHub } from "./support/test-hub.ts";

interface Operation {
  readonly method: string;
  readonly path: string;
}

const OPEN = ["GET /health", "GET /openapi.json", "GET /v1/revision"];

describe("the HTTP interface", () => {
  const server = usePostgres();

  /** Every route of the hub, as its own description lists them, with something in place of parameters. */
  async function operations(hub: TestHub): Promise<Operation[]> {
    const document = await askJson<{ paths: Record<string, Record<string, unknown>> }>(
      hub,
      "GET",
      "/openapi.json",
    );
    return Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => ({
        method: method.toUpperCase(),
        path: path.replace("{sha256}", "0".repeat(64)).replace(/\{[a-z]+\}/g, "1"),
      })),
    );
  }

  /** Sends the head of a request alone and returns the first line of the answer. */
  async function askWithoutBody(
    hub: TestHub,
    { method, path }: Operation,
    headers: string[],
  ): Promise<string> {
    const { hostname, port } = new URL(hub.url);
    const socket = connect(Number(port), hostname);
    const head = [`${method} ${path} HTTP/1.1`, `Host: ${hostname}:${port}`, ...headers, "", ""].join("\r\n");
    return await new Promise<string>((resolve, reject) => {
      let answer = "";
      socket.on("connect", () => socket.write(head));
      socket.on("data", (chunk) => {
        answer += chunk.toString("latin1");
        if (answer.includes("\r\n")) {
          resolve(answer.slice(0, answer.indexOf("\r\n")));
          socket.destroy();
        }
      });
      socket.on("error", reject);
    });
  }

  test("every route but three, and three that show who asks, wants the token, before any of the body is read", async (t) => {
    const hub = await startTestHub(t, server);
    const all = await operations(hub);
    assert.ok(all.length >= 24, `${all.length} routes`);
    // All at once: a refusal before the body keeps its connection open for a moment.
    const tryOne = async (operation: (typeof all)[number]) => {
      const name = `${operation.method} ${operation.path}`;
      const body = ["Content-Type: application/json", "Content-Length: 1000000"];
      const without = await askWithoutBody(hub, operation, body);
      const wrong = await askWithoutBody(hub, operation, [
        ...body,
        "Authorization: Bearer wrong-wrong-wrong-wrong",
      ]);
      const basic = await askWithoutBody(hub, operation, [...body, "Authorization: Basic d3Jvbmc6d3Jvbmc="]);
      if (OPEN.includes(name)) assert.match(without, / 200 /, name);
      // These show in their body who asks; a body that cannot be read shows nothing.
      else if (/^POST \/v1\/installations\/\w+\/(enrolment|session)$/.test(name))
        assert.match(without, / 400 /, name);
      // Each of the reports in it shows who asks; as long as this it is not read.
      else if (name === "POST /v1/installations/reports") assert.match(without, / 413 /, name);
      else {
        assert.match(without, / 401 /, name);
        assert.match(wrong, / 403 /, name);
        assert.match(basic, / 403 /, name);
      }
    };
    await Promise.all(all.map(tryOne));
    assert.equal(codeOf(await ask(hub, "GET", "/v1/files", { token: null })), "AUTHENTICATION_REQUIRED");
    assert.equal(codeOf(await ask(hub, "GET", "/v1/nothing", { token: null })), "AUTHENTICATION_REQUIRED");
    assert.equal(codeOf(await ask(hub, "GET", "/v1/nothing")), "NOT_FOUND");
  });

  const places = "/proc/sys/net/core/somaxconn";
  test("seven hundred clients who come while the hub is busy stand in line", {
    skip:
      (!existsSync(places) || Number(readFileSync(places, "utf8")) < 1_000) && "the system has fewer places",
  }, async (t) => {
    const hub = await startTestHub(t, server);
    const { hostname, port } = new URL(hub.url);
    const program = `
      import { connect } from "node:net";
      let open = 0;
      const opened = () => ++open === 700 && process.exit(0);
      for (let n = 0; n < 700; n++) connect(${port}, "${hostname}", opened);
    `;
    // Until this returns nobody here takes a connection.
    const { status } = spawnSync(process.execPath, ["--input-type=module", "--eval", program]);
    assert.equal(status, 0);
    assert.equal((await ask(hub, "GET", "/health")).status, 200);
  });

  test("the description lists every route that the server knows, and names its components", async (t) => {
    const hub = await startTestHub(t, server);
    const document = await askJson<{
      openapi: string;
      paths: Record<string, Record<string, { responses: Record<string, unknown> }>>;
      components: { schemas: Record<string, unknown> };
    }>(hub, "GET", "/openapi.json");
    assert.equal(document.openapi, "3.1.0");
    assert.ok(!JSON.stringify(document).includes("def-"));
    for (const name of ["Revision", "LoadRequest", "LoadComparison", "Error", "Semaphore"])
      assert.ok(name in document.components.schemas, name);
    const show = document.paths["/v1/revisions/{number}"]?.get?.responses["200"];
    assert.match(JSON.stringify(show), /#\/components\/schemas\/Revision"/);
    for (const path of Object.keys(document.paths)) assert.match(path, /^\/(?:v1\/|health$)/);
    const page = await readFile(join(import.meta.dirname, "../../docs/reference/http.md"), "utf8");
    const listed = [...page.matchAll(/`(GET|POST|PUT|DELETE) (\/[^\s`?]+)`/g)].map(
      (match) => `${match[1]} ${match[2]}`,
    );
    const known = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    assert.deepEqual(
      [...new Set(listed)].filter((route) => route !== "GET /openapi.json").sort(),
      known.sort(),
    );
  });

  test("without a token only this machine is heard, and no other site's page", async (t) => {
    const hub = await startTestHub(t, server, { development: true });
    assert.equal(hub.token, "");
    assert.equal((await ask(hub, "GET", "/v1/files")).status, 200);
    const foreign = async (headers: Record<string, string>) =>
      codeOf(await ask(hub, "POST", "/v1/setup", { headers }));
    assert.equal(await foreign({ host: "evil.example" }), "AUTHENTICATION_FAILED");
    assert.equal(await foreign({ host: "127.0.0.1.evil.example:80" }), "AUTHENTICATION_FAILED");
    assert.equal(await foreign({ origin: "https://evil.example" }), "AUTHENTICATION_FAILED");
    assert.equal((await ask(hub, "GET", "/v1/revision", { headers: { host: "evil.example" } })).status, 403);
    assert.equal((await ask(hub, "GET", "/v1/files", { headers: { host: "localhost:1" } })).status, 200);
  });

  test("asking for an unchanged revision takes less than 600 bytes each way", async (t) => {
    const hub = await startTestHub(t, server);
    await loadAndSettle(hub, release({ a: "1" }));
    const { hostname, port } = new URL(hub.url);
    const request = `GET /v1/revision HTTP/1.1\r\nHost: ${hostname}:${port}\r\nIf-None-Match: "1"\r\n\r\n`;
    const socket = connect(Number(port), hostname);
    const answer = await new Promise<string>((resolve, reject) => {
      socket.on("error", reject);
      socket.on("connect", () => socket.write(request));
      socket.once("data", (chunk) => resolve(chunk.toString("latin1")));
    });
    socket.destroy();
    assert.match(answer, /^HTTP\/1\.1 304 /);
    assert.ok(answer.endsWith("\r\n\r\n"));
    assert.ok(Buffer.byteLength(answer) < 600, `${answer.length} bytes`);
  });

  test("the semaphore: conditions, weak tags and lists of tags", async (t) => {
    const hub = await startTestHub(t, server);
    await loadAndSettle(hub, release({ a: "1" }));
    const status = async (tag: string) =>
      (await ask(hub, "GET", "/v1/revision", { headers: { "if-none-match": tag } })).status;
    assert.equal(await status('"1"'), 304);
    assert.equal(await status('W/"1"'), 304);
    assert.equal(await status('"0", "1"'), 304);
    assert.equal(await status("*"), 304);
    assert.equal(await status('"0"'), 200);
    assert.equal(await status('"11"'), 200);
    const answer = await ask(hub, "GET", "/v1/revision");
    assert.equal(answer.headers.etag, '"1"');
    assert.deepEqual(answer.json(), { revision: 1, autoUpdate: true, pollSeconds: 300 });
  });

  test("a long poll is answered when the revision moves, and not before", async (t) => {
    const hub = await startTestHub(t, server);
    let answered = false;
    const poll = ask(hub, "GET", "/v1/revision?after=0&wait=50", {
      headers: { "if-none-match": '"0"' },
    }).then((answer) => {
      answered = true;
      return answer;
    });
    await askJson(hub, "GET", "/v1/status");
    assert.equal(answered, false);
    await loadAndSettle(hub, release({ a: "1" }));
    const answer = await poll;
    assert.equal(answer.status, 200);
    assert.equal(answer.json().revision, 1);
    // Not equal any more: at once.
    assert.equal((await ask(hub, "GET", "/v1/revision?after=0&wait=50")).json().revision, 1);
    // Equal and no time to wait.
    assert.equal(
      (await ask(hub, "GET", "/v1/revision?after=1&wait=0", { headers: { "if-none-match": '"1"' } })).status,
      304,
    );
  });

  test("a long poll does not hold up the end of the hub", async (t) => {
    const hub = await startTestHub(t, server);
    const poll = ask(hub, "GET", "/v1/revision?after=0&wait=50", { headers: { "if-none-match": '"0"' } });
    await askJson(hub, "GET", "/v1/status");
    await hub.running.stop({ graceMs: 60_000 });
    assert.equal((await poll).status, 304);
  });

  test("settings are shown to installations, and wrong ones refused all together", async (t) => {
    const hub = await startTestHub(t, server);
    const put = (body: unknown) => ask(hub, "PUT", "/v1/settings", { body });
    const before = await askJson<Record<string, unknown>>(hub, "GET", "/v1/settings");
    assert.deepEqual(before, {
      "Common/AutoUpdate": true,
      "Common/AutoUpdate/AllowOutOfTimeApps": false,
      "Common/AutoUpdate/PollSeconds": 300,
      "Common/Revision/Keep": 50,
    });
    const wrong = await put({
      "Common/AutoUpdate": "no",
      "Common/AutoUpdate/PollSeconds": 0,
      "DBQueue/Stopped": true,
      Nonsense: 1,
    });
    assert.equal(codeOf(wrong), "REQUEST_INVALID");
    assert.equal((wrong.json() as { error: { faults: unknown[] } }).error.faults.length, 4);
    assert.deepEqual(await askJson(hub, "GET", "/v1/settings"), before);
    assert.equal(
      (await put({ "Common/AutoUpdate": false, "Common/AutoUpdate/PollSeconds": 60 })).status,
      200,
    );
    for (;;) {
      const semaphore = await askJson<{ autoUpdate: boolean; pollSeconds: number }>(
        hub,
        "GET",
        "/v1/revision",
      );
      if (!semaphore.autoUpdate && semaphore.pollSeconds === 60) break;
    }
  });

  test("installations report, and are listed with the time of their last change", async (t) => {
    const hub = await startTestHub(t, server);
    const report = {
      host: "web-1",
      directory: "/opt/app",
      roles: ["Server"],
      packages: [],
      revision: 1,
      outcome: "updated",
      problem: null,
      autoUpdate: true,
      updaterVersion: "0.1.0",
    };
    const list = async () =>
      (
        await askJson<{
          installations: (typeof report & { id: string; seenAt: number; changedAt: number })[];
        }>(hub, "GET", "/v1/installations")
      ).installations;
    assert.equal((await ask(hub, "PUT", "/v1/installations/i-1", { body: report })).status, 204);
    const [first] = await list();
    assert.equal((await ask(hub, "PUT", "/v1/installations/i-1", { body: report })).status, 204);
    const [second] = await list();
    assert.ok(first !== undefined && second !== undefined);
    assert.equal(second.changedAt, first.changedAt);
    assert.ok(second.seenAt >= first.seenAt);
    assert.equal(
      (
        await ask(hub, "PUT", "/v1/installations/i-1", {
          body: { ...report, outcome: "failed", problem: "disk" },
        })
      ).status,
      204,
    );
    const [third] = await list();
    assert.equal(third?.outcome, "failed");
    assert.ok((third?.changedAt ?? 0) >= second.seenAt);
    assert.equal(
      codeOf(await ask(hub, "PUT", "/v1/installations/a%20b", { body: report })),
      "REQUEST_INVALID",
    );
    assert.equal(
      codeOf(await ask(hub, "PUT", "/v1/installations/i-2", { body: { ...report, outcome: "fine" } })),
      "REQUEST_INVALID",
    );
  });

  test("the DBQueue: an emergency stop holds the semaphore, and lifting it loses nothing", async (t) => {
    const hub = await startTestHub(t, server);
    const stopped = await askJson<{ stopped: boolean; stoppedReason: string }>(
      hub,
      "PUT",
      "/v1/dbqueue/stopped",
      { stopped: true, reason: "inventory" },
    );
    assert.deepEqual([stopped.stopped, stopped.stoppedReason], [true, "inventory"]);
    const { load } = await sendRelease(hub, release({ a: "1" }));
    assert.deepEqual(await askJson(hub, "GET", `/v1/loads/${load}/revision`), { revision: null });
    const queue = await askJson<{ tasks: { task: string; waiting: number; blockedBy: string | null }[] }>(
      hub,
      "GET",
      "/v1/dbqueue",
    );
    const task = queue.tasks.find((row) => row.task === "LOCKSTEP-K-SoftwareRevision");
    assert.equal(task?.waiting, 1);
    assert.match(task?.blockedBy ?? "", /emergency stop/);
    await askJson(hub, "PUT", "/v1/dbqueue/stopped", { stopped: false, reason: null });
    assert.deepEqual(await askJson(hub, "GET", `/v1/loads/${load}/revision?wait=50`), { revision: 1 });
    // Whoever was told of the revision finds it, though the notification may still be on its way.
    assert.equal((await askJson<{ revision: number }>(hub, "GET", "/v1/revision")).revision, 1);
  });

  test("a wrong request is answered with what is wrong and where", async (t) => {
    const hub = await startTestHub(t, server);
    const cases: [string, string, unknown][] = [
      ["GET", "/v1/revisions/x", undefined],
      ["GET", "/v1/revisions/diff?from=1", undefined],
      ["GET", "/v1/revisions/diff?from=1&to=2&more=3", undefined],
      ["GET", "/v1/files?limit=0", undefined],
      ["GET", "/v1/files/sha256/ABC", undefined],
      ["POST", "/v1/bundle", { sha256: [] }],
      ["POST", "/v1/bundle", { sha256: ["0"] }],
      ["POST", "/v1/files/assign", { match: "a" }],
      ["POST", "/v1/files/assign", { match: "a", add: ["role:Server"], remove: [], only: false, more: 1 }],
      ["PUT", "/v1/dbqueue/stopped", { stopped: "yes", reason: null }],
    ];
    for (const [method, path, body] of cases) {
      const answer = await ask(hub, method, path, body === undefined ? {} : { body });
      assert.equal(codeOf(answer), "REQUEST_INVALID", `${method} ${path}`);
      const { error } = answer.json() as { error: { faults: { where: string }[] } };
      assert.ok(error.faults.length > 0, `${method} ${path}: ${JSON.stringify(error)}`);
    }
    const text = Buffer.from("{");
    assert.equal(codeOf(await ask(hub, "POST", "/v1/bundle", { body: text })), "REQUEST_INVALID");
    const headers = { "content-type": "text/csv" };
    assert.equal(codeOf(await ask(hub, "POST", "/v1/bundle", { body: text, headers })), "REQUEST_INVALID");
  });

  test("each request leaves one line in the log, without token and query", async (t) => {
    const lines: string[] = [];
    const log = createLogger({
      level: "debug",
      format: "json",
      write: (line) => lines.push(line),
      clock: systemClock,
    });
    const hub = await startTestHub(t, server, { log });
    await ask(hub, "GET", "/v1/files?match=secret-pattern");
    await ask(hub, "GET", "/v1/files", { token: "wrong-token-wrong-token" });
    await ask(hub, "GET", "/v1/nowhere?x=secret-query");
    await hub.stop();
    const requests = lines.map((line) => JSON.parse(line)).filter((line) => line.message === "request");
    assert.deepEqual(
      requests.map((line) => [line.method, line.path, line.status]),
      [
        ["GET", "/v1/files", 200],
        ["GET", "/v1/files", 403],
        ["GET", "/v1/nowhere", 404],
      ],
    );
    const all = lines.join("");
    for (const secret of [hub.token, "wrong-token", "secret-pattern", "secret-query"])
      assert.ok(!all.includes(secret), secret);
  });
});

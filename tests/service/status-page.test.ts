import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, request } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import {
  createLogWriter,
  openStatusPage,
  type ServiceState,
  type StatusConfig,
} from "../../packages/service/src/index.ts";

const QUEUE = 'a"b\\<script>alert(1)</script>\u00e9';

const STATE: ServiceState = {
  phase: "running",
  detail: null,
  startedAtMs: 1_700_000_000_000,
  version: "0.1.0",
  machine: "node-a",
  instance: "6f9f2f2e-7b1c-4a55-9a53-0f9f0b1d2c3e",
  installation: null,
  revision: 41,
  config: { file: "/x/JobService.toml", loadedAtMs: 0, awaitingRestart: [], refused: [] },
  workers: [{ pid: 5, queue: QUEUE, step: null, uses: 1, startedAtMs: 0 }],
  queues: [
    {
      queue: QUEUE,
      hub: { url: "http://127.0.0.1:1", reachable: true, lastAnswerAtMs: 1, revision: 42, lastError: null },
      leaseLeftMs: 20_000,
      updating: false,
      withheld: null,
      internal: { used: 1, total: 20 },
      external: { used: 2, total: 10 },
      waiting: 0,
      results: { waiting: 3, limit: 10_000, oldestAtMs: null },
      counters: {
        claimed: 9,
        succeeded: 5,
        failed: 1,
        deferred: 0,
        givenBack: 0,
        lost: 0,
        timedOut: 0,
        workerCrashes: 0,
        exchanges: 7,
        exchangesFailed: 0,
      },
    },
  ],
  steps: [
    {
      id: 1,
      claim: 2,
      attempt: 1,
      queue: QUEUE,
      process: { id: 3, name: "<b>bold</b>" },
      name: "Step",
      component: "Command",
      task: "Run",
      execution: "external",
      priority: 5,
      state: "error",
      message: "</script><script>alert(2)</script>",
      claimedAtMs: 1,
      startedAtMs: 2,
      endedAtMs: 3,
    },
  ],
};

async function openPage(changes: Partial<StatusConfig> = {}, environment = {}) {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-status-"));
  const log = createLogWriter({
    debugMode: false,
    systemLog: { warning: () => {}, notice: () => {} },
    config: {
      outputFile: join(directory, "log"),
      sizeBytesMax: 1e6,
      historySize: 1,
      severity: "Info",
      paramLengthMax: 100,
      jobLogLifeTimeMs: null,
      jobLogDirectory: directory,
    },
  });
  const state = { current: STATE };
  const page = await openStatusPage({
    config: { enabled: true, address: "127.0.0.1", port: 0, authentication: null, ...changes },
    stateDirectory: join(directory, "state"),
    environment,
    log,
    state: () => state.current,
  });
  const port = Number(URL.parse(page.url ?? "")?.port);
  return {
    page,
    log,
    state,
    directory,
    port,
    get: (path: string, headers: Record<string, string> = {}, method = "GET") =>
      ask(port, path, headers, method),
    [Symbol.asyncDispose]: async () => {
      await page.close();
      await log.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

interface Answer {
  readonly status: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly body: string;
}

/** Not by fetch, which would not let us name another host. */
function ask(port: number, path: string, headers: Record<string, string>, method = "GET"): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: "127.0.0.1", port, path, headers, method, agent: false }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (part: string) => {
        body += part;
      });
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body }),
      );
    });
    asked.on("error", reject).end();
  });
}

const basic = (user: string, password: string) => ({
  Authorization: `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`,
});

test("the page is whole, loads nothing from elsewhere, and shows every text as text", async () => {
  await using world = await openPage();
  world.log.warning("<img src=x onerror=alert(3)>");
  const { status, headers, body } = await world.get("/");
  assert.equal(status, 200);
  const nonce = /script-src 'nonce-([^']+)'/.exec(String(headers["content-security-policy"]))?.[1];
  assert.ok(nonce);
  assert.match(String(headers["content-security-policy"]), /^default-src 'none';/);
  assert.doesNotMatch(String(headers["content-security-policy"]), /unsafe|\*|https?:/);
  // Every script and style carries this answer's nonce; no attribute runs or styles anything.
  assert.deepEqual(
    [...body.matchAll(/<(script|style)[^>]*>/g)].map((match) => match[0]),
    [`<style nonce="${nonce}">`, `<script nonce="${nonce}">`],
  );
  assert.doesNotMatch(body, /\s(?:style|on\w+)="/);
  assert.doesNotMatch(body, /(?:src|href)="(?!data:image\/svg)[a-z]*:?\/\//);
  assert.doesNotMatch(body, /alert\([123]\)<\/script>|<img|<b>bold/);
  assert.match(body, /&#60;img src=x onerror=alert\(3\)&#62;/);
  assert.notEqual(
    nonce,
    /'nonce-([^']+)'/.exec(String((await world.get("/")).headers["content-security-policy"]))?.[1],
  );
});

test("a queue that another service has taken over is not shown as served", async () => {
  await using world = await openPage();
  assert.match((await world.get("/")).body, />serving</);
  const [queue] = STATE.queues;
  assert.ok(queue);
  const lastError = { atMs: 1, code: "JOB_INSTANCE_REPLACED", message: "the one on two serves it now" };
  world.state.current = { ...STATE, queues: [{ ...queue, hub: { ...queue.hub, lastError } }] };
  const { body } = await world.get("/");
  assert.match(body, />taken over</);
  assert.match(body, /another service has the queue.*JOB_INSTANCE_REPLACED: the one on two serves it now/s);
  assert.doesNotMatch(body, />serving</);
});

test("the log is filtered by severity and by text", async () => {
  await using world = await openPage();
  world.log.info("quiet apple");
  world.log.warning("loud apple");
  world.log.serious("loud pear");
  const items = async (query: string) =>
    [...(await world.get(`/?${query}`)).body.matchAll(/<b>(?:Info|Warning|Serious)<\/b> ([^<]*)/g)].map(
      (match) => match[1],
    );
  assert.deepEqual(await items("severity=Warning"), ["loud pear", "loud apple"]);
  assert.deepEqual(await items("severity=Warning&text=APPLE"), ["loud apple"]);
  assert.deepEqual(await items("text=%22%3E%3Cscript"), []);
  const records = JSON.parse((await world.get("/log.json?severity=serious")).body);
  assert.deepEqual(
    records.records.map((record: { text: string }) => record.text),
    ["loud pear"],
  );
});

test("a page for this machine refuses the names of strangers", async () => {
  await using world = await openPage();
  for (const host of [
    "evil.example",
    "evil.example:1880",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "[::2]",
    "127.0.0.1@evil",
  ])
    assert.equal((await world.get("/status.json", { Host: host })).status, 421, host);
  for (const host of ["localhost", "LOCALHOST:9", "127.0.0.1:80", "[::1]:80", "127.9.9.9"])
    assert.equal((await world.get("/status.json", { Host: host })).status, 200, host);
});

test("only what is there can be read, and nothing can be changed", async () => {
  await using world = await openPage();
  assert.equal((await world.get("/../../etc/passwd")).status, 404);
  assert.equal((await world.get("//evil.example/")).status, 404);
  for (const method of ["POST", "PUT", "DELETE", "OPTIONS"])
    assert.equal((await world.get("/", {}, method)).status, 405, method);
  const head = await world.get("/status.json", {}, "HEAD");
  assert.deepEqual([head.status, head.body], [200, ""]);
});

test("reachable from elsewhere and without a configured password, it makes one up and tells the file alone", async () => {
  await using world = await openPage({ address: "0.0.0.0" });
  const file = join(world.directory, "state", "http-password");
  const password = (await readFile(file, "utf8")).trim();
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  assert.ok(password.length >= 24);
  const told = world.log.recent().map(({ text }) => text);
  assert.ok(told.some((text) => text.includes(file)));
  assert.ok(!told.some((text) => text.includes(password)));
  assert.equal((await world.get("/")).status, 401);
  assert.match(String((await world.get("/")).headers["www-authenticate"]), /^Basic realm=/);
  for (const path of ["/", "/status.json", "/log.json", "/metrics"]) {
    assert.equal((await world.get(path)).status, 401, path);
    assert.equal((await world.get(path, basic("lockstep", password))).status, 200, path);
  }
  // Whoever asks only whether it lives learns nothing else.
  assert.deepEqual(JSON.parse((await world.get("/health")).body), { status: "ok", phase: "running" });
});

test("wrong names and passwords are refused, and after ten of them even the right one for a while", async () => {
  await using world = await openPage(
    { authentication: { user: "ops", password: { environment: "PAGE" } } },
    { PAGE: "ge:heim\u00e9" },
  );
  assert.equal((await world.get("/", basic("ops", "ge:heim\u00e9"))).status, 200);
  const wrong = [
    basic("ops", ""),
    basic("", "ge:heim\u00e9"),
    basic("ops", "ge"),
    { Authorization: "Bearer ge:heim" },
    { Authorization: "Basic" },
  ];
  for (const headers of wrong) assert.equal((await world.get("/", headers)).status, 401);
  for (let count = wrong.length; count < 10; count++) await world.get("/", basic("ops", "x"));
  assert.equal((await world.get("/", basic("ops", "ge:heim\u00e9"))).status, 429);
});

test("a changed password file counts at once, and one that is gone lets nobody in", async () => {
  await using world = await openPage();
  const file = join(world.directory, "password");
  await writeFile(file, "one\n");
  await world.page.authenticate({ user: "ops", password: { file } });
  assert.equal((await world.get("/", basic("ops", "one"))).status, 200);
  await writeFile(file, "two\r\nmore\n");
  assert.equal((await world.get("/", basic("ops", "one"))).status, 401);
  assert.equal((await world.get("/", basic("ops", "two"))).status, 200);
  await rm(file);
  assert.equal((await world.get("/", basic("ops", "two"))).status, 503);
});

/** Reads the text format by its grammar; throws where it does not conform. */
function parseMetrics(text: string): Map<string, { type: string; samples: Map<string, number> }> {
  assert.ok(text.endsWith("\n"));
  const families = new Map<string, { type: string; samples: Map<string, number> }>();
  let help = "";
  let current = "";
  for (const line of text.slice(0, -1).split("\n")) {
    const comment = /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/.exec(line);
    if (comment?.[1] === "HELP") help = comment[2] ?? "";
    else if (comment?.[1] === "TYPE") {
      current = comment[2] ?? "";
      assert.equal(help, current, "HELP stands before TYPE");
      assert.ok(!families.has(current), `${current} comes twice`);
      assert.match(comment[3] ?? "", /^(counter|gauge)$/);
      families.set(current, { type: comment[3] ?? "", samples: new Map() });
    } else {
      const sample =
        /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (\S+)$/.exec(
          line,
        );
      assert.ok(sample, `no sample: ${line}`);
      assert.equal(sample[1], current);
      const samples = families.get(current)?.samples;
      assert.ok(samples !== undefined && !samples.has(sample[2] ?? ""), `${line} comes twice`);
      samples.set(sample[2] ?? "", Number(sample[3]));
    }
  }
  return families;
}

test("the metrics conform to the text format, whatever a queue is called", async () => {
  await using world = await openPage();
  world.state.current = {
    ...STATE,
    queues: STATE.queues.flatMap((queue) => [queue, { ...queue, queue: "line\nend" }]),
  };
  const { headers, body } = await world.get("/metrics");
  assert.equal(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
  const families = parseMetrics(body);
  const label = `queue="a\\"b\\\\<script>alert(1)</script>\u00e9"`;
  assert.equal(
    families.get("lockstep_service_steps_ended_total")?.samples.get(`${label},outcome="success"`),
    5,
  );
  assert.equal(families.get("lockstep_service_slots")?.samples.get(`queue="line\\nend",kind="internal"`), 20);
  for (const [name, { type }] of families) assert.equal(name.endsWith("_total"), type === "counter", name);
});

test("the status document says time, account, version, revision and the state of the log", async () => {
  await using world = await openPage();
  const document = JSON.parse((await world.get("/status.json")).body);
  assert.deepEqual(Object.keys(document), ["time", "account", "pid", "service", "log"]);
  assert.equal(document.service.revision, 41);
  assert.equal(document.log.problem, null);
  world.state.current = { ...STATE, phase: "failed" };
  assert.equal((await world.get("/health")).status, 503);
});

test("an open page is told new records and changes of the state", async () => {
  await using world = await openPage();
  world.log.info("before");
  const events = new AbortController();
  const response = await fetch(`${world.page.url}events?after=0`, { signal: events.signal });
  assert.match(response.headers.get("content-type") ?? "", /^text\/event-stream/);
  let text = "";
  const until = async (pattern: RegExp) => {
    for (const reader = response.body?.getReader(); reader !== undefined; ) {
      const { value, done } = await reader.read();
      text += new TextDecoder().decode(value);
      if (pattern.test(text) || done) {
        reader.releaseLock();
        break;
      }
    }
    assert.match(text, pattern);
  };
  await until(/event: log\ndata: \[.*before.*\]\n\n[\s\S]*event: state/);
  world.log.serious("after");
  world.state.current = { ...STATE, phase: "draining", detail: "waits for a step" };
  await until(/event: log\ndata: \[.*"after".*\]\n\n[\s\S]*waits for a step/);
  events.abort();
});

test("a port that is taken does not keep the service from its work, and the log says so", async () => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
  try {
    await using world = await openPage({ port: (taken.address() as AddressInfo).port });
    assert.equal(world.page.url, null);
    assert.match(world.log.recent().at(-1)?.text ?? "", /^SERVICE_STATUS_LISTEN_FAILED: .*EADDRINUSE/);
  } finally {
    taken.close();
  }
});

test("a page that is switched off is not there", async () => {
  await using world = await openPage({ enabled: false });
  assert.equal(world.page.url, null);
});

test("wrong passwords that come all at once are counted like those that come one by one", async () => {
  await using world = await openPage(
    { authentication: { user: "ops", password: { environment: "PAGE" } } },
    { PAGE: "right" },
  );
  const answers = await Promise.all(
    Array.from({ length: 30 }, (_, index) => world.get("/", basic("ops", `wrong ${index}`))),
  );
  assert.equal(answers.filter(({ status }) => status === 401).length, 10);
  assert.equal(answers.filter(({ status }) => status === 429).length, 20);
});

test("connections that say nothing keep nobody out, and an answer under way is not cut", async (t) => {
  await using world = await openPage();
  const silent: Socket[] = [];
  t.after(() => {
    for (const socket of silent) socket.destroy();
  });
  const events = request({ host: "127.0.0.1", port: world.port, path: "/events", agent: false });
  events.on("error", () => {});
  t.after(() => events.destroy());
  const stream = await new Promise<IncomingMessage>((resolve) => events.once("response", resolve).end());
  let cut = false;
  stream
    .on("error", () => {})
    .once("close", () => {
      cut = true;
    });
  stream.resume();
  for (let count = 0; count < 250; count++) {
    const socket = connect(world.port, "127.0.0.1").on("error", () => {});
    silent.push(socket);
    await once(socket, "connect");
  }
  assert.equal((await world.get("/health")).status, 200);
  assert.equal(cut, false);
});

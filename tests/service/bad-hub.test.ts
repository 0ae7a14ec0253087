import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { logOf, startService, temporaryDirectory, until } from "./service-world.ts";

/** Something that is no hub, or one that answers nonsense. */
async function listen(
  t: Pick<TestContext, "after">,
  answer: (request: IncomingMessage, response: ServerResponse, body: string) => void,
): Promise<{ url: string; token: string }> {
  const server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (text: string) => {
      body += text;
    });
    request.on("end", () => answer(request, response, body));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, token: "no-token" };
}

const good = (body: string, changes: object = {}) => {
  const { sequence, results } = JSON.parse(body) as { sequence: number; results: { claim: number }[] };
  const verdicts = results.map(({ claim }) => ({ claim, verdict: "recorded" }));
  const nothing = { updating: false, withheld: null, confirmed: [], lost: [], steps: [] };
  return JSON.stringify({
    sequence,
    leaseMs: 30_000,
    revision: 1,
    results: verdicts,
    ...nothing,
    ...changes,
  });
};

const STEP = {
  id: 1,
  claim: 1,
  attempt: 1,
  idempotencyKey: "step-1",
  process: { id: 1, name: "p" },
  name: "s",
  component: "Wait",
  task: "Delay",
  execution: "internal",
  parameters: { seconds: 0 },
  hidden: [],
  priority: 8,
  timeLimitMs: null,
  onCrash: "rerun",
};

const NONSENSE: readonly [string, (body: string) => { status: number; body: string }, RegExp][] = [
  ["no JSON", () => ({ status: 200, body: "<html>proxy</html>" }), /HUB_ANSWER_INVALID.*not JSON/],
  ["JSON of another kind", () => ({ status: 200, body: '{"ok":true}' }), /HUB_ANSWER_INVALID/],
  [
    "the answer to another request",
    (body) => ({ status: 200, body: good(body, { sequence: 77 }) }),
    /HUB_ANSWER_INVALID.*answers request 77/,
  ],
  [
    "a step without a claim",
    (body) => ({ status: 200, body: good(body, { steps: [{ id: 1 }] }) }),
    /HUB_ANSWER_INVALID.*steps/,
  ],
  [
    "a step whose secrets are no texts",
    (body) => ({ status: 200, body: good(body, { steps: [{ ...STEP, secrets: 5 }] }) }),
    /HUB_ANSWER_INVALID.*steps/,
  ],
  [
    "a step of no process",
    (body) => ({ status: 200, body: good(body, { steps: [{ ...STEP, process: {} }] }) }),
    /HUB_ANSWER_INVALID.*steps/,
  ],
  [
    "a lease of nothing",
    (body) => ({ status: 200, body: good(body, { leaseMs: 0 }) }),
    /HUB_ANSWER_INVALID.*leaseMs/,
  ],
  ["a page of a proxy", () => ({ status: 502, body: "Bad Gateway" }), /HUB_BUSY/],
  ["no such path", () => ({ status: 404, body: "nothing here" }), /HUB_ANSWER_INVALID/],
];

for (const [name, answer, expected] of NONSENSE)
  test(`a hub that answers ${name} is named in the log, and the service goes on and ends when it is told to`, async (t) => {
    let asked = 0;
    let isWell = false;
    const hub = await listen(t, (_, response, body) => {
      asked += 1;
      const { status, body: text } = isWell ? { status: 200, body: good(body) } : answer(body);
      response.writeHead(status, { "content-type": "application/json" }).end(text);
    });
    const home = temporaryDirectory(t);
    const service = await startService(t, hub, { queues: ["\\A"], directory: home });
    await until(() => expected.test(logOf(home)) && asked > 2);
    isWell = true;
    await until(() => /the hub .* answers/.test(logOf(home)));
    assert.equal(await service.stop(), 0, service.stderr());
  });

test("a hub that asks for patience is not asked again before that", async (t) => {
  let asked = 0;
  const hub = await listen(t, (_, response) => {
    asked += 1;
    response.writeHead(503, { "retry-after": "3600" }).end();
  });
  const home = temporaryDirectory(t);
  const service = await startService(t, hub, { queues: ["\\A"], directory: home });
  await until(() => /HUB_BUSY/.test(logOf(home)));
  const heard = asked;
  // The same service, told to end, does not wait for that hour.
  assert.equal(await service.stop(), 0);
  assert.equal(asked, heard);
  // It asked more than once only if this process was too slow with its first answer.
  if (heard > 1) assert.match(logOf(home), /HUB_UNREACHABLE/);
});

test("a second service on the same state directory is refused by name", async (t) => {
  const hub = await listen(t, (_, response, body) => void response.end(good(body)));
  const home = temporaryDirectory(t);
  const service = await startService(t, hub, {
    queues: ["\\A"],
    directory: home,
    service: "DrainSeconds = 0",
  });
  await assert.rejects(
    () => startService(t, hub, { queues: ["\\A"], directory: home, service: "DrainSeconds = 0" }),
    /ended with 3: .*already serves/s,
  );
  assert.equal(await service.stop(), 0);
});

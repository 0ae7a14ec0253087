import assert from "node:assert/strict";
import { connect } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { silentLogger } from "@lockstep/platform";
import { type Relay, startRelay } from "@lockstep/relay";
import { check, install, update } from "@lockstep/updater";
import type { SmallHub } from "../updater/small-hub.ts";
import { makeWorld, revisionOf, treeOf, type World } from "../updater/world.ts";

/** Neighbours behind a relay at the moment that costs most: while the hub still makes the step that they all ask for. */
const targets = ["role:A"];
const NEIGHBOURS = 6;
const asked = (hub: SmallHub, pattern: RegExp) => hub.requests.filter((each) => pattern.test(each)).length;

async function startBefore(
  t: TestContext,
  { hub, root }: World,
  options: { stepWaitSeconds?: number; idleTimeoutMs?: number } = {},
): Promise<Relay> {
  const relay = await startRelay({
    dataDirectory: join(root, "relay"),
    hub: { url: hub.url, caFile: null },
    listen: "127.0.0.1:0",
    tls: null,
    // One after the other nobody waits for neighbours.
    gathering: { windowMs: 0, holdMs: 0 },
    log: silentLogger,
    ...options,
  });
  t.after(() => relay.stop());
  return relay;
}

/** Small changes, so that no installation would wait for the step by itself. */
const files = (salt: string) =>
  Object.fromEntries(
    Array.from({ length: 12 }, (_, n) => [
      `f${n}`,
      {
        content: Buffer.from(
          `${Array.from({ length: 400 }, (_, line) => (line * 7_919 * (n + 1)) % 65_521).join(" ")} ${n % 3 === 0 ? salt : ""}`,
        ),
        targets,
      },
    ]),
  );

async function neighbours(world: World, relay: Relay): Promise<string[]> {
  const { hub, root } = world;
  hub.publish(files("a"));
  const access = { environment: {}, url: hub.url, relay: relay.url };
  const places = Array.from({ length: NEIGHBOURS }, (_, n) => join(root, `i${n}`));
  for (const place of places) await install(place, { ...world.installOptions(["A"]), access });
  hub.requests.length = 0;
  return places;
}

/** Resolves when everybody has come so far that steps are what is asked for next. */
async function untilAllAsk(hub: SmallHub): Promise<void> {
  while (asked(hub, /orders/) < NEIGHBOURS || hub.stepWaits.length === 0)
    await new Promise((resolve) => setTimeout(resolve, 20));
}

test("while a step is being made all neighbours wait for it together: it travels once, and nothing whole", async (t) => {
  const world = await makeWorld(t);
  const { hub } = world;
  const places = await neighbours(world, await startBefore(t, world));
  hub.steps = true;
  // Until all have come, however long that takes here.
  hub.endsStepWaits = false;
  const making = Promise.withResolvers<void>();
  hub.stepsMade = making.promise;
  hub.publish(files("b"));
  const updates = Promise.all(places.map((place) => update(place, world.options())));
  await untilAllAsk(hub);
  const before = hub.contentBytes;
  making.resolve();
  await updates;
  assert.deepEqual(
    places.map(revisionOf),
    places.map(() => 2),
  );
  for (const place of places.slice(1)) assert.deepEqual(treeOf(place), treeOf(places[0] ?? ""));
  assert.deepEqual(hub.stepWaits, [20], "one question for all, which waits");
  assert.equal(asked(hub, /bundle|files/), 0, "no content travelled whole");
  assert.ok(hub.contentBytes - before < 500, `${hub.contentBytes - before} bytes`);
});

test("control: a relay that does not wait has the contents whole, but then for all, and no step beside them", async (t) => {
  const world = await makeWorld(t);
  const { hub } = world;
  const places = await neighbours(world, await startBefore(t, world, { stepWaitSeconds: 0 }));
  hub.steps = true;
  const making = Promise.withResolvers<void>();
  hub.stepsMade = making.promise;
  hub.publish(files("b"));
  const before = hub.contentBytes;
  await update(places[0] ?? "", world.options());
  making.resolve();
  const one = hub.contentBytes - before;
  assert.ok(one > 1_000, `${one} bytes`);
  await Promise.all(places.slice(1).map((place) => update(place, world.options())));
  assert.deepEqual(
    places.map(revisionOf),
    places.map(() => 2),
  );
  assert.deepEqual(hub.stepWaits, [0], "nobody else asks the hub for the step");
  assert.equal(asked(hub, /bundle/), 1);
  assert.equal(hub.contentBytes - before, one, "the others cost no contents");
});

/** Asks for the same several times in one moment, over one connection; says how each was refused. */
async function getAtOnce({ url }: Relay, path: string, times: number): Promise<string[]> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname).setEncoding("utf8");
  socket.write(`GET ${path} HTTP/1.1\r\nhost: ${hostname}\r\n\r\n`.repeat(times));
  let said = "";
  for await (const text of socket) {
    said += text;
    const answers = [...said.matchAll(/HTTP\/1\.1 (\d+).*?"code":"(\w+)"/gs)];
    if (answers.length === times) return answers.map(([, status, code]) => `${status} ${code}`);
  }
  throw new Error(said);
}

test("a hub that is slow to make steps is waited for once, not for each of them", async (t) => {
  const world = await makeWorld(t);
  const { hub } = world;
  const relay = await startBefore(t, world, { stepWaitSeconds: 1 });
  hub.steps = true;
  hub.stepsMade = new Promise(() => {});
  const get = async (from: string, to: string, wait = 0) => {
    const answer = await fetch(
      `${relay.url}/v1/steps/${from.repeat(64)}/${to.repeat(64)}${wait > 0 ? `?wait=${wait}` : ""}`,
    );
    return `${answer.status} ${((await answer.json()) as { error: { code: string } }).error.code}`;
  };
  assert.deepEqual(
    await getAtOnce(relay, `/v1/steps/${"a".repeat(64)}/${"b".repeat(64)}`, 3),
    Array(3).fill("503 HUB_BUSY"),
  );
  assert.equal(await get("a", "b"), "404 STEP_NONE", "what some fetch whole now, all fetch whole");
  assert.equal(await get("a", "c"), "503 HUB_BUSY");
  assert.equal(await get("a", "d", 2), "503 HUB_BUSY", "who would wait anyway may");
  assert.deepEqual(hub.stepWaits, [1, 0, 2]);
});

test("a hub that says nothing is given up no later because a step might come", async (t) => {
  const world = await makeWorld(t);
  const { hub } = world;
  const relay = await startBefore(t, world, { stepWaitSeconds: 30, idleTimeoutMs: 500 });
  hub.steps = true;
  hub.stepsMade = new Promise(() => {});
  const answer = await fetch(`${relay.url}/v1/steps/${"a".repeat(64)}/${"b".repeat(64)}`);
  // After thirty seconds the hub would say itself that it is busy.
  assert.equal(answer.status, 502);
  assert.equal(((await answer.json()) as { error: { code: string } }).error.code, "HUB_UNREACHABLE");
  // Asked a second time where the first went over a connection that had been used before.
  assert.ok(hub.stepWaits.every((seconds) => seconds === 30) && hub.stepWaits.length <= 2);
});

test("where the hub says that there are no orders, no neighbour is asked for alone; what it is ordered to, the hub says itself", async (t) => {
  for (const saysNoOrders of [true, false]) {
    const world = await makeWorld(t);
    const { hub } = world;
    hub.saysNoOrders = saysNoOrders;
    const places = await neighbours(world, await startBefore(t, world));
    hub.publish(files("b"));
    // Seen when the poll that lies at the hub has been answered.
    while ((await check(places[0] ?? "", world.options())).kind !== "behind");
    for (const place of places) assert.equal((await check(place, world.options())).kind, "behind");
    const questions = asked(hub, /revision$/);
    if (saysNoOrders) assert.ok(questions < NEIGHBOURS, `${questions} questions`);
    else assert.ok(questions >= NEIGHBOURS, `${questions} questions`);
    for (const place of places) await update(place, world.options());
    assert.equal(asked(hub, /orders/), NEIGHBOURS, "once for each");
  }
});

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { readingToken } from "@lockstep/platform";
import { install, update } from "@lockstep/updater";
import { makeWorld, revisionOf, treeOf } from "../updater/world.ts";
import { type Mischief, startHostileRelay } from "./hostile-relay.ts";

/** Nothing wrong is ever installed from a relay, and whatever it does, the installation gets there by the hub. */
const targets = ["role:A"];
const large = randomBytes(3_000_000).toString("hex");
const first = {
  "one.txt": { content: "one", targets },
  "large.txt": { content: "a".repeat(3_000_000), targets },
};
const second = {
  "one.txt": { content: "another one", targets },
  "two.txt": { content: "two", targets },
  "large.txt": { content: large, targets },
};

const flipped = (body: Buffer) => {
  const copy = Buffer.from(body);
  for (let at = 9; at < copy.length; at += 1_000) copy[at] = (copy[at] ?? 0) ^ 0x55;
  return copy;
};
const endless: Mischief = (path, { headers }, response) => {
  if (!path.startsWith("/v1/files/") && !path.startsWith("/v1/bundle")) return undefined;
  response.writeHead(200, { "content-type": headers["content-type"] ?? "", etag: headers.etag ?? "" });
  const block = Buffer.alloc(256 * 1024, 7);
  const more = () => {
    while (!response.destroyed && response.write(block));
  };
  response.on("drain", more);
  more();
  return "taken";
};
const CASES: readonly (readonly [string, Mischief])[] = [
  ["other bytes for contents", (path, { body }) => (/files|bundle/.test(path) ? flipped(body) : undefined)],
  ["other manifests", (path, { body }) => (path.includes("/manifests/") ? flipped(body) : undefined)],
  ["other metadata", (path, { body }) => (path.includes("/trust/") ? flipped(body) : undefined)],
  [
    "nothing but that there is nothing",
    (path, _, response) => {
      if (path.startsWith("/v1/revision")) return undefined;
      response.writeHead(404, { "content-type": "application/json" });
      response.end('{"error":{"code":"NOT_FOUND","message":"no"}}');
      return "taken";
    },
  ],
  ["an endless body", endless],
  [
    "silence in the middle of a body",
    (path, { body, headers, status }, response) => {
      if (!/files|bundle/.test(path)) return undefined;
      response.writeHead(status, headers);
      response.write(body.subarray(0, body.length / 2));
      return "taken";
    },
  ],
  [
    "a page of its own for everything",
    (_, __, response) => {
      response.writeHead(200, { "content-type": "text/html" });
      response.end("<html>Please log in.</html>");
      return "taken";
    },
  ],
];

for (const [what, mischief] of CASES)
  test(`a relay that gives ${what} installs nothing and stops nothing`, async (t) => {
    const world = await makeWorld(t);
    const { hub } = world;
    hub.publish(first);
    const directory = join(world.root, "a");
    await install(directory, world.installOptions(["A"]));
    hub.publish(second);
    const relay = await startHostileRelay(t, hub.url, mischief);
    const quiet = what.startsWith("silence") ? { idleTimeoutMs: 3_000 } : {};
    const access = { environment: {}, relay: relay.url, ...quiet };
    const result = await update(directory, world.options({ access }));
    assert.equal(result.kind, "updated");
    assert.equal(revisionOf(directory), 2);
    assert.deepEqual(treeOf(directory), { "large.txt": large, "one.txt": "another one", "two.txt": "two" });
    assert.ok(relay.requests.length > 0, "it was asked");
  });

test("a relay that shows yesterday's metadata is found out, and the hub asked", async (t) => {
  const world = await makeWorld(t);
  const { hub } = world;
  hub.publish(first);
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  const kept = new Map<string, Buffer>();
  let old = false;
  const relay = await startHostileRelay(t, hub.url, (path, { body, status }) => {
    if (!path.startsWith("/v1/trust/")) return undefined;
    if (!old && status === 200) kept.set(path, body);
    return old ? (kept.get(path) ?? Buffer.from("{}")) : undefined;
  });
  const access = { environment: {}, relay: relay.url };
  for (const name of ["timestamp.json", "root.json"])
    await fetch(`${relay.url}/v1/trust/${name}`).then((answer) => answer.text());
  old = true;
  hub.publish(second);
  await update(directory, world.options({ access }));
  assert.equal(revisionOf(directory), 2);
});

test("a relay that is not there costs an update nothing but the attempt, and the log says so", async (t) => {
  const world = await makeWorld(t);
  const { hub } = world;
  hub.publish(first);
  const directory = join(world.root, "a");
  const gone = await startHostileRelay(t, hub.url, () => undefined);
  await gone.close();
  const access = { environment: {}, url: hub.url, relay: gone.url };
  await install(directory, { ...world.installOptions(["A"]), access });
  hub.publish(second);
  await update(directory, world.options());
  assert.equal(revisionOf(directory), 2);
  assert.match(readFileSync(join(directory, "InstallState.config"), "utf8"), new RegExp(gone.url));
  assert.match(readFileSync(join(directory, "update.log"), "utf8"), /the relay .* was left for the hub/);
});

test("a relay never sees the hub's token, only one that can read", async (t) => {
  const world = await makeWorld(t);
  const { hub } = world;
  hub.token = "sesame-sesame-sesame";
  hub.publish(first);
  const directory = join(world.root, "a");
  const relay = await startHostileRelay(t, hub.url, () => undefined);
  const access = { environment: { LOCKSTEP_TOKEN: hub.token }, url: hub.url, relay: relay.url };
  await install(directory, { ...world.installOptions(["A"]), access });
  assert.deepEqual([...relay.tokens], [`Bearer ${readingToken(hub.token)}`]);
  assert.equal(revisionOf(directory), 1);
});

import assert from "node:assert/strict";
import { hash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { install, type RunResult, update } from "@lockstep/updater";
import type { SmallRelease } from "./small-hub.ts";
import { makeWorld, put, treeOf, type World } from "./world.ts";

const targets = ["role:A"];
const fastClock = { now: () => Date.now(), monotonic: () => performance.now(), sleep: async () => {} };

/** Time passes by sleeping alone. */
function skippingClock() {
  let now = 0;
  const sleep = async (ms: number) => {
    now += ms;
  };
  return { ...fastClock, monotonic: () => now, sleep };
}

const stillMade = {
  status: 503,
  body: JSON.stringify({ error: { code: "HUB_BUSY", message: "this step is being made" } }),
  headers: { "retry-after": "0" },
  match: /steps/,
};

/** Text that does not compress well, and is the same each time. */
function prose(seed: number, lines: number): string {
  const made: string[] = [];
  for (let i = 0, state = seed; i < lines; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    made.push(`${i} ${(state >>> 0).toString(36)} ${(Math.imul(state, 31) >>> 0).toString(36)}\n`);
  }
  return made.join("");
}

const before: SmallRelease = {
  "bin/program": { content: prose(1, 60_000), targets, mode: 0o755 },
  "lib/one": { content: prose(2, 2_000), targets },
  "lib/two": { content: prose(3, 2_000), targets },
  stays: { content: prose(4, 100), targets },
};
const after: SmallRelease = {
  ...before,
  "bin/program": { content: `${prose(1, 60_000)}more\n`, targets, mode: 0o755 },
  "lib/one": { content: `first\n${prose(2, 2_000)}`, targets },
  "lib/two": { content: prose(3, 2_001), targets },
  "lib/new": { content: "quite new\n", targets },
};

async function installed(
  t: Parameters<typeof makeWorld>[0],
  first = before,
  second = after,
): Promise<{ world: World; directory: string }> {
  const world = await makeWorld(t);
  world.hub.steps = true;
  world.hub.publish(first);
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  world.hub.publish(second);
  world.hub.requests.length = 0;
  world.hub.contentBytes = 0;
  return { world, directory };
}

function assertInstalled(directory: string, release: SmallRelease): void {
  const wanted = Object.entries(release).map(([path, { content }]) => [path, content.toString()] as const);
  assert.deepEqual(treeOf(directory), Object.fromEntries(wanted.sort(([a], [b]) => (a < b ? -1 : 1))));
  const partial = join(directory, ".lockstep/partial");
  assert.deepEqual(existsSync(partial) ? readdirSync(partial) : [], []);
}

/** What update.log says of steps: the reason of each, null where it was used. */
function stepNotes(directory: string): (string | null)[] {
  return readFileSync(join(directory, "update.log"), "utf8")
    .split("\n")
    .filter((line) => line.includes('"action":"step"'))
    .map((line) => (JSON.parse(line) as { reason: string | null }).reason);
}

const asked = (world: World, what: string) =>
  world.hub.requests.filter((line) => line.includes(`/v1/${what}`)).length;

test("a new version comes as one step, in a hundredth of its bytes, and nothing is fetched whole", async (t) => {
  const { world, directory } = await installed(t);
  const result = await update(directory, world.options());
  assertInstalled(directory, after);
  assert.deepEqual([asked(world, "steps"), asked(world, "bundle"), asked(world, "files")], [1, 0, 0]);
  assert.ok((result as RunResult).receivedBytes < 400, `${(result as RunResult).receivedBytes} bytes`);
  assert.deepEqual(stepNotes(directory), [null]);
});

test("where a file is not as it was installed no byte of a step travels, and the reason stands in the log", async (t) => {
  const { world, directory } = await installed(t);
  put(directory, "lib/two", "edited\n");
  await update(directory, world.options({ edits: "replace" } as object));
  assertInstalled(directory, after);
  assert.equal(asked(world, "steps"), 0);
  assert.match(stepNotes(directory)[0] ?? "", /lib\/two is not here as it was installed/);
});

test("a step that is broken anywhere costs its bytes, never a wrong file", async (t) => {
  for (let round = 0; round < 12; round++) {
    const { world, directory } = await installed(t);
    world.hub.faults.corruptStep = (step) => {
      const broken = Buffer.from(step);
      const at = Math.floor((round / 12) * broken.length);
      broken[at] = (broken[at] ?? 0) ^ (1 << (round % 8));
      return broken;
    };
    await update(directory, world.options());
    assertInstalled(directory, after);
    assert.equal(asked(world, "steps"), 1);
  }
});

test("a step that never ends is cut off", async (t) => {
  const { world, directory } = await installed(t);
  world.hub.faults.corruptStep = (step) => Buffer.concat([step, Buffer.alloc(20_000_000)]);
  await update(directory, world.options());
  assertInstalled(directory, after);
  assert.match(stepNotes(directory)[0] ?? "", /longer than what it stands for/);
});

test("a step that is cut again and again goes on where it was", async (t) => {
  const { world, directory } = await installed(t);
  Object.assign(world.hub.faults, { cutAfterBytes: 15, cuts: 1000 });
  const result = await update(directory, world.options({ clock: fastClock }));
  assertInstalled(directory, after);
  assert.ok(asked(world, "steps") > 3, "nothing was cut");
  assert.equal((result as RunResult).receivedBytes, world.hub.contentBytes);
  assert.ok(world.hub.contentBytes < 400, `${world.hub.contentBytes} bytes`);
});

test("a hub without steps, or one that is still making this one, does not keep an update waiting", async (t) => {
  const old = await installed(t);
  old.world.hub.steps = false;
  await update(old.directory, old.world.options());
  assertInstalled(old.directory, after);
  assert.deepEqual(stepNotes(old.directory), ["the hub has no step, or has not made it yet"]);

  const busy = await installed(t);
  busy.world.hub.faults.refuse = { ...stillMade, times: 1_000 };
  const clock = skippingClock();
  await update(busy.directory, busy.world.options({ clock }));
  assertInstalled(busy.directory, after);
  assert.deepEqual(stepNotes(busy.directory), ["the hub has no step, or has not made it yet"]);
});

test("an agent, for which nobody waits, gives the hub longer to make a step", async (t) => {
  const waited = new Map<string, number>();
  for (const trigger of ["manual", "launch", "agent"] as const) {
    const large = (byte: string) => ({ large: { content: Buffer.alloc(40_000_000, byte), targets } });
    const { world, directory } = await installed(t, large("x"), large("y"));
    world.hub.faults.refuse = { ...stillMade, times: 1_000 };
    const clock = skippingClock();
    await update(directory, { ...world.options({ clock }), trigger });
    waited.set(trigger, clock.monotonic());
    assert.deepEqual(stepNotes(directory), ["the hub has no step, or has not made it yet"]);
  }
  const [manual = 0, agent = 0] = [waited.get("manual"), waited.get("agent")];
  assert.equal(waited.get("launch"), manual);
  // At 100 and at 10 Mbit/s, to within the last second, which is not worth a question.
  assert.ok(manual > 1_200 && manual <= 3_200, `${manual} ms`);
  assert.ok(agent > 30_000 && agent <= 32_000, `${agent} ms`);
});

test("what an interrupted run left of a step is of use to the next, whatever it is", async (t) => {
  const { world, directory } = await installed(t);
  await assert.rejects(async () => {
    const stop = new AbortController();
    world.hub.faults.hold = (path) => {
      if (path.startsWith("/v1/steps")) stop.abort();
      return undefined;
    };
    await update(directory, world.options({ signal: stop.signal }));
  });
  world.hub.faults.hold = () => undefined;
  const [from, to] = [1, 2].map((number) => world.hub.document(number).manifests[0]?.sha256);
  writeFileSync(join(directory, `.lockstep/partial/step-${from}-${to}`), "LSS1 and then nonsense");
  await update(directory, world.options());
  assertInstalled(directory, after);
});

test("a step that had come whole when its run was killed is used for the rest, and nothing travels", async (t) => {
  const { world, directory } = await installed(t);
  const [from, to] = [1, 2].map((number) => world.hub.document(number).manifests[0]?.sha256);
  const step = Buffer.from(await (await fetch(`${world.hub.url}/v1/steps/${from}/${to}`)).arrayBuffer());
  const partial = join(directory, ".lockstep/partial");
  mkdirSync(partial, { recursive: true });
  writeFileSync(join(partial, `step-${from}-${to}-whole`), step);
  // Most of what it holds was made already.
  const program = after["bin/program"]?.content ?? "";
  writeFileSync(join(partial, hash("sha256", program, "hex")), program);
  world.hub.requests.length = 0;
  const result = await update(directory, world.options());
  assertInstalled(directory, after);
  assert.deepEqual([asked(world, "steps"), asked(world, "bundle"), asked(world, "files")], [0, 0, 0]);
  assert.equal((result as RunResult).receivedBytes, 0);
  assert.deepEqual(stepNotes(directory), [null]);
});

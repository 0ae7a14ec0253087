import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { install, type RunResult, update } from "@lockstep/updater";
import { SmallHub, type SmallRelease } from "./small-hub.ts";
import { makeWorld, treeOf, type World } from "./world.ts";

/** Content that compresses by half: every second byte is chance. */
function content(bytes: number): Buffer {
  const chance = randomBytes(bytes >> 1);
  const whole = Buffer.alloc(bytes, 0x20);
  for (let i = 0; i < chance.length; i++) whole[2 * i] = chance[i] ?? 0;
  return whole;
}

const targets = ["role:A"];

function manyFiles(count: number, bytes: number): SmallRelease {
  return Object.fromEntries(
    Array.from({ length: count }, (_, i) => [
      `many/f${String(i).padStart(4, "0")}`,
      { content: content(bytes + i), targets },
    ]),
  );
}

const digest = (bytes: Buffer | string) => createHash("sha256").update(bytes).digest("hex");

function assertInstalled(directory: string, release: SmallRelease): void {
  const digests = (entries: [string, Buffer | string][]) =>
    entries.map(([path, bytes]) => `${path} ${digest(bytes)}`).sort();
  const found: [string, Buffer][] = Object.keys(treeOf(directory)).map((path) => [
    path,
    readFileSync(join(directory, path)),
  ]);
  assert.deepEqual(
    digests(found),
    digests(Object.entries(release).map(([path, file]) => [path, file.content])),
  );
}

/** Bytes of contents that one undisturbed installation takes. */
async function undisturbed(world: World, release: SmallRelease): Promise<number> {
  const hub = await SmallHub.start();
  hub.publish(release);
  await install(
    join(world.root, "undisturbed"),
    world.installOptions(["A"], { access: { environment: {}, url: hub.url } }),
  );
  await hub[Symbol.asyncDispose]();
  return hub.contentBytes;
}

const fastClock = { now: () => Date.now(), monotonic: () => performance.now(), sleep: async () => {} };

test("a large file that is cut again and again goes on where it was, and nothing travels twice", async (t) => {
  const world = await makeWorld(t);
  const release = {
    "big.bin": { content: content(4_000_000), targets },
    "raw.bin": { content: randomBytes(3_000_000), targets },
  };
  const once = await undisturbed(world, release);
  world.hub.publish(release);
  Object.assign(world.hub.faults, { cutAfterBytes: 300_001, cuts: 1000 });
  const directory = join(world.root, "a");
  const result = await install(directory, world.installOptions(["A"], { clock: fastClock }));
  assertInstalled(directory, release);
  assert.ok(world.hub.faults.cuts !== undefined && world.hub.faults.cuts < 990, "nothing was cut");
  assert.equal(world.hub.contentBytes, once);
  assert.equal((result as RunResult).receivedBytes, once);
});

test("a bundle that is cut asks only for what has not come whole", async (t) => {
  const world = await makeWorld(t);
  const release = manyFiles(300, 2000);
  const once = await undisturbed(world, release);
  world.hub.publish(release);
  Object.assign(world.hub.faults, { cutAfterBytes: 50_000, cuts: 1000 });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"], { clock: fastClock }));
  assertInstalled(directory, release);
  assert.ok((world.hub.faults.cuts ?? 0) < 998, "nothing was cut");
  // Each cut loses at most the content that was coming.
  assert.ok(world.hub.contentBytes <= once * 1.05, `${world.hub.contentBytes} of ${once}`);
});

test("a hub that knows no ranges is asked for the whole again, and the result is right", async (t) => {
  const world = await makeWorld(t);
  const release = { "big.bin": { content: content(3_000_000), targets } };
  world.hub.publish(release);
  Object.assign(world.hub.faults, { cutAfterBytes: 500_000, cuts: 2, noRanges: true });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"], { clock: fastClock }));
  assertInstalled(directory, release);
});

test("what was fetched survives the death of the process, and of the next one, whole contents and half ones", async (t) => {
  const world = await makeWorld(t);
  const release = { ...manyFiles(200, 3000), "big.bin": { content: content(4_000_000), targets } };
  const once = await undisturbed(world, release);
  world.hub.publish({ seed: { content: "seed", targets } });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  world.hub.publish(release);
  const before = world.hub.contentBytes;

  // The large file's answers end half-way and the next ones never begin: each process hangs there, and is killed.
  Object.assign(world.hub.faults, { cutAfterBytes: 1_000_000, cuts: 1 });
  let largeAsked = 0;
  let hang = () => {};
  world.hub.faults.hold = (path) => {
    if (!path.startsWith("/v1/files/")) return undefined;
    if (++largeAsked === 1) return undefined;
    hang();
    return new Promise<void>(() => {});
  };
  const main = join(import.meta.dirname, "../../packages/updater/src/main.ts");
  // As the next one reads it: a file that stands there and is not noted yet is none.
  const journal = join(directory, ".lockstep/partial/staged");
  const bundlesDone = () => existsSync(journal) && readFileSync(journal, "utf8").split("\n").length > 200;
  // The second one finds what the first one had, gets nothing more, and must not take it along.
  for (let life = 0; life < 2; life++) {
    const stuck = Promise.withResolvers<void>();
    hang = stuck.resolve;
    const child = spawn(process.execPath, [main, "apply", directory], {
      stdio: "ignore",
      env: { PATH: process.env.PATH },
    });
    await stuck.promise;
    while (!bundlesDone()) await new Promise((resolve) => setTimeout(resolve, 20));
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
  }
  assert.deepEqual(treeOf(directory), { seed: "seed" });

  world.hub.faults.hold = () => undefined;
  await update(directory, world.options());
  assertInstalled(directory, release);
  const travelled = world.hub.contentBytes - before;
  assert.ok(travelled <= once * 1.05, `${travelled} of ${once}`);
});

test("an interruption leaves the old state, and the next run fetches only the rest", async (t) => {
  const world = await makeWorld(t);
  const release = manyFiles(100, 4000);
  const once = await undisturbed(world, release);
  world.hub.publish({ seed: { content: "seed", targets } });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  world.hub.publish(release);
  const before = world.hub.contentBytes;
  const controller = new AbortController();
  Object.assign(world.hub.faults, { cutAfterBytes: 100_000, cuts: 1 });
  const clock = { ...fastClock, sleep: async () => controller.abort() };
  await assert.rejects(update(directory, world.options({ signal: controller.signal, clock })), {
    code: "INTERRUPTED",
  });
  assert.deepEqual(treeOf(directory), { seed: "seed" });
  assert.equal(existsSync(join(directory, "update.lock")), false);
  await update(directory, world.options());
  assertInstalled(directory, release);
  assert.ok(world.hub.contentBytes - before <= once * 1.05);
});

test("bytes that are not the promised ones are refused with both digests, small and large", async (t) => {
  for (const bytes of [100, 2_000_000]) {
    const world = await makeWorld(t);
    const good = content(bytes);
    world.hub.publish({ seed: { content: "seed", targets }, file: { content: "old", targets } });
    const directory = join(world.root, "a");
    await install(directory, world.installOptions(["A"]));
    world.hub.publish({ seed: { content: "seed", targets }, file: { content: good, targets } });
    const lies: ((bytes: Buffer) => Buffer)[] = [
      (from) => Buffer.concat([from.subarray(1), Buffer.from("x")]),
      (from) => Buffer.concat([from, Buffer.alloc(100)]),
      (from) => from.subarray(0, from.length - 1),
      () => Buffer.alloc(50_000_000),
    ];
    for (const lie of lies) {
      world.hub.faults.corrupt = (sha256, from) => (sha256 === digest(good) ? lie(from) : from);
      await assert.rejects(
        update(directory, world.options()),
        (error: { code: string; expected: string; found: string }) => {
          assert.match(error.code, /^(CONTENT_MISMATCH|HUB_ANSWER_INVALID)$/);
          assert.ok(error.expected !== undefined && error.found !== undefined);
          return true;
        },
      );
      assert.deepEqual(treeOf(directory), { file: "old", seed: "seed" });
    }
    world.hub.faults.corrupt = (_, from) => from;
    await update(directory, world.options());
    assert.equal(digest(readFileSync(join(directory, "file"))), digest(good));
  }
});

test("a broken frame is refused by name, small and large, and the next run gets it whole", async (t) => {
  for (const bytes of [10_000, 3_000_000]) {
    const world = await makeWorld(t);
    world.hub.publish({ file: { content: "old", targets } });
    const directory = join(world.root, "a");
    await install(directory, world.installOptions(["A"]));
    const line = "a line that is much like the next one\n";
    const good = line.repeat(bytes / line.length);
    world.hub.publish({ file: { content: good, targets } });
    world.hub.faults.corruptFrame = (_, frame) => {
      const broken = Buffer.from(frame);
      broken.fill(0xff, 12, 24);
      return broken;
    };
    await assert.rejects(update(directory, world.options()), { code: "CONTENT_MISMATCH" });
    assert.deepEqual(treeOf(directory), { file: "old" });
    world.hub.faults.corruptFrame = (_, frame) => frame;
    await update(directory, world.options());
    assert.deepEqual(treeOf(directory), { file: good });
  }
});

test("one lying content among many is named, and the others are kept", async (t) => {
  const world = await makeWorld(t);
  const release = manyFiles(400, 500);
  world.hub.publish(release);
  const bad = digest(release["many/f0123"]?.content ?? "");
  world.hub.faults.corrupt = (sha256, from) => (sha256 === bad ? Buffer.from(from).fill(0x41) : from);
  const directory = join(world.root, "a");
  await assert.rejects(
    install(directory, world.installOptions(["A"])),
    (error: { code: string; expected: string; message: string }) => {
      assert.equal(error.code, "CONTENT_MISMATCH");
      assert.equal(error.expected, bad);
      return true;
    },
  );
  world.hub.faults.corrupt = (_, from) => from;
  const before = world.hub.contentBytes;
  const result = await install(directory, world.installOptions(["A"]));
  assertInstalled(directory, release);
  assert.ok(world.hub.contentBytes - before < before, "everything was fetched again");
  assert.equal(result.kind, "updated");
});

test("damage in what an earlier run had fetched is found, and only that is fetched again", async (t) => {
  const world = await makeWorld(t);
  const big = content(3_000_000);
  const release = { "big.bin": { content: big, targets } };
  world.hub.publish(release);
  const directory = join(world.root, "a");
  Object.assign(world.hub.faults, { cutAfterBytes: 800_000, cuts: 1 });
  const controller = new AbortController();
  const clock = { ...fastClock, sleep: async () => controller.abort() };
  await assert.rejects(
    install(directory, world.installOptions(["A"], { signal: controller.signal, clock })),
    {
      code: "INTERRUPTED",
    },
  );
  const partial = join(directory, ".lockstep/partial", `${digest(big)}.zstd`);
  const bytes = readFileSync(partial);
  assert.equal(bytes.length, 800_000);
  bytes[400_000] = (bytes[400_000] ?? 0) ^ 1;
  writeFileSync(partial, bytes);
  await install(directory, world.installOptions(["A"]));
  assertInstalled(directory, release);
});

test("equal contents travel once, and a renamed file not at all", async (t) => {
  const world = await makeWorld(t);
  const same = content(100_000);
  world.hub.publish(Object.fromEntries(["a", "b", "c/d"].map((path) => [path, { content: same, targets }])));
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  assert.ok(world.hub.contentBytes < 110_000, `${world.hub.contentBytes}`);
  const before = world.hub.contentBytes;
  world.hub.publish({ "moved/to/here": { content: same, mode: 0o755, targets } });
  await update(directory, world.options());
  assert.equal(world.hub.contentBytes, before);
  assert.equal(digest(readFileSync(join(directory, "moved/to/here"))), digest(same));
});

test("a changed manifest travels as its difference, and as a whole where the hub cannot say it", async (t) => {
  const world = await makeWorld(t);
  const base = manyFiles(50, 10);
  world.hub.publish({ ...base, x: { content: "1", targets } });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  world.hub.publish({ ...base, x: { content: "2", targets } });
  world.hub.requests.length = 0;
  await update(directory, world.options());
  assert.deepEqual(
    world.hub.requests.filter((line) => line.includes("manifests")),
    ["GET /v1/manifests/delta"],
  );
  world.hub.forgetManifests();
  world.hub.publish({ ...base, x: { content: "3", targets } });
  world.hub.requests.length = 0;
  await update(directory, world.options());
  const asked = world.hub.requests
    .filter((line) => line.includes("manifests"))
    .map((line) => line.split("/")[3]);
  assert.deepEqual(asked, ["delta", "sha256"]);
});

test("a hub that vanishes in the middle is an error by name, and the installation is as it was", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ file: { content: "old", targets } });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  world.hub.publish({ file: { content: content(2_000_000), targets } });
  world.hub.faults.hold = (path) => (path.startsWith("/v1/files/") ? world.hub.vanish() : undefined);
  await assert.rejects(
    update(directory, world.options({ clock: fastClock })),
    (error: { code: string; expected: string }) => {
      assert.equal(error.code, "HUB_UNREACHABLE");
      assert.equal(error.expected, world.hub.url);
      return true;
    },
  );
  assert.deepEqual(treeOf(directory), { file: "old" });
});

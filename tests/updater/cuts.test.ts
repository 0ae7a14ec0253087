import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { hash, randomBytes } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { install, update } from "@lockstep/updater";
import { CuttingLine } from "./cutting-line.ts";
import type { SmallRelease } from "./small-hub.ts";
import { makeWorld, type World } from "./world.ts";

/**
 * A line that breaks all the time. Everything that passes towards the installation is counted, heads and metadata too,
 * and held against an update over the same line that nobody cut. A hub that is killed: tests/transfer/hub-killed.test.ts.
 */
const targets = ["role:A"];
const fastClock = { now: () => Date.now(), monotonic: () => performance.now(), sleep: async () => {} };

/** A sequence of numbers from 0 to 1 that a seed decides. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const random = (bytes: number) => ({ content: randomBytes(bytes), targets });
const text = (bytes: number, n: number) => ({
  content: Array.from(
    { length: bytes / 20 },
    (_, line) => `line ${line} of ${n} ${(line * 7919 * (n + 1)) % 10_007}\n`,
  ).join(""),
  targets,
});

/** Large files, small ones, and some that are nearly large: those were fetched anew after each cut. */
function release(): SmallRelease {
  const files: Record<string, ReturnType<typeof random>> = { "large.bin": random(2_500_000) };
  for (let n = 0; n < 150; n++) files[`small/${n}`] = random(2_000 + n * 40);
  for (let n = 0; n < 5; n++) files[`middle/${n}`] = random(700_000);
  const texts = Object.fromEntries(Array.from({ length: 50 }, (_, n) => [`text/${n}`, text(20_000, n)]));
  return { ...files, ...texts };
}

const seed = { seed: { content: "seed", targets } };

async function installedBehind(
  t: TestContext,
): Promise<{ world: World; line: CuttingLine; directory: string }> {
  const world = await makeWorld(t);
  const line = await CuttingLine.to(world.hub.url, t);
  world.hub.publish(seed);
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"], { access: { environment: {}, url: line.url } }));
  line.bytes = 0;
  return { world, line, directory };
}

function assertInstalled(directory: string, files: SmallRelease): void {
  for (const [path, { content }] of Object.entries(files))
    assert.ok(readFileSync(join(directory, path)).equals(Buffer.from(content)), path);
}

/** What an update takes when nobody cuts. */
async function undisturbed(t: TestContext, files: SmallRelease): Promise<number> {
  const { world, line, directory } = await installedBehind(t);
  world.hub.publish(files);
  await update(directory, world.options());
  return line.bytes;
}

test("with the line cut over and over hardly more travels than with a good one, whatever is on its way", async (t) => {
  const files = release();
  const once = await undisturbed(t, files);
  for (let seedNumber = 1; seedNumber <= 2; seedNumber++) {
    const { world, line, directory } = await installedBehind(t);
    world.hub.publish(files);
    // A second at 1 to 4 Mbit/s.
    const draw = randomOf(seedNumber);
    line.next = () => 30_000 + Math.floor(draw() * 400_000);
    await update(directory, world.options({ clock: fastClock }));
    assertInstalled(directory, files);
    assert.ok(line.cuts >= 15, `${line.cuts} cuts`);
    assert.ok(line.bytes <= once * 1.05, `seed ${seedNumber}: ${line.bytes} of ${once}, ${line.cuts} cuts`);
  }
});

test("a step that is cut at any byte goes on there", async (t) => {
  const before = { ...seed, "a.bin": random(400_000), "b.bin": random(50_000) };
  const changed = (content: Buffer | string) => {
    const bytes = Buffer.from(content);
    randomBytes(60_000).copy(bytes, 1_000, 0, Math.min(60_000, bytes.length - 1_000));
    return { content: bytes, targets };
  };
  const after = {
    ...seed,
    "a.bin": changed(before["a.bin"].content),
    "b.bin": changed(before["b.bin"].content),
  };
  const measure = async (next: (() => number) | null) => {
    const { world, line, directory } = await installedBehind(t);
    world.hub.steps = true;
    world.hub.publish(before);
    await update(directory, world.options());
    world.hub.publish(after);
    line.bytes = 0;
    line.next = next;
    await update(directory, world.options({ clock: fastClock }));
    assertInstalled(directory, after);
    assert.ok(world.hub.requests.some((request) => request.includes("/v1/steps/")));
    return line;
  };
  const { bytes: once } = await measure(null);
  assert.ok(once < 200_000, `no step: ${once}`);
  for (let seedNumber = 1; seedNumber <= 2; seedNumber++) {
    const draw = randomOf(seedNumber);
    const line = await measure(() => 15_000 + Math.floor(draw() * 30_000));
    assert.ok(line.cuts >= 2, `${line.cuts} cuts`);
    assert.ok(line.bytes <= once * 1.05, `seed ${seedNumber}: ${line.bytes} of ${once}, ${line.cuts} cuts`);
  }
});

/** Bytes, as they travel, of what the installation keeps of these files for the next run. */
function keptBytes({ hub }: World, directory: string, files: SmallRelease): number {
  const partial = join(directory, ".lockstep/partial");
  const sizeOf = (name: string) => statSync(join(partial, name), { throwIfNoEntry: false })?.size;
  const journal = sizeOf("staged") === undefined ? "" : readFileSync(join(partial, "staged"), "utf8");
  let bytes = 0;
  for (const { content } of Object.values(files)) {
    const sha256 = hash("sha256", content);
    const isWhole = journal.includes(sha256) || sizeOf(sha256) !== undefined;
    bytes += isWhole
      ? hub.travellingBytes(sha256)
      : (sizeOf(`${sha256}.zstd`) ?? sizeOf(`${sha256}.identity`) ?? 0);
  }
  return bytes;
}

test("killed again and again in the middle, an updater fetches hardly more than once", async (t) => {
  const files = release();
  const once = await undisturbed(t, files);
  const { world, line, directory } = await installedBehind(t);
  world.hub.publish(files);
  const main = join(import.meta.dirname, "../../packages/updater/src/main.ts");
  line.rate = 2_000_000;
  const kills = 3;
  for (let life = 0; life < kills; life++) {
    const limit = line.bytes + once / (kills + 1);
    const child = spawn(process.execPath, [main, "apply", directory], {
      stdio: "ignore",
      env: { PATH: process.env.PATH },
    });
    const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    while (line.bytes < limit && child.exitCode === null)
      await new Promise((resolve) => setTimeout(resolve, 5));
    assert.equal(child.exitCode, null, "it was done before it was killed");
    // What has come it keeps without anybody's doing, as soon as this machine lets it; nothing more comes meanwhile.
    line.hold();
    while (line.bytes - keptBytes(world, directory, files) > once * 0.04)
      await new Promise((resolve) => setTimeout(resolve, 20));
    child.kill("SIGKILL");
    await ended;
    line.release();
  }
  line.rate = null;
  await update(directory, world.options());
  assertInstalled(directory, files);
  assert.ok(line.bytes <= once * 1.05, `${line.bytes} of ${once}`);
  t.diagnostic(`${line.bytes} of ${once}`);
});

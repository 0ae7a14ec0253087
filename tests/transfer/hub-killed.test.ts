import assert from "node:assert/strict";
import { hash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, type TestContext, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { zstdDecompressSync } from "node:zlib";
import { install, update } from "@lockstep/updater";
import { load, release } from "../hub/support/release.ts";
import { askJson } from "../hub/support/requests.ts";
import { startProcess } from "../hub/support/start-process.ts";
import { connectionString, temporaryDirectory } from "../hub/support/test-hub.ts";
import { type TestServer, usePostgres } from "../support/postgres.ts";
import { CuttingLine } from "../updater/cutting-line.ts";

/**
 * A hub that is killed while an installation updates, and comes back: the installation goes on where it was, hardly more
 * travels than with a hub that lives, and what the hub keeps on its disk is whole. Each update is held against one of a
 * second installation over the same line.
 */
const KILLS = 2;
/** What the line and both ends may hold when the hub dies. */
const IN_FLIGHT_BYTES = 64 * 1024;
const LINE_BYTES_PER_SECOND = 4_000_000;

type Files = Readonly<Record<string, Buffer>>;

/** A hub in a process of its own, a line to it, and two installations that are told apart by what happens to them. */
class Site {
  readonly directory: string;
  readonly line: CuttingLine;
  readonly #t: TestContext;
  readonly #options: object;
  #hub: Awaited<ReturnType<typeof startProcess>>;
  #ready: Promise<void> = Promise.resolve();

  private constructor(
    t: TestContext,
    directory: string,
    options: object,
    hub: Awaited<ReturnType<typeof startProcess>>,
    line: CuttingLine,
  ) {
    this.#t = t;
    this.directory = directory;
    this.#options = options;
    this.#hub = hub;
    this.line = line;
  }

  static async begin(t: TestContext, server: TestServer): Promise<Site> {
    const directory = await temporaryDirectory(t);
    const database = await server.database(t);
    const options = {
      dataDirectory: join(directory, "hub"),
      database: connectionString(database.address),
      development: true,
    };
    const hub = await startProcess(t, options);
    return new Site(t, directory, options, hub, await CuttingLine.to(hub.url, t));
  }

  get pid(): number {
    return this.#hub.process.pid ?? 0;
  }

  get url(): string {
    return this.#hub.url;
  }

  /** Kills the hub, and starts it again. */
  async kill(): Promise<void> {
    const again = Promise.withResolvers<void>();
    this.#ready = again.promise;
    const { process } = this.#hub;
    const ended = once(process, "exit");
    process.kill("SIGKILL");
    // Its machine would deliver what it had handed over, some megabytes; then a small transfer would not notice.
    this.line.breakNow();
    await ended;
    this.#hub = await startProcess(this.#t, this.#options);
    this.line.hub = this.#hub.url;
    again.resolve();
  }

  async load(version: string, files: Files): Promise<void> {
    const hub = { url: this.url, token: "" };
    const contents = Object.fromEntries(Object.entries(files).map(([path, content]) => [path, { content }]));
    const { load: id } = await load(hub, release(contents, { version }));
    await askJson(hub, "GET", `/v1/loads/${id}/revision?wait=50`);
  }

  async install(name: string): Promise<string> {
    const place = join(this.directory, name);
    await install(place, { ...this.#session(), roles: ["Server"] });
    return place;
  }

  /** Updates over the slow line; returns the bytes that came. */
  async update(place: string): Promise<number> {
    const before = this.line.bytes;
    this.line.rate = LINE_BYTES_PER_SECOND;
    await update(place, this.#session());
    this.line.rate = null;
    return this.line.bytes - before;
  }

  /** Updates while the hub is killed in between; returns the bytes that came. `undisturbed`: how many come otherwise. */
  async updateWithKills(place: string, undisturbed: number): Promise<number> {
    const before = this.line.bytes;
    let isDone = false;
    const updated = this.update(place).finally(() => {
      isDone = true;
    });
    updated.catch(() => {});
    for (let kill = 1; kill <= KILLS; kill++) {
      const limit = before + (undisturbed * kill) / (KILLS + 1);
      while (this.line.bytes < limit && !isDone) await pause(2);
      if (isDone) await updated;
      assert.ok(!isDone, "it was done before the hub was killed");
      await this.kill();
    }
    await updated;
    return this.line.bytes - before;
  }

  /** Pauses end when the hub is there again. */
  #session() {
    const clock = {
      now: () => Date.now(),
      monotonic: () => performance.now(),
      sleep: async () => await this.#ready,
    };
    const access = { environment: {}, url: this.line.url };
    return { access, clock, selfUpdate: false, progress: () => {} };
  }

  /** Everything under a digest in the hub's cache is what the digest says, and every step is whole. */
  assertKeptWhole(): void {
    const cache = join(this.directory, "hub/cache/sha256");
    let contents = 0;
    for (const name of readdirSync(cache, { recursive: true, encoding: "utf8" })) {
      const [, sha256, packed] = /([0-9a-f]{64})(\.zst)?$/.exec(name) ?? [];
      if (sha256 === undefined) continue;
      const bytes = readFileSync(join(cache, name));
      assert.equal(hash("sha256", packed === undefined ? bytes : zstdDecompressSync(bytes), "hex"), sha256);
      contents++;
    }
    assert.ok(contents > 0, "the cache holds something");
    const steps = join(this.directory, "hub/steps");
    for (const name of readdirSync(steps)) {
      assert.match(name, /^[0-9a-f]{64}-[0-9a-f]{64}$/);
      const bytes = readFileSync(join(steps, name));
      assert.equal(hash("sha256", bytes.subarray(0, -32), "hex"), bytes.subarray(-32).toString("hex"));
    }
  }
}

function assertInstalled(place: string, files: Files): void {
  for (const [path, content] of Object.entries(files))
    assert.ok(readFileSync(join(place, path)).equals(content), path);
}

function assertHardlyMore(t: TestContext, what: string, bytes: number, undisturbed: number): void {
  t.diagnostic(`${what}: ${bytes} of ${undisturbed}`);
  assert.ok(bytes <= undisturbed * 1.05 + KILLS * IN_FLIGHT_BYTES, `${what}: ${bytes} of ${undisturbed}`);
}

describe("a hub that is killed while an installation updates", () => {
  const server = usePostgres();

  test("costs hardly a byte of a bundle and of a large file", async (t) => {
    const site = await Site.begin(t, server);
    const seed = { seed: Buffer.from("seed") };
    await site.load("1", seed);
    await askJson({ url: site.url, token: "" }, "PUT", "/v1/settings", { "Common/Transfer/Steps": false });
    const [alone, disturbed] = [await site.install("alone"), await site.install("disturbed")];

    const small: Record<string, Buffer> = { ...seed };
    for (let n = 0; n < 200; n++) small[`small/${n}`] = randomBytes(3_000 + 50 * n);
    for (let n = 0; n < 4; n++) small[`text/${n}`] = Buffer.from(`${randomBytes(100_000).toString("hex")}\n`);
    await site.load("2", small);
    const ofBundle = await site.update(alone);
    assertHardlyMore(t, "bundle", await site.updateWithKills(disturbed, ofBundle), ofBundle);
    assertInstalled(disturbed, small);
    site.assertKeptWhole();

    const large = { ...small, "large.bin": randomBytes(3_000_000) };
    // Its frame is what is fetched in ranges.
    const packed = { ...large, "packed.txt": Buffer.from(randomBytes(1_500_000).toString("hex")) };
    await site.load("3", packed);
    const ofLarge = await site.update(alone);
    assertHardlyMore(t, "large files", await site.updateWithKills(disturbed, ofLarge), ofLarge);
    assertInstalled(disturbed, packed);
    site.assertKeptWhole();
  });

  test("costs hardly a byte of a step; one that was being made is made again", async (t) => {
    const site = await Site.begin(t, server);
    const before = { "large.bin": randomBytes(5_000_000), same: Buffer.from("same") };
    await site.load("1", before);
    const [alone, disturbed] = [await site.install("alone"), await site.install("disturbed")];

    const steps = join(site.directory, "hub/steps");
    const isMade = (name: string) => !name.endsWith(".new");
    const made = () => readdirSync(steps).filter(isMade).length;
    const hub = site.pid;
    let after: Files = before;
    let loaded: Promise<void> = Promise.resolve();
    let maker = childrenOf(hub);
    let missed = 0;
    // A maker is there for a second. Where nobody looked then, it is the one of the next version.
    for (let version = 2; maker.length === 0; version++) {
      await loaded;
      missed = made();
      const changed = Buffer.from(before["large.bin"]);
      randomBytes(900_000).copy(changed, 2_000_000);
      after = { ...before, "large.bin": changed };
      loaded = site.load(`${version}`, after);
      loaded.catch(() => {});
      for (; maker.length === 0 && made() === missed; maker = childrenOf(hub)) await pause(2);
    }
    await Promise.all([site.kill(), loaded.catch(() => {})]);
    // Nobody asks: the hub itself finds that one is wanted.
    while (made() === missed || !readdirSync(steps).every(isMade)) await pause(20);
    while (maker.some(isRunning)) await pause(20);
    site.assertKeptWhole();

    const once = await site.update(alone);
    assert.ok(once < 1_000_000, `no step: ${once}`);
    assertHardlyMore(t, "step", await site.updateWithKills(disturbed, once), once);
    assertInstalled(disturbed, after);
    site.assertKeptWhole();
  });
});

/** The processes that a process has started, by id. */
function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
  return text.split(" ").filter(Boolean).map(Number);
}

/** Whether a process is there and not one that has ended and that nobody has asked for. */
function isRunning(pid: number): boolean {
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

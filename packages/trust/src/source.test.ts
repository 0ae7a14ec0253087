import assert from "node:assert/strict";
import { test } from "node:test";
import type { Clock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { DEFAULT_FETCH_LIMITS, type Mirror, MirrorSource } from "./source.ts";

/** Time that moves when a mirror says so, and wakes who sleeps. */
class TestClock implements Clock {
  #now = 0;
  readonly #sleepers = new Set<{ readonly until: number; readonly wake: () => void }>();
  now(): number {
    return this.#now;
  }
  monotonic(): number {
    return this.#now;
  }
  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const sleeper = { until: this.#now + ms, wake: resolve };
      this.#sleepers.add(sleeper);
      signal?.addEventListener("abort", () => {
        this.#sleepers.delete(sleeper);
        resolve();
      });
    });
  }
  async pass(ms: number): Promise<void> {
    this.#now += ms;
    for (const sleeper of [...this.#sleepers])
      if (sleeper.until <= this.#now) {
        this.#sleepers.delete(sleeper);
        sleeper.wake();
      }
    await new Promise((resolve) => setImmediate(resolve));
  }
}

const DOCUMENT = Buffer.from("0123456789".repeat(100));

/** Sends pieces of a document, with time passing before each. */
function slow(
  clock: TestClock,
  pieceBytes: number,
  pauseMs: number,
  name = "slow",
): Mirror & { sent: number } {
  const mirror = {
    name,
    sent: 0,
    open: async (_document: string, from: number) => ({
      offset: from,
      chunks: (async function* () {
        for (let at = from; at < DOCUMENT.length; at += pieceBytes) {
          await clock.pass(pauseMs);
          mirror.sent += pieceBytes;
          yield DOCUMENT.subarray(at, at + pieceBytes);
        }
      })(),
    }),
  };
  return mirror;
}

async function fetched(source: MirrorSource, bytesMax = 10_000): Promise<Buffer | string> {
  let found: Buffer | null = null;
  try {
    const came = await source.fetch("x", bytesMax, async (bytes) => {
      found = Buffer.from(bytes);
    });
    return found ?? String(came);
  } catch (error) {
    return error instanceof LockstepError ? error.code : String(error);
  }
}

test("A7: an endless answer is left within one chunk of its cap, whatever its head says", async () => {
  const clock = new TestClock();
  let sent = 0;
  const endless: Mirror = {
    name: "endless",
    open: async () => ({
      offset: 0,
      chunks: (async function* () {
        for (;;) {
          sent += 65_536;
          yield Buffer.alloc(65_536);
        }
      })(),
    }),
  };
  assert.equal(await fetched(new MirrorSource([endless], clock), 1_000_000), "HUB_ANSWER_INVALID");
  assert.ok(sent <= 1_000_000 + 65_536, `${sent} bytes`);
  // The control: a higher cap is used up as well, so it is the cap that ends it.
  sent = 0;
  await fetched(new MirrorSource([endless], clock), 5_000_000);
  assert.ok(sent > 4_000_000);
});

test("A8: a mirror of one byte a second is left for a good one", async () => {
  const clock = new TestClock();
  const crawling = slow(clock, 1, 1000);
  const good = slow(clock, 1000, 1, "good");
  assert.deepEqual(await fetched(new MirrorSource([crawling, good], clock)), DOCUMENT);
  assert.ok(crawling.sent < 20, `${crawling.sent} bytes were waited for`);
  assert.equal(await fetched(new MirrorSource([slow(clock, 1, 1000)], clock)), "HUB_UNREACHABLE");
  // The control: without a lowest rate and a deadline it is waited for to the end.
  const patient = { ...DEFAULT_FETCH_LIMITS, rateBytesPerSecond: 0, deadlineMs: Number.MAX_SAFE_INTEGER };
  assert.deepEqual(await fetched(new MirrorSource([slow(clock, 1, 1000)], clock, patient)), DOCUMENT);
});

test("A8: a mirror that says nothing at all is left", async () => {
  const clock = new TestClock();
  const silent: Mirror = { name: "silent", open: () => new Promise(() => {}) };
  const source = new MirrorSource([silent, slow(clock, 1000, 1, "good")], clock);
  let isThere = false;
  const answer = fetched(source).finally(() => {
    isThere = true;
  });
  while (!isThere) await clock.pass(500);
  assert.deepEqual(await answer, DOCUMENT);
  const { rateWindowMs } = DEFAULT_FETCH_LIMITS;
  assert.ok(clock.now() >= rateWindowMs && clock.now() < rateWindowMs + 2_000, `${clock.now()} ms`);
});

test("A8: many mirrors that are just quick enough do not hold us beyond the deadline", async () => {
  const clock = new TestClock();
  const limits = { ...DEFAULT_FETCH_LIMITS, deadlineMs: 3000, rateBytesPerSecond: 1, rateWindowMs: 1000 };
  const mirrors = Array.from({ length: 50 }, () => slow(clock, 2, 900));
  assert.equal(await fetched(new MirrorSource(mirrors, clock, limits)), "HUB_UNREACHABLE");
  assert.ok(clock.now() < 60_000, `${clock.now()} ms`);
});

test("a process that stood still takes no mirror for slow", async () => {
  const clock = new TestClock();
  const after = (...pauses: number[]): Mirror => ({
    name: "mirror",
    open: async () => ({
      offset: 0,
      chunks: (async function* () {
        for (const ms of pauses) await clock.pass(ms);
        yield DOCUMENT;
      })(),
    }),
  });
  const day = 86_400_000;
  const { rateWindowMs } = DEFAULT_FETCH_LIMITS;
  assert.deepEqual(await fetched(new MirrorSource([after(day)], clock)), DOCUMENT);
  assert.deepEqual(await fetched(new MirrorSource([after(9_000, day, 9_000)], clock)), DOCUMENT);
  assert.deepEqual(await fetched(new MirrorSource([after(1, rateWindowMs)], clock)), DOCUMENT);
  // The control: as long, with this process awake.
  const awake = Array.from({ length: 20 }, () => 999);
  assert.equal(await fetched(new MirrorSource([after(...awake)], clock)), "HUB_UNREACHABLE");
});

test("what breaks off goes on where it stopped", async () => {
  const clock = new TestClock();
  const asked: number[] = [];
  const breaking: Mirror = {
    name: "breaking",
    open: async (_document, from) => {
      asked.push(from);
      return {
        offset: from,
        chunks: (async function* () {
          yield DOCUMENT.subarray(from, from + 400);
          if (from + 400 < DOCUMENT.length) throw new LockstepError("HUB_UNREACHABLE", "cut");
        })(),
      };
    },
  };
  assert.deepEqual(await fetched(new MirrorSource([breaking], clock)), DOCUMENT);
  assert.deepEqual(asked, [0, 400, 800]);
});

test("what begins anew is not joined to what came before", async () => {
  const clock = new TestClock();
  let tries = 0;
  const forgetful: Mirror = {
    name: "forgetful",
    open: async () => ({
      offset: 0,
      chunks: (async function* () {
        yield DOCUMENT.subarray(0, 400);
        if (tries++ === 0) throw new LockstepError("HUB_UNREACHABLE", "cut");
        yield DOCUMENT.subarray(400);
      })(),
    }),
  };
  assert.deepEqual(await fetched(new MirrorSource([forgetful], clock)), DOCUMENT);
});

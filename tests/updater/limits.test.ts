import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Clock } from "@lockstep/platform";
import { type AgentEvent, configure, install, runAgent, update } from "@lockstep/updater";
import { makeWorld, type World } from "./world.ts";

/** Limits of transfers, on a clock that only moves when somebody sleeps. */
const targets = ["role:A"];
const RATE = 100_000;

class SimulatedClock implements Clock {
  #elapsedMs = 0;
  /** How long the machine slept: the clock that only goes forward does not count that. */
  #asleepMs = 0;
  readonly #startMs: number;

  /** Begins `secondsBefore` seconds before a minute of the local day. */
  constructor(secondsBefore: number) {
    this.#startMs = Math.ceil(Date.now() / 60_000) * 60_000 + 60_000 - secondsBefore * 1000;
  }

  now = () => this.#startMs + this.#elapsedMs + this.#asleepMs;
  monotonic = () => this.#elapsedMs;

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    const until = this.#elapsedMs + ms;
    await nextTurn();
    if (signal?.aborted !== true) this.#elapsedMs = Math.max(this.#elapsedMs, until);
  }

  pass(ms: number): void {
    this.#elapsedMs += ms;
  }

  sleepOfMachine(ms: number): void {
    this.#asleepMs += ms;
  }

  /** A window from so many minutes after the next full one to so many. */
  window(from: number, to: number): string {
    const text = (minutes: number) => {
      const date = new Date(Math.ceil(this.#startMs / 60_000) * 60_000 + minutes * 60_000);
      return `${String(date.getHours()).padStart(2, "0")}:${String(date.getMinutes()).padStart(2, "0")}`;
    };
    return `${text(from)}-${text(to)}`;
  }
}

async function installed(t: Parameters<typeof makeWorld>[0]): Promise<{ world: World; directory: string }> {
  const world = await makeWorld(t);
  world.hub.signing.timestampMs = 30 * 86_400_000;
  world.hub.publish({ seed: { content: "seed", targets } });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  return { world, directory };
}

const large = { seed: { content: "seed", targets }, big: { content: randomBytes(3_000_000), targets } };
const small = Object.fromEntries(
  Array.from({ length: 200 }, (_, n) => [`many/${n}`, { content: randomBytes(5_000), targets }]),
);

test("a rate holds over all transfers of an update together, neither more nor less", async (t) => {
  for (const atOnce of [1, 3]) {
    const { world, directory } = await installed(t);
    world.hub.publish({ ...large, ...small });
    world.hub.transfer = { bytesPerSecond: RATE, atOnce };
    const clock = new SimulatedClock(0);
    const before = world.hub.contentBytes;
    await update(directory, world.options({ clock }));
    const seconds = clock.monotonic() / 1000;
    const bytes = world.hub.contentBytes - before;
    assert.ok(bytes > 4_000_000);
    // Metadata counts as well, but is little.
    assert.ok(seconds >= bytes / RATE - 0.25, `${bytes} bytes in ${seconds} s`);
    assert.ok(seconds <= (bytes * 1.02) / RATE, `${bytes} bytes in ${seconds} s`);
  }
});

test("no more answers are read at the same time than allowed", async (t) => {
  for (const [atOnce, expected] of [
    [1, 1],
    [2, 2],
    [3, 3],
  ] as const) {
    const { world, directory } = await installed(t);
    const two = { other: { content: randomBytes(2_000_000), targets } };
    world.hub.publish({ ...large, ...two, ...small });
    world.hub.transfer = { atOnce };
    let open = 0;
    let most = 0;
    const allOpen = Promise.withResolvers<void>();
    world.hub.faults.hold = async (path) => {
      if (!/bundle|files/.test(path)) return;
      most = Math.max(most, ++open);
      // The first are held until all are here that may be, and then for a while for those that may not.
      if (most >= expected) allOpen.resolve();
      await allOpen.promise;
      await new Promise((resolve) => setTimeout(resolve, 50));
      open--;
    };
    await update(directory, world.options());
    assert.equal(most, expected);
  }
});

test("a large update waits for its window, a small one does not, and --now waits for nothing", async (t) => {
  const { world, directory } = await installed(t);
  const clock = new SimulatedClock(0);
  world.hub.transfer = { window: clock.window(60, 120), windowFromBytes: 1_000_000 };
  world.hub.publish({ seed: { content: "small", targets } });
  assert.equal((await update(directory, world.options({ clock }))).kind, "updated");

  world.hub.publish(large);
  const before = world.hub.contentBytes;
  await assert.rejects(update(directory, world.options({ clock })), {
    code: "UPDATE_POSTPONED",
    expected: world.hub.transfer.window,
  });
  assert.equal(world.hub.contentBytes, before);
  assert.equal([...world.hub.reports.values()].at(-1)?.outcome, "postponed");
  assert.equal((await update(directory, { ...world.options({ clock }), now: true })).kind, "updated");

  // What the installation says outranks the hub.
  world.hub.publish({ ...large, more: { content: randomBytes(2_000_000), targets } });
  await assert.rejects(update(directory, world.options({ clock })), { code: "UPDATE_POSTPONED" });
  await configure(directory, { transfer: { window: "" } }, world.options());
  assert.equal((await update(directory, world.options({ clock }))).kind, "updated");
  await configure(directory, { transfer: { window: null } }, world.options());
  world.hub.publish(small);
  await assert.rejects(update(directory, world.options({ clock })), { code: "UPDATE_POSTPONED" });
});

test("when the window closes a transfer stops, and goes on where it was in the next one", async (t) => {
  const { world, directory } = await installed(t);
  world.hub.publish(large);
  // Ten seconds are left, and thirty are needed.
  const clock = new SimulatedClock(10);
  world.hub.transfer = { bytesPerSecond: RATE, window: clock.window(-60, 0), windowFromBytes: 0 };
  const before = world.hub.contentBytes;
  await assert.rejects(update(directory, world.options({ clock })), { code: "UPDATE_POSTPONED" });
  assert.ok(clock.monotonic() >= 10_000 && clock.monotonic() < 12_000, `${clock.monotonic()}`);
  assert.equal(readFileSync(join(directory, "seed"), "utf8"), "seed");
  clock.pass(23.5 * 3_600_000);
  const from = clock.monotonic();
  await update(directory, world.options({ clock }));
  const seconds = (clock.monotonic() - from) / 1000;
  assert.ok(seconds > 18 && seconds < 21, `${seconds} s for the rest`);
  assert.ok(readFileSync(join(directory, "big")).equals(large.big.content));
  // What the network still held when the reader stopped is all that travels twice.
  assert.ok(world.hub.contentBytes - before >= 3_000_000);
});

test("an agent waits for the window and goes on by itself", async (t) => {
  const { world, directory } = await installed(t);
  world.hub.publish(large);
  world.hub.pollSeconds = 300;
  const clock = new SimulatedClock(0);
  world.hub.transfer = { window: clock.window(60, 120), windowFromBytes: 0 };
  const events: { kind: AgentEvent["kind"]; at: number }[] = [];
  const stop = new AbortController();
  const onEvent = (event: AgentEvent) => {
    if (event.kind === "progress") return;
    events.push({ kind: event.kind, at: clock.monotonic() / 60_000 });
    if (event.kind === "updated" || event.kind === "failed") stop.abort();
  };
  const { progress: _, ...options } = world.options({ clock, signal: stop.signal });
  await runAgent({ ...options, directories: [directory], follow: false, onEvent });
  assert.deepEqual(
    events.map(({ kind }) => kind),
    ["watching", "updating", "postponed", "updating", "updated", "stopped"],
  );
  const updated = events.find(({ kind }) => kind === "updated")?.at ?? 0;
  assert.ok(updated >= 59 && updated < 75, `after ${updated} minutes`);
});

test("an agent that waits for the window goes on when the limits change, or the clock was set", async (t) => {
  const changes: Record<
    string,
    (given: { world: World; directory: string; clock: SimulatedClock }) => unknown
  > = {
    "taken away in the installation": ({ world, directory }) =>
      configure(directory, { transfer: { window: "" } }, world.options()),
    "taken away at the hub": ({ world }) => {
      world.hub.transfer = {};
    },
    "small enough now": ({ world }) => {
      world.hub.transfer = { ...world.hub.transfer, windowFromBytes: 10_000_000 };
    },
    "the machine slept until it was open": ({ clock }) => clock.sleepOfMachine(601 * 60_000),
  };
  for (const [what, change] of Object.entries(changes)) {
    const { world, directory } = await installed(t);
    world.hub.publish(large);
    world.hub.pollSeconds = 300;
    const clock = new SimulatedClock(0);
    world.hub.transfer = { window: clock.window(600, 720), windowFromBytes: 0 };
    const events: { kind: AgentEvent["kind"]; at: number }[] = [];
    const stop = new AbortController();
    let changed: Promise<unknown> | null = null;
    const onEvent = (event: AgentEvent) => {
      events.push({ kind: event.kind, at: clock.monotonic() / 60_000 });
      if (event.kind === "postponed") changed ??= Promise.resolve(change({ world, directory, clock }));
      if (event.kind === "updated" || event.kind === "failed") stop.abort();
    };
    const { progress: _, ...options } = world.options({ clock, signal: stop.signal });
    await runAgent({ ...options, directories: [directory], follow: false, onEvent });
    await changed;
    const updated = events.find(({ kind }) => kind === "updated")?.at ?? Number.NaN;
    assert.ok(updated < 60, `${what}: updated after ${updated} minutes of running`);
  }
});

import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { Readable } from "node:stream";
import { test } from "node:test";
import { silentLogger, systemClock } from "@lockstep/platform";
import type { FastifyReply, FastifyRequest } from "fastify";
import { isTooSlow, keepPace, needsPace } from "./pace.ts";

const PACE = { windowMs: 1_000, bytesMin: 100 };

test("who takes fewer bytes than it must, while more wait, is too slow", () => {
  // 1,000 bytes were handed over, 400 of them still wait: 600 were taken.
  const connection = { bytesWritten: 1_000, writableLength: 400, destroyed: false };
  assert.equal(isTooSlow(500, connection, PACE), false);
  assert.equal(isTooSlow(501, connection, PACE), true);
  assert.equal(isTooSlow(600, connection, PACE), true);
});

test("nobody is too slow for whom nothing waits: then the hub is the slow one", () => {
  assert.equal(isTooSlow(1_000, { bytesWritten: 1_000, writableLength: 0, destroyed: false }, PACE), false);
});

test("streams and long texts are looked at, what fits into the buffers is not", () => {
  assert.equal(needsPace(Readable.from([])), true);
  assert.equal(needsPace("x".repeat(300_000)), true);
  assert.equal(needsPace(Buffer.alloc(300_000)), true);
  assert.equal(needsPace("short"), false);
  assert.equal(needsPace(null), false);
});

test("after a standstill of the hub a reader gets time to take something before it is cut", async () => {
  const socket = {
    bytesWritten: 1_000,
    writableLength: 900,
    destroyed: false,
    destroy() {
      this.destroyed = true;
    },
  };
  const raw = Object.assign(new EventEmitter(), { socket });
  const sleeps: number[] = [];
  const { promise: stalled, resolve: cut } = Promise.withResolvers<void>();
  const clock = {
    ...systemClock,
    sleep: async (ms: number) => {
      sleeps.push(ms);
      // The first sleep is the one that took too long; in the next one the network takes what it can.
      if (sleeps.length === 2) socket.writableLength = 500;
      if (sleeps.length === 10) assert.equal(socket.destroyed, false);
      if (sleeps.length === 20) cut();
    },
  };
  keepPace({ url: "/", from: "" } as FastifyRequest, { raw } as unknown as FastifyReply, {
    pace: PACE,
    clock,
    log: silentLogger,
  });
  await stalled;
  await new Promise((resolve) => setImmediate(resolve));
  // In the second window it took nothing.
  assert.equal(socket.destroyed, true);
  assert.deepEqual(sleeps, Array(20).fill(100));
});

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  DEFAULT_TRANSFER,
  minutesUntilOpen,
  parseTransferWindow,
  readTransferSettings,
  takeBytes,
  transferLimits,
} from "./transfer-limits.ts";

const at = (text: string) => Number(text.slice(0, 2)) * 60 + Number(text.slice(3));

test("a window over midnight is open at night, and says when it opens", () => {
  const windows = parseTransferWindow("22:00-05:00, 12:30-13:00");
  assert.ok(windows !== null);
  const waits = [
    "21:59",
    "22:00",
    "23:59",
    "00:00",
    "04:59",
    "05:00",
    "12:29",
    "12:30",
    "12:59",
    "13:00",
  ].map((time) => minutesUntilOpen(windows, at(time)));
  assert.deepEqual(waits, [1, 0, 0, 0, 0, 450, 1, 0, 0, 540]);
  assert.equal(minutesUntilOpen([], 700), 0);
});

test("what is no window is refused", () => {
  for (const text of [
    "22:00",
    "24:00-05:00",
    "22:00-22:00",
    "22:60-05:00",
    "22-5",
    "22:00-05:00,",
    "a-b",
    " ",
  ])
    assert.equal(parseTransferWindow(text), null, text);
  assert.deepEqual(parseTransferWindow(""), []);
});

test("minute by minute, the wait ends exactly where the window begins", () => {
  const minute = fc.integer({ min: 0, max: 1439 });
  fc.assert(
    fc.property(
      fc.array(fc.record({ from: minute, to: minute }), { minLength: 1, maxLength: 3 }),
      minute,
      (given, now) => {
        const windows = given.filter(({ from, to }) => from !== to);
        if (windows.length === 0) return;
        const isOpen = (m: number) =>
          windows.some(({ from, to }) => (from < to ? m >= from && m < to : m >= from || m < to));
        let expected = 0;
        while (!isOpen((now + expected) % 1440)) expected++;
        assert.equal(minutesUntilOpen(windows, now), expected);
      },
    ),
  );
});

test("the installation's limits outrank the hub's, and what is none is left out", () => {
  assert.deepEqual(transferLimits(undefined, undefined), DEFAULT_TRANSFER);
  assert.deepEqual(
    transferLimits({ bytesPerSecond: 0, atOnce: 1 }, { bytesPerSecond: 50_000, window: "01:00-02:00" }),
    {
      ...DEFAULT_TRANSFER,
      window: "01:00-02:00",
      atOnce: 1,
    },
  );
  assert.deepEqual(
    readTransferSettings({ bytesPerSecond: 5, window: "x", windowFromBytes: -1, atOnce: 9, other: 1 }),
    {},
  );
  for (const nothing of [null, 1, "x", undefined]) assert.deepEqual(readTransferSettings(nothing), {});
});

test("over any stretch of time no more passes than the rate allows, and no less where there is always something", () => {
  const chunk = fc.record({
    bytes: fc.integer({ min: 1, max: 65_536 }),
    pauseMs: fc.integer({ min: 0, max: 2_000 }),
  });
  fc.assert(
    fc.property(
      fc.integer({ min: 20_000, max: 10_000_000 }),
      fc.array(chunk, { minLength: 2, maxLength: 100 }),
      fc.boolean(),
      (rate, chunks, busy) => {
        let now = 1_000;
        let state: number | null = null;
        const read: { at: number; bytes: number }[] = [];
        for (const { bytes, pauseMs } of chunks) {
          if (!busy) now += pauseMs;
          read.push({ at: now, bytes });
          const taken = takeBytes(state, now, bytes, rate);
          state = taken.state;
          now += taken.waitMs;
        }
        for (let from = 0; from < read.length; from++) {
          let sum = 0;
          for (let to = from; to < read.length - 1; to++) {
            sum += read[to]?.bytes ?? 0;
            const ms = (read[to + 1]?.at ?? 0) - (read[from]?.at ?? 0);
            assert.ok(sum <= (rate * (ms + 250)) / 1000 + 1e-3, `${sum} bytes in ${ms} ms at ${rate}`);
          }
        }
        const all = read.reduce((sum, { bytes }) => sum + bytes, 0);
        if (busy) assert.ok(Math.abs(now - 1_000 - Math.max(0, (all * 1000) / rate - 250)) < 1e-3);
      },
    ),
  );
});

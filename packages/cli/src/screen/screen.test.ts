import assert from "node:assert/strict";
import { test } from "node:test";
import { counted, formatBytes, formatCount, formatDuration } from "./format.ts";
import { Progress } from "./progress.ts";
import { displayWidth } from "./table.ts";

test("sizes, counts and durations are short and keep their unit", () => {
  const sizes: [number, string][] = [
    [0, "0 B"],
    [999, "999 B"],
    [1000, "1.0 kB"],
    [99_949, "99.9 kB"],
    [99_951, "100 kB"],
    [999_499, "999 kB"],
    [999_600, "1.0 MB"],
    [1_100_000_000, "1.1 GB"],
  ];
  for (const [bytes, text] of sizes) assert.equal(formatBytes(bytes), text);
  assert.equal(formatCount(32_000), "32 000");
  assert.equal(formatCount(999), "999");
  assert.equal(counted(1, "file"), "1 file");
  assert.equal(counted(0, "file"), "0 files");
  const durations: [number, string][] = [
    [400, "0.4 s"],
    [12_300, "12 s"],
    [59_700, "1 min 00 s"],
    [185_000, "3 min 05 s"],
    [7_800_000, "2 h 10 min"],
  ];
  for (const [ms, text] of durations) assert.equal(formatDuration(ms), text);
});

test("a column is as wide as the terminal shows it", () => {
  assert.equal(displayWidth("abc"), 3);
  assert.equal(displayWidth("日本"), 4);
  assert.equal(displayWidth("e\u0301"), 1);
  assert.equal(displayWidth("😀"), 2);
});

function progressOn(interactive: boolean, columns = 60) {
  let now = 0;
  let written = "";
  const terminal = { interactive, columns, color: false };
  const progress = new Progress("loading", terminal, { monotonic: () => now }, (text) => {
    written += text;
  });
  return {
    progress,
    step: (ms: number) => {
      now += ms;
    },
    written: () => written,
  };
}

test("a pipe gets whole lines, few of them, and one at the end", () => {
  const { progress, step, written } = progressOn(false);
  for (let second = 1; second <= 25; second++) {
    step(1000);
    progress.update({ bytes: second * 1000, bytesTotal: 100_000, files: second, filesTotal: 100 });
  }
  progress.finish();
  assert.equal(
    written(),
    [
      "loading  10 of 100 files, 10.0 kB of 100 kB  1.0 kB/s  1 min 30 s left",
      "loading  20 of 100 files, 20.0 kB of 100 kB  1.0 kB/s  1 min 20 s left",
      "loading  25 files, 25.0 kB in 25 s (1.0 kB/s)",
      "",
    ].join("\n"),
  );
});

test("a terminal gets a bar that never outgrows its line, and no remains of it", () => {
  const { progress, step, written } = progressOn(true);
  for (let i = 1; i <= 10; i++) {
    step(50);
    progress.update({ bytes: i * 10, bytesTotal: 100 });
  }
  progress.finish("done");
  const drawn = written().split("\r\u001b[2K");
  assert.ok(drawn.length >= 5);
  for (const line of drawn.slice(1, -1)) assert.ok(line.length < 60, line);
  assert.match(drawn[1] ?? "", /^\[-{8}\] {2}10% loading/);
  assert.equal(drawn.at(-1), "done\n");
});

test("a narrow terminal still shows rate and time left", () => {
  for (const columns of [200, 80, 70]) {
    const { progress, step, written } = progressOn(true, columns);
    step(1000);
    progress.update({ bytes: 123_456_789, bytesTotal: 987_654_321, files: 12_345, filesTotal: 34_842 });
    const line = written().split("\u001b[2K").at(-1) ?? "";
    assert.ok(line.length < columns, line);
    assert.match(line, /^\[.{8,24}\] {2}12% .*123 MB\/s {2}7\.0 s left$/, `${columns} columns`);
    assert.equal(line.includes("12 345 of 34 842 files"), columns === 200);
  }
});

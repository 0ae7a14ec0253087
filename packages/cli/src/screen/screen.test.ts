import assert from "node:assert/strict";
import { test } from "node:test";
import { counted, formatBytes, formatCount, formatDuration } from "./format.ts";
import { describeRecord } from "./log-text.ts";
import { Output } from "./output.ts";
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
    [0.4, "0 ms"],
    [99.4, "99 ms"],
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
  assert.match(drawn[1] ?? "", /^\[#*-+\] {2}10% loading/);
  assert.equal(drawn.at(-1), "done\n");
});

test("a narrow terminal still shows rate and time left", () => {
  for (const columns of [200, 80, 70]) {
    const { progress, step, written } = progressOn(true, columns);
    step(2000);
    progress.update({ bytes: 123_456_789, bytesTotal: 987_654_321, files: 12_345, filesTotal: 34_842 });
    const line = written().split("\u001b[2K").at(-1) ?? "";
    assert.ok(line.length < columns, line);
    assert.match(line, /^\[.{8,24}\] {2}24% .*61\.7 MB\/s {2}6\.1 s left$/, `${columns} columns`);
    assert.equal(line.includes("12 345 of 34 842 files"), columns === 200);
  }
});

test("no rate and no time left before there is something to take them from", () => {
  const { progress, step, written } = progressOn(true, 200);
  const last = () => written().split("\u001b[2K").at(-1) ?? "";
  progress.update({ bytes: 0, bytesTotal: null });
  assert.equal(last(), "loading  ...");
  step(300);
  progress.update({ bytes: 1000, bytesTotal: 1_000_000_000, files: 1, filesTotal: 2 });
  assert.match(last(), /1 of 2 files, 1\.0 kB of 1\.0 GB$/);
  step(800);
  progress.update({ bytes: 300_000_000, bytesTotal: 1_000_000_000, files: 1, filesTotal: 2 });
  assert.match(last(), / {2}273 MB\/s$/);
  step(1000);
  progress.update({ bytes: 600_000_000, bytesTotal: 1_000_000_000, files: 1, filesTotal: 2 });
  assert.match(last(), /MB\/s {2}1\.4 s left$/);
});

test("small files before a large one do not make the time left wild", () => {
  const { progress, step, written } = progressOn(true, 200);
  // 3,000 small files take three seconds; a large one of 120 MB, about as much work, is still to come.
  for (let tenth = 1; tenth <= 30; tenth++) {
    step(100);
    progress.update({
      bytes: tenth * 20_000,
      bytesTotal: 120_600_000,
      files: tenth * 100,
      filesTotal: 3_001,
    });
  }
  const line = written().split("\u001b[2K").at(-1) ?? "";
  const left = /([\d.]+) s left$/.exec(line)?.[1];
  assert.ok(Number(left) < 10, line);
  assert.match(line, /^\[#+-+\] {2}4\d% /);
});

test("what did nothing leaves nothing behind, and a moment's work no rate", () => {
  const nothing = progressOn(true);
  nothing.progress.update({ bytes: 0, bytesTotal: null });
  nothing.step(10);
  nothing.progress.finish();
  assert.ok(nothing.written().endsWith("\r\u001b[2K"));
  const moment = progressOn(false);
  moment.progress.update({ bytes: 3, bytesTotal: 3, files: 1, filesTotal: 1 });
  moment.step(40);
  moment.progress.finish();
  assert.equal(moment.written(), "loading  1 file, 3 B in 40 ms\n");
});

test("text never sticks to something that moves", () => {
  const output = new Output({ json: false, quiet: false });
  const said: string[] = [];
  output.beforeText = () => said.push("cleared");
  const { stdout, stderr } = process;
  const writes = [stdout.write, stderr.write];
  try {
    stdout.write = stderr.write = (text: unknown) => said.push(String(text)) > 0;
    output.line("data");
    output.note("remark");
    output.warn("warning");
    output.document({});
  } finally {
    [stdout.write = stdout.write, stderr.write = stderr.write] = writes;
  }
  assert.deepEqual(
    said.map((text) => text.trim().replace(/.*warning:\S* /, "")),
    ["cleared", "data", "cleared", "remark", "cleared", "warning"],
  );
});

test("a record of the log is told in the words of people, without what is not there", () => {
  const record = {
    time: "2026-01-02T03:04:05.000Z",
    run: "r",
    path: null,
    result: "ok",
    reason: null,
    chain: "c".repeat(64),
  } as const;
  assert.equal(
    describeRecord({ ...record, action: "begin", reason: "manual", from: null, to: 1 }),
    "manual, revision 1",
  );
  assert.equal(
    describeRecord({
      ...record,
      action: "end",
      from: 1,
      to: 2,
      switchMs: 0.2,
      receivedBytes: 1500,
      reused: 0,
    }),
    "revision 1 -> 2, switched in 0.2 ms, 1.5 kB received, reused 0",
  );
  const facts = { size: 3, sha256: "a".repeat(64), formerSize: 7, formerSha256: "b".repeat(64) };
  assert.equal(
    describeRecord({ ...record, action: "replace", path: "f", reason: "size", ...facts }),
    "size, 7 B bbbbbbbbbbbb -> 3 B aaaaaaaaaaaa",
  );
});

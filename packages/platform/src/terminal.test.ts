import assert from "node:assert/strict";
import test from "node:test";
import { describeTerminal, paint, printable } from "./terminal.ts";

const tty = { isTTY: true, columns: 120 };

test("a terminal is interactive and coloured, a pipe is neither", () => {
  assert.deepEqual(describeTerminal(tty, {}), { interactive: true, columns: 120, color: true });
  assert.deepEqual(describeTerminal({}, {}), { interactive: false, columns: 80, color: false });
});

test("NO_COLOR wins over everything, an empty one says nothing", () => {
  assert.equal(describeTerminal(tty, { NO_COLOR: "1", FORCE_COLOR: "1" }).color, false);
  assert.equal(describeTerminal(tty, { NO_COLOR: "" }).color, true);
  assert.equal(describeTerminal({}, { FORCE_COLOR: "1" }).color, true);
  assert.equal(describeTerminal(tty, { FORCE_COLOR: "0" }).color, false);
});

test("a dumb terminal gets neither colour nor moving progress, and nobody answers in CI", () => {
  assert.deepEqual(describeTerminal(tty, { TERM: "dumb" }), {
    interactive: false,
    columns: 120,
    color: false,
  });
  assert.equal(describeTerminal(tty, { CI: "true" }).interactive, false);
});

test("paint leaves the text alone where there is no colour", () => {
  assert.equal(paint({ color: false }, "red", "x"), "x");
  assert.equal(paint({ color: true }, "red", "x"), "\u001b[31mx\u001b[39m");
});

test("a name from outside cannot steer the terminal", () => {
  assert.equal(printable("a\u001b[2Jb\u202ec\nd"), "a\\u001b[2Jb\\u202ec\\u000ad");
  assert.equal(printable("a\nb", "lines"), "a\nb");
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { counted } from "./count-text.ts";

test("one is no several, and thousands are set apart", () => {
  assert.deepEqual(
    [
      counted(0, "file"),
      counted(1, "file"),
      counted(32_000, "file"),
      counted(1, "entry", "entries"),
      counted(2, "entry", "entries"),
    ],
    ["0 files", "1 file", "32 000 files", "1 entry", "2 entries"],
  );
});

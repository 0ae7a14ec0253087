import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { StepFiles } from "./step-files.ts";

const digest = (text: string) => createHash("sha256").update(text).digest("hex");
const [a, b, c] = [digest("a"), digest("b"), digest("c")] as [string, string, string];

function temporaryDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-steps-"));
  t.after(() => rmSync(directory, { recursive: true }));
  return directory;
}

/** What a maker leaves: the step, and its digest behind it. */
function make(files: StepFiles, from: string, to: string, bytes: number): void {
  const step = Buffer.alloc(bytes, from);
  writeFileSync(files.temporary(from, to), Buffer.concat([step, createHash("sha256").update(step).digest()]));
}

test("above their limit the steps that were not used for the longest time go", async (t) => {
  const directory = temporaryDirectory(t);
  const files = await StepFiles.open(directory, 2_500);
  for (const [from, hoursAgo] of [
    [a, 3],
    [b, 2],
  ] as const) {
    make(files, from, c, 1_000);
    await files.place(from, c);
    const then = new Date(Date.now() - hoursAgo * 3_600_000);
    utimesSync(join(directory, `${from}-${c}`), then, then);
  }
  // Its use makes the first one the younger one.
  await (await files.find(a, c))?.handle.close();
  make(files, c, a, 1_000);
  await files.place(c, a);
  assert.deepEqual(readdirSync(directory).sort(), [`${a}-${c}`, `${c}-${a}`].sort());
  assert.equal(await files.find(b, c), null);
});

test("what the maker of a hub that was killed left is neither used nor in the way", async (t) => {
  const directory = temporaryDirectory(t);
  const killed = await StepFiles.open(directory, 10_000);
  make(killed, a, b, 100);
  const files = await StepFiles.open(directory, 10_000);
  assert.deepEqual(readdirSync(directory), []);
  // It is at it still, beside the one that the new hub has started.
  make(killed, a, b, 50);
  assert.notEqual(files.temporary(a, b), killed.temporary(a, b));
  make(files, a, b, 200);
  await files.place(a, b);
  const found = await files.find(a, b);
  assert.equal(found?.size, 200);
  await found?.handle.close();
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { isLockstepError } from "@lockstep/protocol/wire";
import { appendEntry, EMPTY_LOG, type LogHead, type ReleaseEntry } from "@lockstep/trust";
import { compareHeads, entriesOfFile, type NamedHead } from "./trust-compare.ts";

/** A23: a split view, found by laying the heads of installations side by side. */
function history(words: readonly string[]): { readonly entries: ReleaseEntry[]; readonly heads: LogHead[] } {
  const entries = words.map((word, at) => ({
    index: at + 1,
    revision: at + 1,
    digest: Buffer.from(word.padEnd(32, ".")).toString("hex"),
  }));
  const heads: LogHead[] = [];
  for (const entry of entries) heads.push(appendEntry(heads.at(-1) ?? EMPTY_LOG, entry));
  return { entries, heads };
}

const real = history(["a", "b", "c", "d", "e"]);
const split = history(["a", "b", "for your eyes only", "d", "e"]);
const at = (log: typeof real, size: number, epoch = 1): NamedHead => ({
  name: `site ${size}`,
  epoch,
  ...(log.heads[size - 1] ?? EMPTY_LOG),
});
const source = (log: typeof real) => entriesOfFile(JSON.stringify({ entries: log.entries }));

async function codeOf(act: Promise<unknown>): Promise<string> {
  try {
    await act;
    return "one history";
  } catch (error) {
    return isLockstepError(error) ? error.code : String(error);
  }
}

test("A23: heads of one history continue each other, in whatever order they come", async () => {
  const given = [at(real, 5), at(real, 1), at(real, 3), at(real, 3)];
  const { heads, proof } = await compareHeads(given, source(real));
  assert.deepEqual([heads.map(({ size }) => size), proof.length], [[1, 3, 3, 5], 4]);
  assert.equal(await codeOf(compareHeads([at(real, 2), at(real, 2)], null)), "one history");
});

test("A23: whoever was shown another release is found, whatever entries the hub gives", async () => {
  for (const [a, b] of [
    [3, 3],
    [3, 5],
    [4, 5],
    [5, 3],
    [5, 5],
  ] as const)
    for (const entries of [real, split, history([])])
      assert.equal(
        await codeOf(compareHeads([at(real, a), at(split, b)], source(entries))),
        "TRUST_HISTORY_DIFFERS",
        `${a} and ${b}`,
      );
  // The control: before they parted nothing tells them apart, and a look that compares sizes alone never would.
  assert.equal(await codeOf(compareHeads([at(real, 2), at(split, 5)], source(split))), "one history");
});

test("what lies between heads is needed, and epochs are not mixed", async () => {
  assert.equal(await codeOf(compareHeads([at(real, 2), at(real, 5)], null)), "USAGE");
  assert.equal(await codeOf(compareHeads([at(real, 2), at(real, 5, 2)], source(real))), "USAGE");
  const damaged = { ...real, entries: real.entries.toSpliced(3, 1) };
  assert.equal(
    await codeOf(compareHeads([at(real, 2), at(real, 5)], source(damaged))),
    "TRUST_HISTORY_DIFFERS",
  );
});

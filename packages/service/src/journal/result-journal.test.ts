import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { isLockstepError, type StepResult } from "@lockstep/protocol/wire";
import fc from "fast-check";
import { ResultJournal } from "./result-journal.ts";

function place(t: Pick<TestContext, "after">): string {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-journal-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, "state");
}

const result = (claim: number, message = ""): StepResult => ({
  step: claim + 1000,
  claim,
  outcome: "success",
  message,
});
const claimsOf = (journal: ResultJournal) => journal.results.map(({ claim }) => claim);

test("what was written is there after the next start, without what the hub has", async (t) => {
  const directory = place(t);
  const journal = await ResultJournal.open(directory, "\\A");
  await journal.write([result(1), result(2, "Ünicode\n")]);
  await journal.write([result(3)]);
  journal.forget([2]);
  await journal.close();
  const next = await ResultJournal.open(directory, "\\A");
  assert.deepEqual(next.results, [result(1), result(3)]);
  const other = await ResultJournal.open(directory, "\\B");
  assert.deepEqual(other.results, []);
  await other.close();
  next.forget([1, 3]);
  await next.close();
  const last = await ResultJournal.open(directory, "\\A");
  assert.deepEqual(last.results, []);
  assert.ok(statSync(last.file).size < 200, "an empty journal keeps nothing");
  await last.close();
});

test("wherever the last line was cut, every line before it holds", async (t) => {
  const directory = place(t);
  const journal = await ResultJournal.open(directory, "\\A");
  await journal.write([result(1)]);
  const whole = statSync(journal.file).size;
  await journal.write([result(2)]);
  await journal.close();
  const bytes = readFileSync(journal.file);
  for (let length = whole; length < bytes.length; length++) {
    writeFileSync(journal.file, bytes.subarray(0, length));
    const torn = await ResultJournal.open(directory, "\\A");
    assert.deepEqual(claimsOf(torn), [1], `cut at ${length}`);
    await torn.write([result(3)]);
    await torn.close();
    const next = await ResultJournal.open(directory, "\\A");
    assert.deepEqual(claimsOf(next), [1, 3], `cut at ${length}`);
    await next.close();
  }
});

test("a line that rotted costs itself and no other", async (t) => {
  const directory = place(t);
  const journal = await ResultJournal.open(directory, "\\A");
  await journal.write([result(1), result(2), result(3)]);
  await journal.close();
  const text = readFileSync(journal.file, "utf8");
  writeFileSync(journal.file, text.replace('"claim":2', '"claim":7'));
  appendFileSync(journal.file, "not a line of ours\n");
  const next = await ResultJournal.open(directory, "\\A");
  assert.deepEqual(claimsOf(next), [1, 3]);
  await next.close();
});

test("a journal that is full says so by name, keeps what it has, and goes on when there is room", async (t) => {
  const directory = place(t);
  const journal = await ResultJournal.open(directory, "\\A", 2000);
  const long = "x".repeat(500);
  await journal.write([result(1, long), result(2, long)]);
  await assert.rejects(
    () => journal.write([result(3, long), result(4, long)]),
    (error) => isLockstepError(error, "JOB_JOURNAL_FAILED") && /limit/.test(error.message),
  );
  assert.deepEqual(claimsOf(journal), [1, 2]);
  journal.forget([1]);
  await journal.write([result(3, long)]);
  await journal.close();
  const next = await ResultJournal.open(directory, "\\A", 2000);
  assert.deepEqual(claimsOf(next), [2, 3]);
  await next.close();
});

test("any order of writing, forgetting and starting again keeps exactly what is owed", async (t) => {
  const directory = place(t);
  const acts = fc.array(
    fc.oneof(
      fc.record({
        act: fc.constant("write" as const),
        claims: fc.uniqueArray(fc.integer({ min: 1, max: 20 }), { maxLength: 5 }),
      }),
      fc.record({
        act: fc.constant("forget" as const),
        claims: fc.uniqueArray(fc.integer({ min: 1, max: 20 }), { maxLength: 5 }),
      }),
      fc.record({ act: fc.constant("start" as const), claims: fc.constant([]) }),
    ),
    { maxLength: 30 },
  );
  let run = 0;
  await fc.assert(
    fc.asyncProperty(acts, async (list) => {
      run += 1;
      const owed = new Set<number>();
      let journal = await ResultJournal.open(directory, `queue ${run}`);
      for (const { act, claims } of list) {
        if (act === "write") {
          await journal.write(claims.map((claim) => result(claim, "m".repeat(claim * 50))));
          for (const claim of claims) owed.add(claim);
        } else if (act === "forget") {
          journal.forget(claims);
          for (const claim of claims) owed.delete(claim);
        } else {
          await journal.close();
          journal = await ResultJournal.open(directory, `queue ${run}`);
        }
      }
      await journal.close();
      const next = await ResultJournal.open(directory, `queue ${run}`);
      assert.deepEqual(
        claimsOf(next).sort((a, b) => a - b),
        [...owed].sort((a, b) => a - b),
      );
      await next.close();
    }),
    { numRuns: 60 },
  );
});

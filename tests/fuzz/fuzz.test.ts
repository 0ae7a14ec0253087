import assert from "node:assert/strict";
import { test } from "node:test";
import { LockstepError } from "@lockstep/protocol";
import { askedSeed, Prng } from "@lockstep/testing";
import { type FuzzTarget, fuzz, Violation } from "./fuzz.ts";
import { mutate } from "./mutate.ts";
import { FUZZ_TARGETS } from "./targets.ts";

/** A sample of `npm run sim -- --fuzz`. */
const INPUTS = 3000;
const SEED = askedSeed(20_000_000_000);
const SHARES = FUZZ_TARGETS.reduce((sum, { share }) => sum + share, 0);

for (const target of FUZZ_TARGETS)
  test(`fuzz: ${target.name} takes nothing that was changed, breaks down over nothing and is never slow`, async () => {
    const { inputs, finds, refused } = await fuzz(target, SEED, Math.ceil((INPUTS * target.share) / SHARES));
    assert.deepEqual(finds, [], `seed ${SEED}`);
    assert.ok(inputs >= 15 || target.share < SHARES / 100, `${inputs} inputs`);
    // Few inputs may all be such as may be taken.
    assert.ok(refused.size > 0 || inputs < 50);
  });

const sample = Buffer.from('{"format":"x","entries":[{"path":"a","size":1},{"path":"b","size":2}]}');
const target = (judge: (text: string) => string | null): FuzzTarget => ({
  name: "control",
  share: 1,
  prepare: () => ({
    draw: (prng) => mutate(sample, prng).toString(),
    judge: (input) => judge(String(input)),
  }),
});

test("the control: a reader that breaks down, one that takes what was changed and a slow one are all found", async () => {
  const breaks = await fuzz(
    target((text) => {
      const { entries } = JSON.parse(text) as { entries: { path: string }[] };
      return entries.map(({ path }) => path.trim()).join();
    }),
    1,
    500,
  );
  assert.match(breaks.finds[0]?.problem ?? "", /SyntaxError|TypeError/);

  const takes = await fuzz(
    target((text) => {
      try {
        JSON.parse(text);
      } catch {
        return "no JSON";
      }
      throw new Violation("it is taken without a look at its digest");
    }),
    1,
    500,
  );
  assert.match(takes.finds[0]?.problem ?? "", /without a look/);

  const slow = await fuzz(
    target((text) => {
      // Backtracks without end where a reader should not: only on some of the inputs.
      const end = process.cpuUsage().user + 25_000;
      while (text.length % 5 === 0 && process.cpuUsage().user < end);
      throw new LockstepError("REQUEST_INVALID", "refused");
    }),
    1,
    15,
    20,
  );
  assert.match(slow.finds[0]?.problem ?? "", /took \d+ ms/);
  assert.ok(slow.finds.length < slow.inputs, "all were slow");
});

test("an input follows from its seed alone, and is never the one that it was made of", () => {
  for (let seed = 0; seed < 500; seed++) {
    const once = mutate(sample, new Prng(seed));
    assert.deepEqual(once, mutate(sample, new Prng(seed)));
    assert.equal(once.equals(sample), false);
  }
});

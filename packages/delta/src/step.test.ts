import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import test from "node:test";
import type { FileEntry } from "@lockstep/core";
import { isLockstepError } from "@lockstep/protocol/wire";
import fc from "fast-check";
import { type Content, makeStep, readStep, sourceOf, stepContents, writeStep } from "./index.ts";

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** Files by path, as a manifest and as contents. */
class Tree {
  readonly entries: FileEntry[] = [];
  readonly #contents = new Map<string, Uint8Array>();

  constructor(files: Readonly<Record<string, string | Uint8Array>>) {
    for (const [path, given] of Object.entries(files).sort(([a], [b]) => (a < b ? -1 : 1))) {
      const bytes = typeof given === "string" ? Buffer.from(given) : given;
      this.entries.push({ path, size: bytes.length, sha256: sha256(bytes), mode: 0o644, backup: false });
      this.#contents.set(sha256(bytes), bytes);
    }
  }

  readonly open = ({ sha256: digest }: Content) => {
    const bytes = this.#contents.get(digest);
    assert.ok(bytes !== undefined, `${digest} is in another tree`);
    return sourceOf(bytes);
  };
}

const NO_LIMIT = () => Number.POSITIVE_INFINITY;

function step(from: Tree, to: Tree, whole: (content: Content) => number = NO_LIMIT): Buffer | null {
  const has = (content: Content) => to.entries.some((entry) => entry.sha256 === content.sha256);
  const made = makeStep(
    from.entries,
    to.entries,
    (content) => (has(content) ? to : from).open(content),
    whole,
  );
  return made === null ? null : Buffer.concat(made.pieces);
}

/** What comes out of a step, by digest; each result has the digest that it should have. */
function results(from: Tree, to: Tree, made: Uint8Array): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  for (const part of readStep(from.entries, to.entries, sourceOf(made))) {
    const pieces: Uint8Array[] = [];
    part.apply(from.open, (bytes) => pieces.push(Uint8Array.from(bytes)));
    const all = Buffer.concat(pieces);
    let at = 0;
    for (const result of part.results) {
      found.set(result.sha256, all.subarray(at, at + result.size));
      at += result.size;
    }
    assert.equal(at, all.length);
  }
  return found;
}

const prose = (seed: number, lines: number) =>
  Array.from({ length: lines }, (_, i) => `${i} ${Math.imul(seed + i, 2654435761).toString(36)}\n`).join("");

test("what changed, came and moved is made of what was there, in a few bytes", () => {
  const from = new Tree({
    "a/changed.txt": prose(1, 2_000),
    "a/same.txt": prose(2, 2_000),
    "lib/core-1.4.2.txt": prose(3, 2_000),
    "gone.txt": prose(4, 100),
  });
  const to = new Tree({
    "a/changed.txt": `${prose(1, 2_000)}one line more\n`,
    "a/same.txt": prose(2, 2_000),
    "lib/core-1.5.0.txt": `a new first line\n${prose(3, 2_000)}`,
    "new.txt": "quite new\n",
    "empty.txt": "",
  });
  const made = step(from, to);
  assert.ok(made !== null && made.length < 250, `${made?.length} bytes`);
  const found = results(from, to, made);
  assert.deepEqual(
    [...found].map(([digest, bytes]) => [digest, sha256(bytes)]),
    stepContents(from.entries, to.entries).results.map((content) => [content.sha256, content.sha256]),
  );
});

const contents = fc.oneof(
  fc.tuple(fc.integer({ min: 1, max: 4 }), fc.nat(60)).map(([seed, lines]) => prose(seed, lines)),
  fc.string({ maxLength: 50 }),
);
const trees = fc
  .dictionary(fc.constantFrom("a", "b/c", "b/d-1.2.txt", "b/d-2.0.txt", "e.zip", "f.gz", "g"), contents)
  .map((files) => new Tree(files));

test("between any two trees, whatever is in a step has its digest", () => {
  fc.assert(
    fc.property(trees, trees, fc.integer({ min: 0, max: 400 }), (from, to, limit) => {
      const made = step(from, to, () => limit);
      if (made === null) return;
      for (const [digest, bytes] of results(from, to, made)) assert.equal(sha256(bytes), digest);
    }),
    { numRuns: 300 },
  );
});

test("without a change there is no step, and what would cost more than the whole is left out", () => {
  const tree = new Tree({ a: prose(1, 50) });
  assert.equal(step(tree, tree), null);
  assert.equal(
    step(new Tree({}), tree, () => 10),
    null,
  );
});

test("deltas are handed on one by one while the step is made, and one that is given up is cut off", () => {
  // Files with such names are made one by one, whatever they hold.
  const names = ["a", "b", "c"];
  const from = new Tree(Object.fromEntries(names.map((name, i) => [`${name}.gz`, prose(i, 6_000)])));
  const to = new Tree(
    Object.fromEntries(names.map((name, i) => [`${name}.gz`, `${prose(i + 10, 3_000)}${prose(i, 3_000)}`])),
  );
  const givenUp = to.entries[1]?.sha256;
  let deltas = Buffer.alloc(0);
  let cuts = 0;
  const bytesAtOpening: number[] = [];
  const made = writeStep(
    from.entries,
    to.entries,
    (content) => {
      const isNew = to.entries.some(({ sha256 }) => sha256 === content.sha256);
      if (isNew) bytesAtOpening.push(deltas.length);
      return (isNew ? to : from).open(content);
    },
    ({ sha256 }) => (sha256 === givenUp ? 10 : Number.POSITIVE_INFINITY),
    {
      write: (piece) => {
        deltas = Buffer.concat([deltas, piece]);
      },
      cut: (bytes) => {
        cuts += 1;
        assert.ok(bytes < deltas.length);
        deltas = deltas.subarray(0, bytes);
      },
    },
  );
  assert.ok(made !== null);
  assert.equal(made.results, 2);
  assert.equal(cuts, 1);
  // Whoever makes the second one is rid of the first; the third begins where the second was cut off.
  const [first = 0, second = 0, third = 0] = bytesAtOpening;
  assert.ok(first === 0 && second > 0 && third === second);
  const step = Buffer.concat([...made.head, deltas]);
  assert.equal(step.length, made.bytes);
  const found = results(from, to, step);
  assert.deepEqual(
    [...found.keys()].sort(),
    to.entries
      .map(({ sha256 }) => sha256)
      .filter((digest) => digest !== givenUp)
      .sort(),
  );
});

test("a broken step is refused by its code, and never asks for a content that is in neither manifest", () => {
  const from = new Tree({ a: prose(1, 300), b: prose(2, 300) });
  const to = new Tree({ a: prose(1, 301), b: prose(3, 300), c: prose(2, 302) });
  const made = step(from, to);
  assert.ok(made !== null);
  fc.assert(
    fc.property(
      fc.nat(made.length - 1),
      fc.nat(255),
      fc.nat(made.length),
      fc.boolean(),
      (at, byte, length, isCut) => {
        const broken = Uint8Array.from(made);
        broken[at] = byte;
        try {
          results(from, to, isCut ? broken.subarray(0, length) : broken);
        } catch (error) {
          // A result of another length is noticed by whoever divides it.
          const isOther = error instanceof assert.AssertionError && !error.message.includes("another tree");
          assert.ok(isOther || isLockstepError(error, "DELTA_INVALID"), String(error));
        }
      },
    ),
    { numRuns: 1_000 },
  );
});

/** The test vector of docs/reference/delta-format.md: it is applied for as long as the format is. */
test("the test vector of the format for steps is applied, and refused when cut anywhere", () => {
  const from = new Tree({ a: "Lockstep keeps every installation in step.\n" });
  const to = new Tree({ a: "Lockstep kept every machine in step.\n", b: "other\n" });
  const made = Buffer.from(
    "4c5353310007070001000200022e4c5344312b2b02002b2328b52ffd0000d50000804c70746d616368696e656f746865720a031005689b96d16d6c00",
    "hex",
  );
  assert.deepEqual(
    [...results(from, to, made)].map(([digest, bytes]) => sha256(bytes) === digest),
    [true, true],
  );
  for (let length = 0; length < made.length; length++)
    assert.throws(
      () => results(from, to, made.subarray(0, length)),
      (error) => isLockstepError(error, "DELTA_INVALID"),
    );
});

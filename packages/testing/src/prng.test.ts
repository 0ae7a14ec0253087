import assert from "node:assert/strict";
import test from "node:test";
import { Prng } from "./prng.ts";

test("equal seeds draw equal sequences, neighbours do not", () => {
  const draw = (seed: number) => {
    const prng = new Prng(seed);
    return Array.from({ length: 20 }, () => prng.uint32());
  };
  assert.deepEqual(draw(7), draw(7));
  assert.equal(new Set([...draw(7), ...draw(8), ...draw(7 + 2 ** 32)]).size, 60);
});

test("draws are spread evenly", () => {
  const prng = new Prng(1);
  const counts = Array.from({ length: 10 }, () => 0);
  for (let i = 0; i < 10_000; i++) {
    const drawn = prng.below(10);
    counts[drawn] = (counts[drawn] ?? 0) + 1;
  }
  for (const count of counts) assert.ok(count > 850 && count < 1150, counts.join(" "));
});

test("a fork draws for itself", () => {
  const one = new Prng(3);
  const other = new Prng(3);
  const fork = one.fork();
  other.fork();
  for (let i = 0; i < 100; i++) fork.next();
  assert.equal(one.next(), other.next());
});

test("identifiers have the form of a random UUID", () => {
  assert.match(new Prng(5).uuid(), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.equal(new Prng(5).hex(4).length, 8);
});

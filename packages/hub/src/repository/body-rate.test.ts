import assert from "node:assert/strict";
import { test } from "node:test";
import { atLeast } from "./body-rate.ts";

const RATE = { windowMs: 40, bytesMin: 1_000 };
const slow = (found: string) => new Error(`too slow: ${found}`);

async function lengthOf(body: AsyncIterable<Uint8Array>, pause = 0): Promise<number> {
  let length = 0;
  for await (const chunk of atLeast(RATE, body, slow)) {
    length += chunk.length;
    if (pause > 0) await sleep(pause);
  }
  return length;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

test("a body that stays silent is ended, and so is one that comes by drops", async () => {
  async function* silent() {
    yield new Uint8Array(5_000);
    await new Promise(() => {});
  }
  await assert.rejects(lengthOf(silent()), /too slow: 0 bytes arrived in 0\.04 s/);
  async function* drops() {
    for (;;) {
      await sleep(3);
      yield new Uint8Array(1);
    }
  }
  await assert.rejects(lengthOf(drops()), /too slow: \d+ bytes/);
});

test("whoever is held back by us is not slow", async () => {
  async function* ready() {
    for (let chunk = 0; chunk < 5; chunk++) yield new Uint8Array(10);
  }
  assert.equal(await lengthOf(ready(), 30), 50);
});

test("a body that ends early is whole, however short", async () => {
  async function* short() {
    yield new Uint8Array(3);
  }
  assert.equal(await lengthOf(short()), 3);
});

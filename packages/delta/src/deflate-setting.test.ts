import assert from "node:assert/strict";
import test from "node:test";
import { assertSameBytes, numberedLines } from "@lockstep/testing";
import pako from "pako";
import { Deflater, type DeflateSetting, SettingSearch } from "./deflate-setting.ts";

const setting = (level: DeflateSetting["level"], memLevel = 8): DeflateSetting => ({ level, memLevel });
const deflated = (content: Buffer, { level, memLevel }: DeflateSetting) =>
  pako.deflateRaw(content, { level, memLevel });

test("a deflater that has served others, and was left in the middle, writes what a new one writes", () => {
  for (const told of [setting(1), setting(6), setting(6, 9), setting(9)]) {
    const deflater = new Deflater(told);
    for (const [seed, count] of [3_000, 1, 20, 6_000].entries()) {
      deflater.begin(() => {});
      deflater.push(numberedLines(4_000, seed + 77), false);
      const pieces: Uint8Array[] = [];
      deflater.begin((bytes) => pieces.push(Uint8Array.from(bytes)));
      const content = numberedLines(count, seed);
      deflater.push(content.subarray(0, 10), false);
      deflater.push(content.subarray(10), true);
      assertSameBytes(Buffer.concat(pieces), Buffer.from(deflated(content, told)));
    }
  }
});

test("an archive of a compressor that is none of ours is given up, but not the settings that were right", () => {
  const search = new SettingSearch();
  const foreign = numberedLines(20_000, 5);
  const wrong = Uint8Array.from(deflated(foreign, setting(6))).fill(0, 40);
  assert.deepEqual(
    search.find(numberedLines(2_000, 1), deflated(numberedLines(2_000, 1), setting(9))),
    setting(9),
  );
  for (let i = 0; i < 6; i++) assert.equal(search.find(foreign, wrong), null);
  assert.deepEqual(
    search.find(numberedLines(2_000, 2), deflated(numberedLines(2_000, 2), setting(9))),
    setting(9),
  );
  assert.equal(search.find(numberedLines(2_000, 3), deflated(numberedLines(2_000, 3), setting(1))), null);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { EMPTY_BASE, extendBase } from "@lockstep/platform";
import { ReportBases } from "./report-bases.ts";

const baseOf = (n: number) => extendBase(EMPTY_BASE, [{ installation: `i-${n}`, body: "x".repeat(997) }]);

test("what was built on last stays, within the size", () => {
  const bases = new ReportBases(3_000);
  for (const n of [1, 2, 3]) bases.keep(baseOf(n));
  assert.equal(bases.find(baseOf(1).name)?.reports.has("i-1"), true);
  bases.keep(baseOf(4));
  const here = [1, 2, 3, 4].filter((n) => bases.find(baseOf(n).name) !== null);
  assert.deepEqual(here, [1, 3, 4]);
  for (let time = 0; time < 10; time++) bases.keep(baseOf(4));
  assert.notEqual(bases.find(baseOf(3).name), null, "the same again takes no room");
  assert.equal(bases.find("ff".repeat(16)), null);
  assert.equal(bases.find(EMPTY_BASE.name), EMPTY_BASE);
});

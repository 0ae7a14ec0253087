import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { compareVersions, isVersion, isVersionBound, satisfiesVersion } from "./version.ts";

test("versions stand in the order that their authors mean", () => {
  const ascending = [
    "0.9",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.9",
    "1.10",
    "7.1.20241231235959999999999",
    "7.1.20241231235959999999999999",
    "16.4.6",
    "16.5.0-canary.3",
    "16.5",
  ];
  ascending.forEach((a, i) => {
    ascending.forEach((b, j) => {
      assert.equal(Math.sign(compareVersions(a, b)), Math.sign(i - j), `${a} and ${b}`);
    });
  });
});

test("missing parts count as zero, leading zeros and builds not at all", () => {
  for (const [a, b] of [
    ["7.1", "7.1.0"],
    ["7", "7.0.0"],
    ["2024.01", "2024.1"],
    ["1.0+a", "1.0+b"],
  ] as const)
    assert.equal(compareVersions(a, b), 0, `${a} and ${b}`);
});

test("the order is total", () => {
  const version = fc
    .array(fc.constantFrom("0", "1", "10", "01", "a", "b"), { minLength: 1, maxLength: 3 })
    .chain((main) =>
      fc
        .option(fc.array(fc.constantFrom("0", "2", "rc"), { minLength: 1, maxLength: 2 }))
        .map((suffix) => main.join(".") + (suffix === null ? "" : `-${suffix.join(".")}`)),
    );
  fc.assert(
    fc.property(version, version, version, (a, b, c) => {
      assert.equal(Math.sign(compareVersions(a, b)) + Math.sign(compareVersions(b, a)), 0);
      if (compareVersions(a, b) <= 0 && compareVersions(b, c) <= 0) assert.ok(compareVersions(a, c) <= 0);
    }),
  );
});

test("a requirement takes its bounds and what lies between, wildcards take the whole series", () => {
  const within = (version: string, min: string | null, max: string | null) =>
    satisfiesVersion(version, { min, max });
  assert.equal(within("7.1.5", "7.1", "7.1.*"), true);
  assert.equal(within("7.1", "7.1", "7.1.*"), true);
  assert.equal(within("7.2", "7.1", "7.1.*"), false);
  assert.equal(within("7.10", "7.1", "7.1.*"), false);
  assert.equal(within("6.9", "7.1", "7.1.*"), false);
  assert.equal(within("6.9", null, "7.1.*"), true);
  assert.equal(within("7.1.1", null, "7.1"), false);
  assert.equal(within("7.1.0", null, "7.1"), true);
  assert.equal(within("7.1.0-rc.1", "7.1.*", null), true);
  assert.equal(within("7.1.0-rc.1", "7.1", null), false);
  assert.equal(within("99", null, null), true);
});

test("what is a version is told from what is none", () => {
  for (const text of ["1", "16.4.6", "9.2.1-SP2", "2024.10+5", "v1"])
    assert.equal(isVersion(text), true, text);
  for (const text of ["", "1 2", "-1", ".1", "1.*", "a/b", "x".repeat(101), "1\n"])
    assert.equal(isVersion(text), false, text);
  assert.equal(isVersionBound("7.1.*"), true);
  assert.equal(isVersionBound("*"), false);
});

import assert from "node:assert/strict";
import test from "node:test";
import {
  findEmptyNames,
  findHiddenTests,
  findImpurity,
  findOrphans,
  findOversized,
  findSilencers,
  findUndeclared,
} from "./source-rules.ts";
import { checkout, treeOf } from "./tree.ts";

const tree = checkout();

test("core reads neither clock nor chance", () => {
  assert.deepEqual(findImpurity(tree), []);
  const impure = (text: string) => findImpurity(treeOf({ "packages/core/src/a.ts": text })).length;
  assert.equal(impure("const a = Date.now();"), 1);
  assert.equal(impure("const a = new Date();"), 1);
  assert.equal(impure("const a = new Date(now).toISOString();"), 0);
  assert.equal(impure("const a = Math.random();"), 1);
  assert.equal(impure("// Date.now() is not for us\nconst a = 1;"), 0);
  assert.equal(findImpurity(treeOf({ "packages/hub/src/a.ts": "Date.now()" })).length, 0);
});

test("every test is in a file that the test run looks at", () => {
  assert.deepEqual(findHiddenTests(tree), []);
  const hidden = (path: string, text: string) => findHiddenTests(treeOf({ [path]: text })).length;
  assert.equal(hidden("packages/core/src/a.ts", 'import test from "node:test";'), 1);
  assert.equal(hidden("tests/e2e/a.ts", 'import { describe, it } from "node:test";'), 1);
  assert.equal(hidden("packages/core/src/a.spec.ts", ""), 1);
  assert.equal(hidden("packages/core/src/a_test.ts", ""), 1);
  assert.equal(hidden("tests/e2e/hub.ts", 'import type { TestContext } from "node:test";'), 0);
  assert.equal(hidden("tests/e2e/hub.ts", 'import { after, type TestContext } from "node:test";'), 0);
  assert.equal(hidden("packages/core/src/a.test.ts", 'import test from "node:test";'), 0);
});

test("every source is imported by more than its own test", () => {
  assert.deepEqual(findOrphans(tree), []);
  const orphans = (files: Record<string, string>) => findOrphans(treeOf(files));
  const a = "packages/core/src/a.ts";
  assert.equal(orphans({ [a]: "", "packages/core/src/a.test.ts": 'import "./a.ts";' }).length, 1);
  assert.equal(orphans({ [a]: "", "packages/core/src/index.ts": 'export * from "./a.ts";' }).length, 0);
  const worker = 'new Worker(new URL("./a.ts", import.meta.url))';
  assert.equal(orphans({ [a]: "", "packages/core/src/index.ts": worker }).length, 0);
  const types = { "packages/core/src/a.d.ts": 'declare module "zip" {}' };
  assert.equal(orphans(types).length, 1);
  assert.equal(orphans({ ...types, "packages/core/src/index.ts": 'import zip from "zip";' }).length, 0);
  const manifest = JSON.stringify({ exports: { "./a": "./src/a.ts" } });
  assert.equal(orphans({ [a]: "", "packages/core/package.json": manifest }).length, 0);
});

test("no source is longer than one noun needs", () => {
  assert.deepEqual(findOversized(tree), []);
  assert.equal(findOversized(treeOf({ "a.ts": "x\n".repeat(501) })).length, 1);
  assert.equal(findOversized(treeOf({ "a.ts": "x\n".repeat(500) })).length, 0);
});

test("no source has a name that fits everything", () => {
  assert.deepEqual(findEmptyNames(tree), []);
  for (const path of ["a/utils.ts", "a/helpers/b.ts", "a/test-helper.ts", "common.ts", "job-manager.ts"])
    assert.equal(findEmptyNames(treeOf({ [path]: "" })).length, 1, path);
  assert.equal(findEmptyNames(treeOf({ "a/commons-deed.ts": "" })).length, 0);
});

test("nothing tells a tool to look away", () => {
  assert.deepEqual(findSilencers(tree), []);
  assert.equal(findSilencers(treeOf({ "a.ts": `// ${"biome"}-ignore lint: because` })).length, 1);
  assert.equal(findSilencers(treeOf({ "a.ts": `// @${"ts"}-ignore` })).length, 1);
});

test("what a package imports, its package.json declares", () => {
  assert.deepEqual(findUndeclared(tree), []);
  const undeclared = (text: string, dependencies: Record<string, string>) =>
    findUndeclared(
      treeOf({
        "packages/hub/src/a.ts": text,
        "packages/hub/package.json": JSON.stringify({ dependencies }),
      }),
    ).length;
  assert.equal(undeclared('import pg from "pg";', {}), 1);
  assert.equal(undeclared('import { a } from "@lockstep/core/x";', {}), 1);
  assert.equal(undeclared('import pg from "pg";\nimport "node:fs";\nimport "./b.ts";', { pg: "1" }), 0);
  assert.equal(undeclared('import { a } from "@scope/name/deep";', { "@scope/name": "1" }), 0);
});

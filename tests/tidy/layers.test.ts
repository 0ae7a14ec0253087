import assert from "node:assert/strict";
import test from "node:test";
import { findImports } from "./imports.ts";
import { findLayerBreaks, findSchemaImports } from "./layers.ts";
import { checkout, treeOf } from "./tree.ts";

test("every import of the project follows the table of layers", () => {
  assert.deepEqual(findLayerBreaks(checkout()), []);
});

test("an import against the direction is found, however it is written", () => {
  const from = "packages/core/src/x.ts";
  const breaks = (text: string) => findLayerBreaks(treeOf({ [from]: text })).length;
  assert.equal(breaks('import { a } from "@lockstep/hub";'), 1);
  assert.equal(breaks('import type { A } from "@lockstep/hub/wire";'), 1);
  assert.equal(breaks('import {\n  a,\n  type B,\n} from "@lockstep/platform";'), 1);
  assert.equal(breaks('export * from "@lockstep/store";'), 1);
  assert.equal(breaks('import "@lockstep/store";'), 1);
  assert.equal(breaks('const a = await import("@lockstep/store");'), 1);
  assert.equal(breaks('import { a } from "../../hub/src/a.ts";'), 1);
  assert.equal(breaks('import { a } from "@lockstep/core";'), 1);
  assert.equal(breaks('import { a } from "./a.ts";\n// import { b } from "@lockstep/hub";'), 0);
});

test("a package that is not in the table is found", () => {
  assert.equal(findLayerBreaks(treeOf({ "packages/other/src/index.ts": "" })).length, 1);
});

test("a command may load what it starts, later and nowhere else", () => {
  const breaks = (path: string, text: string) => findLayerBreaks(treeOf({ [path]: text })).length;
  const later = 'await import("@lockstep/hub");';
  assert.equal(breaks("packages/cli/src/commands/hub.ts", later), 0);
  assert.equal(breaks("packages/cli/src/program.ts", later), 1);
  assert.equal(breaks("packages/cli/src/commands/hub.ts", 'import { a } from "@lockstep/hub";'), 1);
  assert.equal(breaks("packages/cli/src/commands/hub.ts", 'await import("@lockstep/store");'), 1);
  assert.equal(breaks("packages/cli/src/program.ts", 'import type { A } from "@lockstep/updater";'), 0);
  assert.equal(breaks("packages/client/src/a.ts", 'import type { A } from "@lockstep/updater";'), 1);
});

test("only tests import the testing package", () => {
  const breaks = (path: string) =>
    findLayerBreaks(treeOf({ [path]: 'import { SimDisk } from "@lockstep/testing";' })).length;
  assert.equal(breaks("packages/updater/src/a.test.ts"), 0);
  assert.equal(breaks("packages/updater/src/a.ts"), 1);
});

test("an import inside a text or a comment is none", () => {
  assert.deepEqual(findImports("const a = `\n// import`;\n/* import 'x' */"), []);
  assert.deepEqual(findImports('const url = "https://a//b"; import("x")'), [
    { specifier: "x", how: "dynamic" },
  ]);
});

test("programs that start often do not load the schemas", () => {
  assert.deepEqual(findSchemaImports(checkout()), []);
  const imports = (path: string, text: string) => findSchemaImports(treeOf({ [path]: text })).length;
  assert.equal(imports("packages/updater/src/a.ts", 'import { ERRORS } from "@lockstep/protocol";'), 1);
  assert.equal(imports("packages/updater/src/a.ts", 'import { ERRORS } from "@lockstep/protocol/wire";'), 0);
  assert.equal(imports("packages/cli/src/a.ts", 'import type { Setup } from "@lockstep/protocol";'), 0);
  assert.equal(imports("packages/hub/src/a.ts", 'import { ERRORS } from "@lockstep/protocol";'), 0);
});

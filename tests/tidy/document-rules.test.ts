import assert from "node:assert/strict";
import test from "node:test";
import { ERRORS } from "@lockstep/protocol";
import {
  compareErrorCodes,
  findDeadLinks,
  findLockFaults,
  findRegistryHosts,
  findTitleFaults,
  findUnlisted,
} from "./document-rules.ts";
import { checkout, treeOf } from "./tree.ts";

const tree = checkout();

test("every document has one title", () => {
  assert.deepEqual(findTitleFaults(tree), []);
  assert.equal(findTitleFaults(treeOf({ "a.md": "text" })).length, 1);
  assert.equal(findTitleFaults(treeOf({ "a.md": "# A\n\n# B\n" })).length, 1);
  assert.equal(findTitleFaults(treeOf({ "a.md": "# A\n\n```sh\n# a comment\n```\n" })).length, 0);
});

test("every link between documents leads somewhere", () => {
  assert.deepEqual(findDeadLinks(tree), []);
  const dead = (text: string) => findDeadLinks(treeOf({ "docs/a.md": text, "docs/sub/b.md": "" })).length;
  assert.equal(dead("[b](sub/b.md#part) [folder](sub/) [up](../docs/a.md) [web](https://a/b) [here](#x)"), 0);
  assert.equal(dead("[b](b.md)"), 1);
  assert.equal(dead('<img src="missing.svg">'), 1);
});

test("the index of the documents leads to each of them", () => {
  assert.deepEqual(findUnlisted(tree), []);
  const unlisted = (index: string) =>
    findUnlisted(treeOf({ "docs/README.md": index, "docs/operating/a.md": "# A" })).length;
  assert.equal(unlisted("# D\n[a](operating/a.md)"), 0);
  assert.equal(unlisted("# D\n"), 1);
});

test("every error code has its section, and every section its code", () => {
  const codes = Object.keys(ERRORS);
  assert.deepEqual(compareErrorCodes(codes, tree.read("docs/reference/errors.md")), {
    undocumented: [],
    unknown: [],
  });
  const text = "A sentence that is long enough to be of some help to its reader.";
  assert.deepEqual(
    compareErrorCodes(["A_B", "C_D", "E_F"], `# T\n\n## A_B\n${text}\n\n## C_D\n\n## X_Y\n${text}\n`),
    {
      undocumented: ["C_D", "E_F"],
      unknown: ["X_Y"],
    },
  );
});

test("no file names the host of a package registry", () => {
  assert.deepEqual(findRegistryHosts(tree), []);
  const host = ["registry", "example", "org"].join(".");
  assert.deepEqual(findRegistryHosts(treeOf({ a: `x\nhttps://${host}/y` })), [
    "a:2: names the host of a package registry",
  ]);
});

test("the lock file works on every machine: no addresses, no platform left out", () => {
  assert.deepEqual(findLockFaults(JSON.parse(tree.read("package-lock.json"))), []);
  const integrity = "sha512-x";
  assert.equal(
    findLockFaults({ packages: { "node_modules/a": { integrity, resolved: "https://a" } } }).length,
    1,
  );
  assert.equal(findLockFaults({ packages: { "node_modules/a": {} } }).length, 1);
  assert.equal(findLockFaults({ packages: { "": { optionalDependencies: { b: "1" } } } }).length, 1);
  assert.equal(
    findLockFaults({ packages: { "node_modules/c": { link: true, resolved: "packages/c" } } }).length,
    0,
  );
});

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { singleTopFolder, suspectBase } from "./base-directory.ts";

const product = ["bin/server", "bin/tool", "lib/a.so", "lib/b.so", "README", "web/index.html"];

test("a directory above the right one is recognised, with the folder that was meant", () => {
  const loaded = product.map((path) => `release-7/out/${path}`);
  assert.deepEqual(suspectBase(loaded, product), { kind: "too-high", folder: "release-7/out", files: 6 });
});

test("a directory inside the right one is recognised", () => {
  const loaded = ["a.so", "b.so"];
  assert.deepEqual(suspectBase(loaded, product), { kind: "too-deep", folder: "lib", files: 2 });
});

test("new files and an ordinary new version raise no suspicion", () => {
  assert.equal(suspectBase(["bin/new", "doc/README", "doc/guide"], product), null);
  assert.equal(suspectBase(["fresh/README", "fresh/one", "fresh/two", "fresh/three"], product), null);
  assert.equal(suspectBase(product, []), null);
  assert.equal(suspectBase([], product), null);
});

test("any product moved as a whole below a new folder is recognised", () => {
  const name = fc.stringMatching(/^[a-z]{1,6}$/);
  const paths = fc.uniqueArray(
    fc.array(name, { minLength: 1, maxLength: 4 }).map((parts) => parts.join("/")),
    { minLength: 1, maxLength: 20 },
  );
  fc.assert(
    fc.property(paths, name, (known, folder) => {
      const moved = known.map((path) => `${folder}-x/${path}`);
      assert.equal(suspectBase(moved, known)?.kind, "too-high");
    }),
  );
});

test("a single folder at the top is told, several are not", () => {
  assert.equal(singleTopFolder(["a/x", "a/y/z"]), "a");
  assert.equal(singleTopFolder(["a/x", "b"]), null);
  assert.equal(singleTopFolder(["a/x", "ab/x"]), null);
  assert.equal(singleTopFolder([]), null);
});

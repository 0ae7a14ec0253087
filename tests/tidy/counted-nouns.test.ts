import assert from "node:assert/strict";
import test from "node:test";
import { checkout, isTest, type Tree, treeOf } from "./tree.ts";

/** Messages for people count one thing as one: `counted(n, "file")` does it, and `${n} files` says "1 files" some night. */
const NOUNS =
  "files|contents|templates|orders|nodes|steps|records|lines|rows|processes|plug-ins|minutes|revisions|installations|times|keys|faults";
const COUNT = new RegExp(`\\$\\{([^{}]+)\\} (?:${NOUNS})\\b`, "g");
/** A limit that is never one, and a choice that was made on the same line. */
const FIXED = /^[A-Z][A-Za-z]*_[A-Z_.a-z]+$|Max$|\?\? "no"$/;
const CHOSEN = /=== 1|> 1|> SHOWN_MAX/;

function findFaults(tree: Tree): string[] {
  return tree.paths
    .filter((path) => /^packages\/(?!testing\/)[^/]+\/src\/.*\.ts$/.test(path) && !isTest(path))
    .flatMap((path) =>
      tree
        .read(path)
        .split("\n")
        .flatMap((line, index) =>
          [...line.matchAll(COUNT)]
            .filter(([, expression = ""]) => !FIXED.test(expression) && !CHOSEN.test(line))
            .map(([text]) => `${path}:${index + 1} ${text}`),
        ),
    );
}

test("a message counts one thing as one", () => {
  assert.deepEqual(findFaults(checkout()), []);
});

test("and it is seen where one does not", () => {
  const tree = treeOf({
    "packages/hub/src/a.ts": "const a = `${held.length} files are in use`;\n",
    "packages/hub/src/b.ts": 'const b = `more than ${FILES_MAX} files, ${counted(n, "file")}`;\n',
    "packages/hub/src/a.test.ts": "const a = `${held.length} files are in use`;\n",
  });
  assert.deepEqual(findFaults(tree), ["packages/hub/src/a.ts:1 ${held.length} files"]);
});

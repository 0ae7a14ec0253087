import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { compileGlob, GLOB_LENGTH_MAX, type Glob, isGlobFault } from "./glob.ts";

function glob(pattern: string): Glob {
  const compiled = compileGlob(pattern);
  if (isGlobFault(compiled)) throw new Error(`${pattern}: ${compiled.problem}`);
  return compiled;
}

const CASES: [pattern: string, matching: string[], others: string[]][] = [
  ["*", ["a", ".env", "a b.txt", "😀"], ["a/b"]],
  ["**", ["a", "a/b", ".git/config"], []],
  ["bin/*", ["bin/a", "bin/.a"], ["bin/a/b", "bin", "xbin/a"]],
  ["bin/**", ["bin/a", "bin/a/b"], ["bin", "binx/a"]],
  ["bin/", ["bin/a", "bin/a/b"], ["bin", "binx/a"]],
  ["**/*.js", ["a.js", "x/a.js", "x/y/a.js", ".js"], ["a.ts", "a.js/b"]],
  ["a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb", "ax/b", "a/b/c"]],
  ["a/**/**/b", ["a/b", "a/x/b"], ["a/xb"]],
  ["x**z", ["xz", "x/y/z", "xyz"], ["xy", "yz"]],
  ["?.txt", ["a.txt", "ä.txt", "😀.txt"], ["ab.txt", "/.txt", ".txt"]],
  ["{a,b/c}/*", ["a/x", "b/c/x"], ["b/x", "a/x/y"]],
  ["{**/x,y}.md", ["x.md", "p/q/x.md", "y.md"], ["p/y.md"]],
  ["a{,.min}.js", ["a.js", "a.min.js"], ["a..js"]],
  ["{a{1,2},b}", ["a1", "a2", "b"], ["a", "a12"]],
  ["[a-cx]", ["a", "b", "x"], ["d", "-"]],
  ["[!a-c]", ["d", "]"], ["a", "/"]],
  ["[]-]", ["]", "-"], ["[", "a"]],
  ["app/\\[\\[...slug\\]\\]/*", ["app/[[...slug]]/page.js"], ["app/s]/page.js"]],
  ["a[/]b", [], ["a/b"]],
  ["e\u0301*", ["été"], ["e"]],
  ["A", ["A"], ["a"]],
];

test("each wildcard matches what it says and nothing else", () => {
  for (const [pattern, matching, others] of CASES) {
    const compiled = glob(pattern);
    for (const name of matching) assert.equal(compiled.matches(name), true, `${pattern} on ${name}`);
    for (const name of others) assert.equal(compiled.matches(name), false, `${pattern} on ${name}`);
  }
});

test("a pattern without wildcards says which path it means", () => {
  assert.equal(glob("app/\\[\\[id\\]\\]/e\u0301").literal, "app/[[id]]/é");
  for (const pattern of ["a*", "a/", "a?", "[a]", "{a}"]) assert.equal(glob(pattern).literal, null, pattern);
});

test("what is no pattern is refused with a reason", () => {
  const bad = [
    "",
    "/a",
    "a[b",
    "a{b,c",
    "{".repeat(40),
    "bin\\file",
    "a\\",
    "[z-a]",
    "x".repeat(GLOB_LENGTH_MAX + 1),
  ];
  for (const pattern of bad) {
    const compiled = compileGlob(pattern);
    assert.ok(isGlobFault(compiled) && compiled.problem !== "", pattern);
  }
});

/** Counts character tests instead of time: a backtracking matcher would need 2^30 of them here. */
test("patterns made to backtrack are read once", () => {
  const stars = glob(`${"*a".repeat(200)}b`);
  assert.equal(stars.matches("a".repeat(1000)), false);
  const folders = glob(`${"**/".repeat(60)}x`);
  assert.equal(folders.matches(`${"a/".repeat(500)}y`), false);
  const braces = glob("{a,aa}".repeat(40));
  assert.equal(braces.matches("a".repeat(81)), false);
  assert.equal(braces.matches("a".repeat(60)), true);
});

const alphabet = fc.constantFrom("a", "b", "/", ".");
const simple = fc
  .array(fc.constantFrom("a", "b", ".", "/", "*", "?", "[ab]", "[!a]", "{a,b}"), {
    minLength: 1,
    maxLength: 8,
  })
  .map((parts) => parts.join("").replaceAll(/\*+/g, "*").replaceAll(/\/+/g, "/").replace(/^\//, ""))
  .filter((pattern) => pattern !== "" && !pattern.endsWith("/"));

/** A backtracking matcher of one line per rule. */
function naive(pattern: string, name: string): boolean {
  if (pattern === "") return name === "";
  const head = pattern[0] ?? "";
  const rest = pattern.slice(1);
  if (head === "*")
    return naive(rest, name) || (name !== "" && name[0] !== "/" && naive(pattern, name.slice(1)));
  if (name === "") return false;
  if (head === "?") return name[0] !== "/" && naive(rest, name.slice(1));
  if (pattern.startsWith("[ab]")) return /^[ab]/.test(name) && naive(pattern.slice(4), name.slice(1));
  if (pattern.startsWith("[!a]")) return /^[^a/]/.test(name) && naive(pattern.slice(4), name.slice(1));
  if (pattern.startsWith("{a,b}")) return /^[ab]/.test(name) && naive(pattern.slice(5), name.slice(1));
  return name[0] === head && naive(rest, name.slice(1));
}

test("matching agrees with a naive matcher", () => {
  fc.assert(
    fc.property(simple, fc.array(alphabet, { maxLength: 8 }), (pattern, characters) => {
      const name = characters.join("");
      assert.equal(glob(pattern).matches(name), naive(pattern, name));
    }),
    { numRuns: 5000 },
  );
});

test("without braces and double stars, it agrees with Node's own matcher on names without a leading dot", () => {
  const names = fc.array(fc.constantFrom("a", "b", "ab", "a.b"), { minLength: 1, maxLength: 4 });
  const patterns = fc.array(fc.constantFrom("a", "b", "?", "*", "a*", "*b", "[ab]", "**"), {
    minLength: 1,
    maxLength: 4,
  });
  fc.assert(
    fc.property(patterns, names, (parts, folders) => {
      const pattern = parts.join("/");
      const name = folders.join("/");
      // A trailing `/**` means "everything below" here and also the folder itself there.
      fc.pre(parts.at(-1) !== "**" || parts.length === 1);
      assert.equal(
        glob(pattern).matches(name),
        path.posix.matchesGlob(name, pattern),
        `${pattern} on ${name}`,
      );
    }),
    { numRuns: 2000 },
  );
});

test("any text compiles or is refused, and matching never throws", () => {
  fc.assert(
    fc.property(
      fc.string({ unit: "binary", maxLength: 30 }),
      fc.string({ unit: "binary" }),
      (pattern, name) => {
        const compiled = compileGlob(pattern);
        if (!isGlobFault(compiled)) compiled.matches(name);
      },
    ),
  );
});

import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { checkPath, findTwins, foldPath } from "@lockstep/core";
import fc from "fast-check";
import { HOSTILE_NAMES, KNOWN_NAMES, TWINS } from "./known-names.ts";

test("there are at least 500 known hostile names, and each is refused", () => {
  assert.ok(HOSTILE_NAMES.length >= 500, `${HOSTILE_NAMES.length} names`);
  for (const [group, names] of Object.entries(KNOWN_NAMES))
    for (const name of names)
      assert.notEqual(checkPath(name), null, `${group}: ${JSON.stringify(name).slice(0, 100)}`);
});

test("each pair of twins is found, in either order", () => {
  for (const [a, b] of TWINS) {
    assert.equal(findTwins([a, b]).length, 1, `${a} and ${b}`);
    assert.equal(findTwins([b, a]).length, 1, `${b} and ${a}`);
  }
});

/** Everything that a name could do when it is joined to a directory, on either kind of system. */
function escapes(name: string): string | null {
  const posix = path.posix.resolve("/base/dir", name);
  if (posix !== `/base/dir/${name}`) return `POSIX: ${posix}`;
  const joined = path.posix.join("/base/dir", name);
  if (joined !== `/base/dir/${name}`) return `POSIX join: ${joined}`;
  const backslashed = name.replaceAll("/", "\\");
  for (const base of ["Q:\\base\\dir", "\\\\server\\share\\dir", "\\\\?\\Q:\\base\\dir"]) {
    const win32 = path.win32.resolve(base, name);
    if (win32 !== `${base}\\${backslashed}`) return `Windows: ${win32}`;
  }
  // What Windows' narrow interfaces and careless normalisation make of it.
  const plain = name.normalize("NFKC");
  if (path.win32.resolve("Q:\\base\\dir", plain) !== `Q:\\base\\dir\\${plain.replaceAll("/", "\\")}`)
    return "NFKC";
  if (plain.split("/").length !== name.split("/").length) return "NFKC makes a separator";
  const top = foldPath(name.split("/")[0] ?? "");
  if ([".lockstep", "installstate.config", "update.lock", "update.log"].includes(top)) return "our own file";
  return null;
}

const parts = fc.constantFrom(
  ...[
    "..",
    ".",
    "/",
    "\\",
    "//",
    ":",
    "C:",
    "c:",
    "\\\\",
    "\\\\?\\",
    "~",
    "~1",
    "con",
    "NUL",
    "com1",
    "lpt¹",
    "$",
    " ",
  ],
  ...[
    "\0",
    "\n",
    "\u001b",
    "\u202e",
    "\u200b",
    "\ufeff",
    "‥",
    "．",
    "／",
    "＼",
    "：",
    "ｃｏｎ",
    "%2e%2e",
    "%5c",
    "%00",
  ],
  ...[
    "a",
    "b",
    "ß",
    "é",
    "e\u0301",
    "ſ",
    "\u212a",
    "\ud800",
    "😀",
    "InstallState.config",
    ".lockstep",
    "update.log",
  ],
  ...["x".repeat(255), "y/".repeat(63), "?", "*", "<", "|", '"', ".txt"],
);
const assembled = fc.array(parts, { maxLength: 8 }).map((pieces) => pieces.join(""));
/** A known hostile name with something cut out, put in or exchanged. */
const mutated = fc
  .tuple(fc.constantFrom(...HOSTILE_NAMES.filter((name) => name.length < 300)), fc.nat(), fc.nat(3), parts)
  .map(([name, where, cut, piece]) => {
    const at = where % (name.length + 1);
    return name.slice(0, at) + piece + name.slice(at + cut);
  });

test("no accepted name escapes: assembled, mutated and random names", () => {
  let accepted = 0;
  fc.assert(
    fc.property(fc.oneof(assembled, mutated, fc.string({ unit: "binary", maxLength: 40 })), (name) => {
      if (checkPath(name) !== null) return;
      accepted++;
      assert.equal(escapes(name), null, JSON.stringify(name));
    }),
    { numRuns: 60_000 },
  );
  // The control: a grammar that refused everything would pass the property as well.
  assert.ok(accepted > 1000, `${accepted} accepted`);
});

test("the checker of escapes itself sees escapes", () => {
  for (const name of ["../x", "/x", "C:x", "a\\..\\..\\x", "\\\\server\\x", "‥/../x", ".lockstep/x", "a／b"])
    assert.notEqual(escapes(name), null, name);
});

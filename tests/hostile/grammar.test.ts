import "../support/property-seed.ts";
import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { checkPath, findTwins, foldPath } from "@lockstep/core";
import fc from "fast-check";
import { HOSTILE_NAMES, KNOWN_NAMES, TWINS } from "./known-names.ts";

test("B1: there are at least 500 known hostile names, and each is refused", () => {
  assert.ok(HOSTILE_NAMES.length >= 500, `${HOSTILE_NAMES.length} names`);
  for (const [group, names] of Object.entries(KNOWN_NAMES))
    for (const name of names)
      assert.notEqual(checkPath(name), null, `${group}: ${JSON.stringify(name).slice(0, 100)}`);
});

test("B4: each pair of twins is found, in either order", () => {
  for (const [a, b] of TWINS) {
    assert.equal(findTwins([a, b]).length, 1, `${a} and ${b}`);
    assert.equal(findTwins([b, a]).length, 1, `${b} and ${a}`);
  }
  // The control: names that are compared as they are written are two of nearly all of them.
  const missed = TWINS.filter(([a, b]) => new Set([a, b]).size === 2 && !b.startsWith(`${a}/`));
  assert.ok(missed.length > TWINS.length / 2, `${missed.length} of ${TWINS.length}`);
});

test("B5: what Windows takes for a device, a stream or another name is refused on every system", () => {
  const names = [...DEVICES, "x.", "x ", "a/x.", "x:stream", "x::$DATA", "a\u0001b", "a\nb", "a?b", "a|b"];
  for (const name of names) assert.notEqual(checkPath(name), null, JSON.stringify(name));
  // The controls: a look at whether it stays in its directory finds nothing wrong with these, and neighbours are names.
  for (const name of DEVICES) assert.equal(path.posix.resolve("/base", name), `/base/${name}`, name);
  for (const name of ["CONSOLE", "nulled.txt", "COM", "COM10", "LPTX", "a.con", "AUX1"])
    assert.equal(checkPath(name), null, name);
});

test("B7: names that are too long are refused, and the longest are taken", () => {
  const deep = (names: number) => Array.from({ length: names }, () => "d").join("/");
  const long = (bytes: number) => `${"f".repeat(200)}/`.repeat(5).slice(0, 1000) + "x".repeat(bytes - 1000);
  for (const [name, over] of [
    ["x".repeat(255), "x".repeat(256)],
    ["ß".repeat(127), "ß".repeat(128)],
    [long(1024), long(1025)],
    [deep(64), deep(65)],
  ] as const) {
    assert.equal(checkPath(name), null, `${name.length}`);
    assert.notEqual(checkPath(over), null, `${over.length}`);
  }
  for (const length of [260, 4096, 32_768, 1_000_000]) assert.notEqual(checkPath("x".repeat(length)), null);
});

const DEVICES = [
  ...["CON", "con", "PRN", "AUX", "NUL", "nul.txt", "a/NUL", "NUL .txt", "CONIN$", "CONOUT$", "CLOCK$"],
  ...["COM1", "com9.log", "LPT1", "lpt9", "COM¹", "COM²", "LPT³.txt"],
];

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

test("B1: no accepted name escapes: assembled, mutated and random names", () => {
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

test("B1: the control: the checker of escapes itself sees escapes", () => {
  for (const name of ["../x", "/x", "C:x", "a\\..\\..\\x", "\\\\server\\x", "‥/../x", ".lockstep/x", "a／b"])
    assert.notEqual(escapes(name), null, name);
});

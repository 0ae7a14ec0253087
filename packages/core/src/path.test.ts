import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { checkPath, findTwins, foldPath, PATH_BYTES_MAX, PATH_DEPTH_MAX, SEGMENT_BYTES_MAX } from "./path.ts";

const GOOD = [
  "a",
  "bin/job-service",
  "dist/compiled/@babel/core/index.js",
  "app/[[...slug]]/page.js",
  "..a/..b",
  ".hidden/.env",
  "a b/c d.txt",
  "Größe/Straße.txt",
  "日本語/ファイル.txt",
  "name with 'quotes' & $dollars%20",
  "-rf",
  "~root/~",
  "console/nulls/auxiliary.txt",
  "com10",
  "sub/InstallState.config",
  "update.logger.js",
  "Update.zip",
  "plug.update.mjs",
  "a~1b",
  "emoji/😀.png",
];
const BAD: [string, string][] = [
  ["", "empty"],
  ["/etc/passwd", "absolute"],
  ["//server/share", "absolute"],
  ["C:x", "drive"],
  ["c:/x", "drive"],
  ["..\\x", "backslash"],
  ["\\\\server\\share\\x", "backslash"],
  ["\\\\?\\C:\\x", "backslash"],
  ["..", "dot-segment"],
  ["a/../../x", "dot-segment"],
  ["./a", "dot-segment"],
  ["a//b", "empty-segment"],
  ["a/", "empty-segment"],
  ["a\0b", "control"],
  ["a\nb", "control"],
  ["a\u0085b", "control"],
  ["a\u2028b", "control"],
  ["file:stream", "character"],
  ["a?b", "character"],
  ["a/b*", "character"],
  ["a.", "trailing"],
  ["a /b", "trailing"],
  ["...", "trailing"],
  ["con", "device"],
  ["x/NUL.txt", "device"],
  ["Aux .c", "device"],
  ["COM¹", "device"],
  ["lpt9.tar.gz", "device"],
  ["CONIN$", "device"],
  ["ＣＯＮ.txt", "device"],
  ["PROGRA~1", "short-name"],
  ["x/softwa~1.viv", "short-name"],
  ["a\u0301", "not-composed"],
  ["\ud800", "malformed"],
  ["cod\u202Eexe", "direction"],
  ["‥/x", "look-alike"],
  ["a／b", "look-alike"],
  ["℀", "look-alike"],
  ["InstallState.config", "own-name"],
  ["INSTALLSTATE.CONFIG", "own-name"],
  [".lockstep/commit.json", "own-name"],
  [".Lockſtep/x", "own-name"],
  [".lock\u00adstep/x", "own-name"],
  ["update.log", "own-name"],
  ["update.log.1", "own-name"],
  ["Update.Lock", "own-name"],
  [".softwarerevision.viv", "own-name"],
  ["SoftwareRevision.viv", "own-name"],
];

test("ordinary names are accepted", () => {
  for (const name of GOOD) assert.equal(checkPath(name), null, name);
});

test("each hostile name is refused for its own reason", () => {
  for (const [name, kind] of BAD) assert.equal(checkPath(name)?.kind, kind, JSON.stringify(name));
});

test("the limits hold at -1, 0 and +1", () => {
  const around = (max: number, make: (length: number) => string, kind: string) => {
    assert.equal(checkPath(make(max - 1)), null);
    assert.equal(checkPath(make(max)), null);
    assert.equal(checkPath(make(max + 1))?.kind, kind);
  };
  around(SEGMENT_BYTES_MAX, (length) => "x".repeat(length), "segment-too-long");
  around(
    SEGMENT_BYTES_MAX,
    (length) => "ä".repeat(Math.floor(length / 2)) + "x".repeat(length % 2),
    "segment-too-long",
  );
  around(
    SEGMENT_BYTES_MAX,
    (length) => "😀".repeat(Math.floor(length / 4)) + "x".repeat(length % 4),
    "segment-too-long",
  );
  around(
    PATH_BYTES_MAX,
    (length) => `${"y".repeat(200)}/`.repeat(5).slice(0, 1000) + "x".repeat(length - 1000),
    "path-too-long",
  );
  around(PATH_DEPTH_MAX, (depth) => Array.from({ length: depth }, () => "d").join("/"), "too-deep");
  assert.equal(checkPath("a/".repeat(2048))?.kind, "path-too-long");
});

/** Texts out of the pieces that make names dangerous, and of anything else. */
const nasty = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        "..",
        ".",
        "/",
        "\\",
        ":",
        "C:",
        "con",
        "NUL",
        " ",
        "a",
        "~1",
        "\0",
        "\u202e",
        "‥",
        "／",
        "ß",
        "%2e",
      ),
      fc.string({ unit: "binary", maxLength: 6 }),
    ),
    { maxLength: 12 },
  )
  .map((pieces) => pieces.join(""));

test("no accepted path leaves the directory or changes its meaning, on POSIX or Windows", () => {
  fc.assert(
    fc.property(nasty, (name) => {
      if (checkPath(name) !== null) return;
      assert.equal(path.posix.resolve("/base/dir", name), `/base/dir/${name}`);
      assert.equal(path.win32.resolve("Q:\\base\\dir", name), `Q:\\base\\dir\\${name.replaceAll("/", "\\")}`);
      assert.equal(name.normalize("NFC"), name);
    }),
    { numRuns: 20_000 },
  );
});

test("the twin key unifies case and normal forms of every single character, and is idempotent", () => {
  for (let point = 0x20; point <= 0x10ffff; point++) {
    if (point >= 0xd800 && point <= 0xdfff) continue;
    const character = String.fromCodePoint(point);
    const key = foldPath(character);
    const upper = character.toUpperCase();
    const lower = character.toLowerCase();
    if (key === character && upper === character && lower === character) continue;
    const name = `U+${point.toString(16)}`;
    assert.equal(foldPath(key), key, `${name} idempotent`);
    assert.equal(foldPath(upper), key, `${name} upper`);
    assert.equal(foldPath(lower), key, `${name} lower`);
    assert.equal(foldPath(character.normalize("NFD")), key, `${name} NFD`);
    assert.equal(foldPath(character.normalize("NFKD")), key, `${name} NFKD`);
  }
});

test("twins of case, composition, ß and compatibility forms have one key; different names have two", () => {
  const same = [
    ["README", "readme"],
    ["Straße", "STRASSE", "strasse"],
    ["STRAẞE", "straße"],
    ["é", "e\u0301"],
    ["ﬁle", "file"],
    ["ΣΑΣ", "σας", "σασ"],
    ["K", "\u212a", "k"],
    ["ｆｕｌｌ", "full"],
    ["a\u200bb", "ab"],
  ];
  for (const [first = "", ...others] of same)
    for (const other of others) assert.equal(foldPath(other), foldPath(first), `${first} ${other}`);
  assert.notEqual(foldPath("a"), foldPath("b"));
  assert.notEqual(foldPath("é"), foldPath("e"));
});

test("twins and files in the place of folders are all found", () => {
  assert.deepEqual(findTwins(["a/b", "a/c", "b"]), []);
  assert.deepEqual(findTwins(["A/b", "a/B"]), [{ kind: "same", path: "a/B", other: "A/b" }]);
  assert.deepEqual(findTwins(["x", "x"]), [{ kind: "same", path: "x", other: "x" }]);
  assert.deepEqual(findTwins(["a/b/c", "a/b/d", "A", "e"]), [
    { kind: "below", path: "a/b/c", other: "A" },
    { kind: "below", path: "a/b/d", other: "A" },
  ]);
});

test("finding twins agrees with comparing each pair", () => {
  const names = fc.array(fc.constantFrom("a", "A", "b", "ß", "ss", "SS"), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(
      fc.array(
        names.map((parts) => parts.join("/")),
        { maxLength: 12 },
      ),
      (paths) => {
        const found = new Set(findTwins(paths).map((twin) => twin.path));
        const keys = paths.map(foldPath);
        const expected = new Set<string>();
        paths.forEach((name, i) => {
          if (keys.slice(0, i).includes(keys[i] ?? "")) expected.add(name);
          else if (keys.some((key) => (keys[i] ?? "").startsWith(`${key}/`))) expected.add(name);
        });
        assert.deepEqual([...found].sort(), [...expected].sort());
      },
    ),
  );
});

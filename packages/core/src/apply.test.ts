import assert from "node:assert/strict";
import test from "node:test";
import {
  type ApplyOperation,
  type CommitChange,
  type PlannedEntry,
  planChange,
  type Standing,
  type Survey,
} from "./apply.ts";

/** A survey of paths: `dir/`, `file`, `link@` or `device!`. Identities follow the folded name where case is ignored. */
function surveyOf(paths: readonly string[], ignoresCase = false): Survey {
  const at = new Map<string, Standing>();
  const inside = new Map<string, string[]>();
  const kinds = { "/": "directory", "@": "link", "!": "other" } as const;
  for (const spelled of paths) {
    const mark = spelled.at(-1);
    const kind = mark === "/" || mark === "@" || mark === "!" ? kinds[mark] : "file";
    const path = kind === "file" ? spelled : spelled.slice(0, -1);
    at.set(path, { kind, mode: 0o750, identity: ignoresCase ? path.toLowerCase() : path });
  }
  for (const [path, { kind }] of at)
    if (kind === "directory")
      inside.set(
        path,
        [...at.keys()].filter((other) => other.startsWith(`${path}/`)),
      );
  return { at, inside };
}

/** `+path` puts, `-path` removes. */
function operationsOf(texts: readonly string[]): ApplyOperation[] {
  return texts.map((text, n) => ({ n, kind: text.startsWith("+") ? "put" : "remove", path: text.slice(1) }));
}

function planned(
  operations: readonly string[],
  standing: readonly string[],
  ignoresCase = false,
): CommitChange<PlannedEntry> {
  const plan = planChange(operationsOf(operations), surveyOf(standing, ignoresCase));
  assert.equal(plan.kind, "change", JSON.stringify(plan));
  return plan.kind === "change" ? plan.change : assert.fail();
}

function conflictsOf(operations: readonly string[], standing: readonly string[]): string[] {
  const plan = planChange(operationsOf(operations), surveyOf(standing));
  return plan.kind === "conflict" ? plan.conflicts.map(({ path, problem }) => `${path}: ${problem}`) : [];
}

const pathsOf = (list: readonly { readonly path: string }[]) => list.map(({ path }) => path);

test("a new file needs its missing directories, outermost first", () => {
  const change = planned(["+a/b/c", "+a/d"], ["a/"]);
  assert.deepEqual(pathsOf(change.make), ["a/b"]);
  assert.deepEqual(planned(["+x/y/z"], []).make, [
    { path: "x", mode: 0o755 },
    { path: "x/y", mode: 0o755 },
  ]);
  assert.deepEqual(
    change.entries.map(({ former }) => former),
    ["none", "none"],
  );
});

test("what is replaced or removed is kept, also when it is a link by now", () => {
  const change = planned(["+a", "+b", "-c", "-d"], ["a", "b@", "c", "d@"]);
  assert.deepEqual(
    change.entries.map(({ kind, path, former }) => `${kind} ${path} ${former}`),
    ["put a linked", "put b linked", "remove c linked", "remove d linked"],
  );
});

test("the removal of what is gone, is a directory, or lies behind a link falls away", () => {
  assert.deepEqual(planned(["-gone", "-dir", "-link/file"], ["dir/", "link@", "link/file"]).entries, []);
});

test("a file that becomes a directory makes way, and the directory is made after it", () => {
  const change = planned(["+a/b/c", "-a"], ["a"]);
  assert.deepEqual(pathsOf(change.makeLate), ["a", "a/b"]);
  assert.deepEqual(change.make, []);
  assert.deepEqual(pathsOf(change.entries), ["a/b/c", "a"]);
});

test("a file makes way for a directory of another spelling where the disk takes the two for one", () => {
  const survey = surveyOf(["a"], true);
  const spelled = { ...survey, at: new Map([...survey.at, ...surveyOf(["A"], true).at]) };
  const plan = planChange(operationsOf(["+A/b", "-a"]), spelled);
  assert.deepEqual(plan.kind === "change" && pathsOf(plan.change.makeLate), ["A"]);
  assert.match(conflictsOf(["+A/b", "-a"], ["a", "A"]).join(), /A is a file that is not the product's/);
});

test("a directory that becomes a file is cleared from inside, when all in it is the product's or empty", () => {
  const change = planned(["+a", "-a/b/c"], ["a/", "a/b/", "a/b/c", "a/empty/"]);
  assert.deepEqual(pathsOf(change.clear), ["a/empty", "a/b", "a"]);
  assert.deepEqual(change.clear[0], { path: "a/empty", mode: 0o750 });
  assert.match(conflictsOf(["+a", "-a/b"], ["a/", "a/b", "a/mine"]).join(), /a: .*a\/mine/);
});

test("what is removed is known under the spelling that the disk lists", () => {
  const survey = surveyOf(["a/", "a/A/", "a/A/c"], true);
  const spelled = { ...survey, at: new Map([...survey.at, ...surveyOf(["a/a/", "a/a/c"], true).at]) };
  const plan = planChange(operationsOf(["+a", "-a/a/c"]), spelled);
  assert.deepEqual(plan.kind === "change" && pathsOf(plan.change.clear), ["a/A", "a"]);
  // Another name of the very file that goes is a stranger's all the same: a hard link.
  const one = surveyOf(["a/", "a/c", "a/mine"]);
  const removed = one.at.get("a/c") ?? assert.fail();
  const linked = planChange(operationsOf(["+a", "-a/c"]), {
    ...one,
    at: new Map(one.at).set("a/mine", removed),
  });
  assert.match(linked.kind === "conflict" ? (linked.conflicts[0]?.problem ?? "") : "", /a\/mine/);
  // Where the disk tells the two apart, the other one is a stranger's.
  assert.match(conflictsOf(["+a", "-a/a/c"], ["a/", "a/A/", "a/A/c", "a/a/", "a/a/c"]).join(), /a\/A\/c/);
});

test("strangers in the way are counted, not all named", () => {
  const strangers = Array.from({ length: 8 }, (_, at) => `a/${at}`);
  assert.match(conflictsOf(["+a"], ["a/", ...strangers]).join(), /a\/4 and 3 more/);
});

test("nothing is put through a link, into a foreign file or over a device", () => {
  assert.match(conflictsOf(["+lib/x"], ["lib@", "lib/x"]).join(), /lib is a symbolic link/);
  assert.match(conflictsOf(["+lib/x"], ["lib"]).join(), /lib is a file that is not the product's/);
  assert.match(conflictsOf(["+pipe"], ["pipe!"]).join(), /device/);
  assert.match(conflictsOf(["+pipe/x"], ["pipe!"]).join(), /pipe is a other|pipe is/);
});

test("a directory that was replaced by a link is no way in, but a file that was goes like the file", () => {
  assert.deepEqual(pathsOf(planned(["+a/b", "-a"], ["a@"]).makeLate), ["a"]);
});

test("wishes that exclude each other are refused whatever stands there", () => {
  assert.equal(conflictsOf(["+a", "+A"], []).length, 1);
  assert.equal(conflictsOf(["+a", "+a/b"], []).length, 1);
  assert.equal(conflictsOf(["+a", "-a"], ["a"]).length, 1);
});

test("what is restored stood side by side before, so twins are no conflict", () => {
  const plan = planChange(operationsOf(["+a", "+A"]), surveyOf([]), true);
  assert.equal(plan.kind, "change");
});

test("on a disk that ignores case, the removal of another spelling is part of the put", () => {
  const change = planned(["+README", "-Readme"], ["README", "Readme"], true);
  assert.deepEqual(change.entries, [
    { n: 0, kind: "put", path: "README", former: "linked", formerPath: "Readme" },
  ]);
  const apart = planned(["+README", "-Readme"], ["Readme"]);
  assert.deepEqual(
    apart.entries.map(({ kind, path, formerPath }) => `${kind} ${path} ${formerPath}`),
    ["put README null", "remove Readme null"],
  );
});

test("two hard links of one file are two files, not two spellings", () => {
  const survey = surveyOf(["one", "two"]);
  const shared: Survey = {
    ...survey,
    at: new Map([...survey.at].map(([path, each]) => [path, { ...each, identity: "1" }])),
  };
  const plan = planChange(operationsOf(["+one", "-two"]), shared);
  assert.equal(plan.kind === "change" && plan.change.entries.length, 2);
});

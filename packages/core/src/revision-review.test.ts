import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { byPath, type FileEntry } from "./file.ts";
import { reviewRevision, summarizeReview, type TargetEntries } from "./revision-review.ts";

function file(path: string, content: string, mode = 0o644): FileEntry {
  return { path, size: content.length, sha256: content.padEnd(64, "0"), mode, backup: false };
}

const server = (...entries: FileEntry[]): TargetEntries => ({ target: "role:Server", entries });
const client = (...entries: FileEntry[]): TargetEntries => ({ target: "role:Client", entries });

test("each file that differs is named once, with both sides and everybody that gets it", () => {
  const before = [server(file("a", "1"), file("gone", "1"), file("same", "1")), client(file("a", "1"))];
  const after = [server(file("a", "22"), file("new", "1"), file("same", "1")), client(file("a", "22"))];
  const found = reviewRevision(before, after);
  assert.deepEqual(
    found.map(({ path, kind, from, to }) => [path, kind, from?.size ?? null, to?.size ?? null, to?.targets]),
    [
      ["a", "changed", 1, 2, ["role:Server", "role:Client"]],
      ["gone", "removed", 1, null, undefined],
      ["new", "added", null, 1, ["role:Server"]],
    ],
  );
});

test("programs, other permissions and plug-ins stand out; a program that stays as it is does not", () => {
  const before = [
    server(file("run", "1", 0o755), file("turns", "1"), file("opens", "1", 0o600), file("text", "1")),
  ];
  const after = [
    server(
      file("new", "1", 0o755),
      file("opens", "1", 0o666),
      file("run", "2", 0o755),
      file("text", "2"),
      file("turns", "1", 0o755),
      file("x/probe.update.mjs", "1"),
    ),
  ];
  assert.deepEqual(
    Object.fromEntries(reviewRevision(before, after).map(({ path, marks }) => [path, marks])),
    {
      new: ["executable"],
      opens: ["mode"],
      run: ["executable"],
      text: [],
      turns: ["executable", "mode"],
      "x/probe.update.mjs": ["plug-in"],
    },
  );
  assert.deepEqual(reviewRevision(after, after), []);
});

test("a content that only one role gets under a path of another is not hidden behind it", () => {
  const before = [server(file("bin/run", "good")), client(file("bin/run", "good"))];
  const after = [server(file("bin/run", "good")), client(file("bin/run", "evil"))];
  const found = reviewRevision(before, after);
  assert.deepEqual(
    found.map(({ kind, from, to, marks }) => [kind, from?.sha256[0], to?.sha256[0], to?.targets, marks]),
    [
      ["changed", "g", "g", ["role:Server"], ["contradiction"]],
      ["added", undefined, "e", ["role:Client"], ["contradiction"]],
    ],
  );
});

test("a file that another role gets as well is a change, though its content is the same", () => {
  const found = reviewRevision(
    [server(file("a", "1")), client()],
    [server(file("a", "1")), client(file("a", "1"))],
  );
  assert.deepEqual(
    found.map(({ kind, from, to, marks }) => [kind, from?.targets, to?.targets, marks]),
    [["changed", ["role:Server"], ["role:Server", "role:Client"], []]],
  );
});

test("counts by module and kind add up to the files and to the bytes of what is there afterwards", () => {
  const found = reviewRevision(
    [server(file("a", "1"), file("b/old", "333"))],
    [server(file("a", "22"), file("b/new", "4444"), file("x", "1"))],
  );
  const counts = summarizeReview(found, ({ path }) =>
    path === "x" ? null : path.startsWith("b/") ? "B" : "A",
  );
  assert.deepEqual(counts, [
    { module: "A", kind: "changed", files: 1, bytes: 2 },
    { module: "B", kind: "added", files: 1, bytes: 4 },
    { module: "B", kind: "removed", files: 1, bytes: 3 },
    { module: null, kind: "added", files: 1, bytes: 1 },
  ]);
});

const entries = fc.uniqueArray(
  fc.record({
    path: fc.constantFrom("a", "b", "c/d"),
    content: fc.constantFrom("1", "22"),
    mode: fc.constantFrom(0o644, 0o755),
  }),
  { selector: ({ path }) => path },
);
const manifests = fc.tuple(entries, entries).map(([one, other]) =>
  [one, other].map((list, index) => ({
    target: index === 0 ? "role:Server" : "role:Client",
    entries: list.map(({ path, content, mode }) => file(path, content, mode)).sort(byPath),
  })),
);

test("what is not named is the same for everybody, and what is named leads from the one to the other", () => {
  fc.assert(
    fc.property(manifests, manifests, (before, after) => {
      const found = reviewRevision(before, after);
      // Everybody's files, by taking the former ones and doing what is said.
      const state = new Map<string, string>();
      const key = (target: string, path: string) => `${target} ${path}`;
      const text = ({ sha256, size, mode }: FileEntry) => `${sha256} ${size} ${mode}`;
      for (const { target, entries: list } of before)
        for (const entry of list) state.set(key(target, entry.path), text(entry));
      for (const { path, from } of found)
        for (const target of from?.targets ?? []) state.delete(key(target, path));
      for (const { path, to } of found)
        if (to !== null) for (const target of to.targets) state.set(key(target, path), text(to));
      const wanted = after.flatMap(({ target, entries: list }) =>
        list.map((entry) => [key(target, entry.path), text(entry)] as const),
      );
      assert.deepEqual(new Map([...state].sort()), new Map([...wanted].sort()));
    }),
  );
});

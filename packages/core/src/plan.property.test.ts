import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import {
  byPath,
  type EditsPolicy,
  type FileEntry,
  joinManifests,
  type LocalFile,
  type Manifest,
  makePlan,
  needsDigest,
  type Plan,
  planRows,
  roleWithParents,
} from "./index.ts";

/**
 * The plan against a deliberately naive oracle: it knows every content, compares everything with everything, and goes
 * through each path by itself. 1,000 random triples of old set, new set and machine roles, with local changes between.
 */
interface Content {
  readonly text: string;
  readonly mode: number;
}
type Tree = Map<string, Content>;

const digest = (text: string) => createHash("sha256").update(text).digest("hex");
const entryOf = (path: string, content: Content, backup: boolean): FileEntry => ({
  path,
  size: content.text.length,
  sha256: digest(content.text),
  mode: content.mode,
  backup,
});

// Few paths and few contents, so that everything collides; several contents of one length, so that size is not enough.
const paths = ["a.txt", "b.txt", "bin/run", "bin/tool", "lib/x/deep.js", "lib/y.js", "lib/z.js", "readme"];
const texts = ["", "1", "2", "aa", "bb", "cc", "dddd", "eeee", "longer than all others"];
const roles = ["Server", "Server/Job", "Server/Job/Mail", "Client", "Client/Admin"];

const content = fc.record({ text: fc.constantFrom(...texts), mode: fc.constantFrom(0o644, 0o755) });
const repositoryFile = fc.record({
  content,
  backup: fc.boolean(),
  roles: fc.uniqueArray(fc.constantFrom(...roles), { maxLength: 3 }),
});
const repository = fc.dictionary(fc.constantFrom(...paths), repositoryFile, { noNullPrototype: true });
type Repository = Record<string, { content: Content; backup: boolean; roles: string[] }>;

const localChange = fc.oneof(
  fc.record({ kind: fc.constant("delete" as const), path: fc.constantFrom(...paths) }),
  fc.record({ kind: fc.constant("write" as const), path: fc.constantFrom(...paths, "own/note"), content }),
);

const triple = fc.record({
  old: repository,
  next: repository,
  chosen: fc.uniqueArray(fc.constantFrom(...roles), { minLength: 1, maxLength: 3 }),
  changes: fc.array(localChange, { maxLength: 6 }),
  edits: fc.constantFrom<EditsPolicy>("replace", "keep", "keep-and-report"),
  /** Which of the untouched files the stat cache still knows. */
  remembered: fc.array(fc.boolean(), { minLength: 16, maxLength: 16 }),
});

function manifestsOf(repository: Repository, installed: readonly string[]): Manifest[] {
  return installed.map((role) => ({
    target: { kind: "role", name: role },
    entries: Object.entries(repository)
      .filter(([, file]) => file.roles.includes(role))
      .map(([path, file]) => entryOf(path, file.content, file.backup))
      .sort(byPath),
  }));
}

/** What the manifests of the roles amount to, by asking each file. */
function wantedBy(repository: Repository, chosen: readonly string[]): Map<string, FileEntry> {
  const wanted = new Map<string, FileEntry>();
  for (const [path, file] of Object.entries(repository)) {
    const installs = chosen.some((role) => file.roles.some((of) => of === role || role.startsWith(`${of}/`)));
    if (installs) wanted.set(path, entryOf(path, file.content, file.backup));
  }
  return wanted;
}

/** The oracle: the tree and the record after the update, path by path. */
function naive(
  local: Tree,
  recorded: Map<string, FileEntry>,
  wanted: Map<string, FileEntry>,
  contentOf: (sha256: string) => string,
  edits: EditsPolicy,
): { tree: Tree; recorded: Map<string, FileEntry>; backups: Set<string> } {
  const tree: Tree = new Map(local);
  const after = new Map<string, FileEntry>();
  const backups = new Set<string>();
  for (const path of [...new Set([...recorded.keys(), ...wanted.keys()])].sort()) {
    const here = local.get(path);
    const record = recorded.get(path);
    const want = wanted.get(path);
    const isRecorded = here !== undefined && record !== undefined && digest(here.text) === record.sha256;
    const isWanted = here !== undefined && want !== undefined && digest(here.text) === want.sha256;
    if (want === undefined) {
      if (here !== undefined && (isRecorded || edits === "replace")) {
        tree.delete(path);
        if (!isRecorded || record?.backup === true) backups.add(path);
      }
      continue;
    }
    const put = { text: contentOf(want.sha256), mode: want.mode };
    if (here === undefined) {
      tree.set(path, put);
      after.set(path, want);
      continue;
    }
    if (isWanted && here.mode === want.mode) {
      after.set(path, want);
      continue;
    }
    const edited = isWanted
      ? record !== undefined && isRecorded && here.mode !== record.mode
      : record === undefined || !isRecorded;
    if (edited && edits !== "replace") {
      if (record !== undefined) after.set(path, record);
      continue;
    }
    tree.set(path, put);
    after.set(path, want);
    if (!isWanted && (edited || want.backup || record?.backup === true)) backups.add(path);
  }
  return { tree, recorded: after, backups };
}

/** Carries a plan out on a tree in memory, and refuses what a real one would refuse. */
function carryOut(plan: Plan, local: Tree, contentOf: (sha256: string) => string): Tree {
  const tree: Tree = new Map(local);
  for (const operation of plan.operations) {
    if (operation.kind === "add") assert.equal(tree.has(operation.path), false, "add over a file");
    if (operation.kind === "add" || operation.kind === "replace") {
      if (operation.source.kind === "local") {
        const source = local.get(operation.source.path);
        assert.equal(digest(source?.text ?? "absent"), operation.entry.sha256, "the local source is another");
      }
      tree.set(operation.path, { text: contentOf(operation.entry.sha256), mode: operation.entry.mode });
    }
    if (operation.kind === "remove") assert.equal(tree.delete(operation.path), true, "remove of nothing");
  }
  return tree;
}

const sorted = <T>(map: Map<string, T>) => [...map].sort(([a], [b]) => (a < b ? -1 : 1));

test("plan and result equal those of a naive oracle", () => {
  let opened = 0;
  let observed = 0;
  fc.assert(
    fc.property(triple, ({ old, next, chosen, changes, edits, remembered }) => {
      const contents = new Map(texts.map((text) => [digest(text), text]));
      const contentOf = (sha256: string) => contents.get(sha256) ?? assert.fail("an unknown content");
      const installed = [...new Set(chosen.flatMap(roleWithParents))].sort();
      const recorded = joinManifests(manifestsOf(old, installed));
      const target = joinManifests(manifestsOf(next, installed));
      assert.deepEqual(recorded.faults, []);
      assert.deepEqual(new Map(target.entries.map((entry) => [entry.path, entry])), wantedBy(next, chosen));

      const local: Tree = new Map();
      for (const entry of recorded.entries)
        local.set(entry.path, { text: contentOf(entry.sha256), mode: entry.mode });
      const untouched = new Set(local.keys());
      for (const change of changes) {
        if (change.kind === "delete") local.delete(change.path);
        else local.set(change.path, change.content);
        untouched.delete(change.path);
      }

      const rows = planRows(recorded.entries, target.entries);
      const locals = rows.map((row, index): LocalFile => {
        const here = local.get(row.path);
        if (here === undefined) return { kind: "missing" };
        if (untouched.has(row.path) && remembered[index % remembered.length]) return { kind: "recorded" };
        const seen: LocalFile = { kind: "file", size: here.text.length, mode: here.mode, sha256: null };
        observed++;
        if (!needsDigest(row, seen)) return seen;
        opened++;
        return { ...seen, sha256: digest(here.text) };
      });
      const plan = makePlan(rows, locals, { edits, modes: true });
      const expected = naive(
        local,
        new Map(recorded.entries.map((entry) => [entry.path, entry])),
        new Map(target.entries.map((entry) => [entry.path, entry])),
        contentOf,
        edits,
      );

      assert.deepEqual(plan.faults, []);
      const result = carryOut(plan, local, contentOf);
      assert.deepEqual(sorted(result), sorted(expected.tree));
      assert.deepEqual(
        plan.recorded,
        sorted(expected.recorded).map(([, entry]) => entry),
      );
      const backups = plan.operations.flatMap((o) => ("backup" in o && o.backup ? [o.path] : []));
      assert.deepEqual(backups, [...expected.backups].sort());

      // A file that the plan leaves alone is the same afterwards; one that it changes was different before.
      for (const operation of plan.operations)
        if (operation.kind === "replace")
          assert.notDeepEqual(
            local.get(operation.path),
            result.get(operation.path),
            "a needless replacement",
          );
      assert.equal(
        plan.sums.equal +
          plan.operations.filter((o) => o.kind !== "remove" && "entry" in o && o.entry).length,
        target.entries.length,
      );

      // Nothing is left to do: the second plan is empty but for what stays on purpose.
      const again = planRows(plan.recorded, target.entries);
      const seenAgain = again.map((row): LocalFile => {
        const here = result.get(row.path);
        return here === undefined
          ? { kind: "missing" }
          : { kind: "file", size: here.text.length, mode: here.mode, sha256: digest(here.text) };
      });
      const second = makePlan(again, seenAgain, { edits, modes: true });
      assert.deepEqual(
        second.operations.filter((operation) => operation.kind !== "keep"),
        [],
      );
    }),
    { numRuns: 1000 },
  );
  // The control: sizes alone decide about some files, and not about all.
  assert.ok(opened > 0 && opened < observed, `${opened} of ${observed} opened`);
});

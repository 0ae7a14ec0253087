import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type EditsPolicy,
  type FileEntry,
  type LocalFile,
  makePlan,
  needsDigest,
  type PlanOperation,
  planRows,
} from "./index.ts";

const A = "a".repeat(64);
const B = "b".repeat(64);
const C = "c".repeat(64);
const file = (path: string, sha256: string, more: Partial<FileEntry> = {}): FileEntry => ({
  path,
  size: 10,
  sha256,
  mode: 0o644,
  backup: false,
  ...more,
});
const local = (sha256: string | null, size = 10, mode = 0o644): LocalFile => ({
  kind: "file",
  size,
  mode,
  sha256,
});

function only(
  recorded: FileEntry | null,
  target: FileEntry | null,
  seen: LocalFile,
  edits: EditsPolicy = "replace",
): PlanOperation | null {
  const rows = planRows(recorded === null ? [] : [recorded], target === null ? [] : [target]);
  const plan = makePlan(rows, [seen], { edits, modes: true });
  assert.ok(plan.operations.length <= 1);
  return plan.operations[0] ?? null;
}

const facts = (operation: PlanOperation | null) =>
  operation === null
    ? "nothing"
    : [operation.kind, operation.reason, ...("local" in operation ? [operation.local] : [])].join(" ");

test("a file of another size is replaced without its content being read (S25)", () => {
  const [row] = planRows([file("x", A)], [file("x", B, { size: 11 })]);
  assert.ok(row !== undefined);
  assert.equal(needsDigest(row, local(null, 12)), false);
  assert.equal(facts(only(row.recorded, row.target, local(null, 12))), "replace size edited");
});

test("a file of equal size is read, and replaced when the content differs (S25)", () => {
  const [row] = planRows([file("x", A)], [file("x", B)]);
  assert.ok(row !== undefined);
  assert.equal(needsDigest(row, local(null)), true);
  assert.equal(facts(only(row.recorded, row.target, local(A))), "replace hash ours");
  assert.equal(facts(only(row.recorded, row.target, local(C))), "replace hash edited");
  assert.equal(facts(only(row.recorded, row.target, local(B))), "adopt present");
});

test("a file whose content the disk does not give any more is replaced where the repository wins", () => {
  assert.equal(facts(only(file("x", A), file("x", A), local(null))), "replace lost edited");
  assert.equal(facts(only(file("x", A), file("x", A), local(null), "keep")), "keep edited");
});

test("a file that was not touched since the last look is not read", () => {
  const [row] = planRows([file("x", A)], [file("x", A)]);
  assert.ok(row !== undefined);
  assert.equal(needsDigest(row, { kind: "recorded" }), false);
  assert.equal(facts(only(row.recorded, row.target, { kind: "recorded" })), "nothing");
  assert.equal(facts(only(file("x", A), file("x", B), { kind: "recorded" })), "replace hash ours");
});

test("what is missing comes back under every policy", () => {
  for (const edits of ["replace", "keep", "keep-and-report"] as const) {
    assert.equal(facts(only(file("x", A), file("x", A), { kind: "missing" }, edits)), "replace missing ours");
    assert.equal(facts(only(null, file("x", A), { kind: "missing" }, edits)), "add new");
  }
});

test("edited and foreign files stay where the policy keeps them", () => {
  assert.equal(facts(only(file("x", A), file("x", B), local(C), "keep")), "keep edited");
  assert.equal(facts(only(null, file("x", B), local(C), "keep-and-report")), "keep foreign");
  assert.equal(facts(only(null, file("x", B), local(C))), "replace hash foreign");
  assert.equal(facts(only(file("x", A), file("x", A), local(A, 10, 0o600), "keep")), "keep edited");
  assert.equal(facts(only(file("x", A), file("x", A), local(A, 10, 0o600))), "replace mode edited");
});

test("an edited file that is replaced leaves a copy; so does one that is marked for it", () => {
  const backup = (operation: PlanOperation | null) =>
    operation !== null && "backup" in operation && operation.backup;
  assert.equal(backup(only(file("x", A), file("x", B), local(C))), true);
  assert.equal(backup(only(file("x", A), file("x", B), local(A))), false);
  assert.equal(backup(only(file("x", A), file("x", B, { backup: true }), local(A))), true);
  assert.equal(backup(only(file("x", A, { backup: true }), null, local(A))), true);
});

test("a dropped file goes; an edited one only where the repository wins, and a copy stays", () => {
  assert.equal(facts(only(file("x", A), null, local(A))), "remove dropped ours");
  assert.equal(facts(only(file("x", A), null, { kind: "recorded" })), "remove dropped ours");
  assert.equal(facts(only(file("x", A), null, local(B))), "remove dropped edited");
  const removal = only(file("x", A), null, local(B));
  assert.equal(removal?.kind === "remove" && removal.backup, true);
  assert.equal(facts(only(file("x", A), null, local(B), "keep")), "keep dropped");
  assert.equal(facts(only(file("x", A), null, { kind: "link" })), "keep dropped");
  assert.equal(facts(only(file("x", A), null, { kind: "missing" })), "nothing");
});

test("undoing an edit makes the file ours again", () => {
  const rows = planRows([file("x", A)], [file("x", B)]);
  const kept = makePlan(rows, [local(C)], { edits: "keep", modes: true });
  assert.deepEqual(kept.recorded, [file("x", A)]);
  const undone = makePlan(planRows(kept.recorded, [file("x", B)]), [local(A)], {
    edits: "keep",
    modes: true,
  });
  assert.equal(facts(undone.operations[0] ?? null), "replace hash ours");
});

test("a link is replaced, never followed; a device is a fault", () => {
  assert.equal(facts(only(file("x", A), file("x", B), { kind: "link" })), "replace link edited");
  assert.equal(facts(only(file("x", A), file("x", B), { kind: "link" }, "keep")), "keep edited");
  const plan = makePlan(planRows([], [file("x", A)]), [{ kind: "blocked", problem: "a device" }], {
    edits: "replace",
    modes: true,
  });
  assert.deepEqual(plan.faults, [{ path: "x", problem: "a device" }]);
});

test("a folder gives way to a file when all it holds goes too", () => {
  const rows = planRows([file("x/a", A), file("x/b", B)], [file("x", C)]);
  const seen: LocalFile[] = [
    { kind: "folder", holds: ["x/a", "x/b"] },
    { kind: "recorded" },
    { kind: "recorded" },
  ];
  const options = { edits: "replace", modes: true } as const;
  assert.deepEqual(makePlan(rows, seen, options).faults, []);
  const foreign: LocalFile[] = [{ kind: "folder", holds: ["x/a", "x/b", "x/notes"] }, ...seen.slice(1)];
  assert.match(makePlan(rows, foreign, options).faults[0]?.problem ?? "", /x\/notes/);
});

test("an edited file that stays does not let a folder take its place", () => {
  const rows = planRows([file("x", A)], [file("x/a", B)]);
  const options = { edits: "keep", modes: true } as const;
  assert.deepEqual(makePlan(rows, [{ kind: "recorded" }, { kind: "missing" }], options).faults, []);
  assert.equal(makePlan(rows, [local(C), { kind: "missing" }], options).faults[0]?.path, "x/a");
});

test("a renamed file is copied, not fetched, and equal contents are fetched once", () => {
  const rows = planRows(
    [file("old", A)],
    [file("new", A), file("p", B, { size: 7 }), file("q", B, { size: 7 })],
  );
  const seen: LocalFile[] = rows.map((row) =>
    row.path === "old" ? { kind: "recorded" } : { kind: "missing" },
  );
  const { operations, sums } = makePlan(rows, seen, { edits: "replace", modes: true });
  const [first] = operations;
  assert.deepEqual(first?.kind === "add" && first.source, { kind: "local", path: "old" });
  assert.deepEqual([sums.fetchFiles, sums.fetchBytes, sums.copyFiles, sums.writeBytes], [1, 7, 1, 24]);
});

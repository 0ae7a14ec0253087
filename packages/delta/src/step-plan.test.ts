import assert from "node:assert/strict";
import test from "node:test";
import type { FileEntry } from "@lockstep/core";
import { planStep, stepContents } from "./step-plan.ts";

const entry = (path: string, digit: string): FileEntry => ({
  path,
  size: 1000,
  sha256: digit.repeat(64),
  mode: 0o644,
  backup: false,
});

/** Whether the step from one version of a file to the next looks into it. */
function looksInto(from: string, to = from): boolean {
  const old = [entry(from, "a")];
  const next = [entry(to, "b")];
  const [unit, ...others] = planStep(old, next, stepContents(old, next));
  assert.equal(others.length, 0);
  return unit?.isArchive === true;
}

test("what is an archive by its name is looked into, whatever its maker calls it", () => {
  const archives = [
    "a.zip",
    "b.JAR",
    "c.nupkg",
    "c.snupkg",
    "d.ipa",
    "d.aab",
    "e.docx",
    "e.xlsm",
    "f.tar.gz",
    "g.epub",
  ];
  assert.deepEqual(
    archives.filter((path) => !looksInto(path)),
    [],
  );
  assert.deepEqual(
    ["a.exe", "zip", "a.zip.txt", "a.docs"].filter((path) => looksInto(path)),
    [],
  );
});

test("a version in its name does not hide what an archive was before", () => {
  assert.ok(looksInto("lib/Acme.Core.1.0.1.nupkg", "lib/Acme.Core.1.0.2.nupkg"));
});

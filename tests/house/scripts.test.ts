import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { fitsMachine } from "../../scripts/install.mjs";
import { runSteps } from "../../scripts/step.ts";
import { formatTotals } from "../../scripts/summary.ts";
import { runTests } from "../../scripts/test-run.ts";

test("the counts are those of the test runner: passed, failed, skipped with its reason, died", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-scripts-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const write = (name: string, text: string) => {
    const file = join(directory, name);
    writeFileSync(file, `import test from "node:test";\nimport assert from "node:assert";\n${text}`);
    return file;
  };
  const good = write("good.test.mjs", 'test("a", () => {}); test("b", () => {});');
  const bad = write("bad.test.mjs", 'test("c", () => assert.equal(1, 2));');
  const skips = write("skips.test.mjs", 'test("d", { skip: "no strace here" }, () => {});');
  const dies = write("dies.test.mjs", 'test("e", () => {}); process.kill(process.pid, "SIGKILL");');
  const options = { concurrency: 2, timeoutMs: 600_000, output: "kept" } as const;
  for (const isolation of ["together", "apart"] as const) {
    const mixed = await runTests({ ...options, isolation, files: [good, bad, skips] });
    assert.deepEqual([mixed.ok, mixed.passed, mixed.failed], [false, 2, 1], isolation);
    assert.deepEqual(
      mixed.skipped.map(({ name, reason }) => ({ name, reason })),
      [{ name: "d", reason: "no strace here" }],
    );
    assert.match(mixed.output, /FAILED c/);
    const died = await runTests({ ...options, isolation, files: [dies] });
    assert.equal(died.ok, false, isolation);
    assert.ok(died.failed >= 1, isolation);
    assert.equal((await runTests({ ...options, isolation, files: [good] })).ok, true);
  }
});

test("a step that fails does not keep the others from running", async () => {
  const outcome = (ok: boolean) => ({ ok, output: "", passed: ok ? 1 : 0, failed: ok ? 0 : 1, skipped: [] });
  const ran: string[] = [];
  const step = (name: string, ok: boolean) => ({
    name,
    run: async () => {
      ran.push(name);
      return outcome(ok);
    },
  });
  const summary = await runSteps([step("one", false), step("two", true), step("three", false)], 1);
  assert.deepEqual(ran, ["one", "two", "three"]);
  assert.deepEqual(summary.failedSteps, ["one", "three"]);
  assert.equal(
    formatTotals({ passed: summary.passed, failed: summary.failed, skipped: 0 }),
    "1 passed, 2 failed",
  );
});

test("the last line names skipped tests only where there are any", () => {
  assert.equal(formatTotals({ passed: 3, failed: 0, skipped: 2 }), "3 passed, 0 failed, 2 skipped");
});

test("a package for another machine is not expected here", () => {
  const here = { os: "linux", cpu: "x64", libc: "glibc" };
  assert.equal(fitsMachine({}, here), true);
  assert.equal(fitsMachine({ os: ["linux"], cpu: ["x64"], libc: ["glibc"] }, here), true);
  assert.equal(fitsMachine({ os: "linux" }, here), true);
  assert.equal(fitsMachine({ os: ["darwin"] }, here), false);
  assert.equal(fitsMachine({ os: ["!win32"] }, here), true);
  assert.equal(fitsMachine({ os: ["!linux"] }, here), false);
  assert.equal(fitsMachine({ cpu: ["arm64", "x64"], libc: ["musl"] }, here), false);
});

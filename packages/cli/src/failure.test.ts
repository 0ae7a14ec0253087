import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { LockstepError } from "@lockstep/protocol";
import { reportFailure } from "./failure.ts";

/** What a failure says on standard error. */
function told(error: unknown): string {
  const { write } = process.stderr;
  let text = "";
  process.stderr.write = (chunk: unknown) => {
    text += String(chunk);
    return true;
  };
  try {
    reportFailure(error, { json: false, stdout: { write: () => true } });
  } finally {
    process.stderr.write = write;
  }
  return text;
}

test("a command that a signal ended has the status that a shell knows it by", () => {
  const script = `
    import { listenForInterruption } from "@lockstep/platform";
    import { reportFailure } from ${JSON.stringify(new URL("failure.ts", import.meta.url).href)};
    const { signal } = listenForInterruption();
    signal.addEventListener("abort", () => {
      process.exitCode = reportFailure(signal.reason, { json: false, stdout: process.stdout });
    });
    process.kill(process.pid, process.argv[1]);
    setTimeout(() => {}, 60_000).unref();
    setImmediate(function wait() { if (!signal.aborted) setImmediate(wait); });
  `;
  for (const [signal, expected] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGHUP", 129],
  ] as const) {
    const { status, stderr } = spawnSync(
      process.execPath,
      ["--input-type=module", "--eval", script, signal],
      { cwd: import.meta.dirname, encoding: "utf8" },
    );
    assert.equal(status, expected, stderr);
    assert.match(stderr, new RegExp(`^error INTERRUPTED: stopped by ${signal}$`, "m"));
  }
});

test("a fault of ours shows where it comes from once, and its message once", () => {
  const own = told(new TypeError("broken inside"));
  assert.equal(own.split("broken inside").length, 2, own);
  assert.match(own, /\n\s+at .*failure\.test\.ts/);
  const stack = new TypeError("broken there").stack ?? "";
  const other = told(new LockstepError("INTERNAL", stack));
  assert.equal(other.split("broken there").length, 2, other);
  assert.equal(
    other.split(/failure\.test\.ts:\d+:\d+\)?\n/).length - 1,
    stack.split("failure.test.ts:").length - 1,
  );
});

test("an expected failure shows no trace", () => {
  assert.doesNotMatch(told(new LockstepError("NOT_FOUND", "it is not there")), /\n\s+at /);
});

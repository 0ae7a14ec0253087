import assert from "node:assert/strict";
import test from "node:test";
import { LockstepError } from "@lockstep/protocol/wire";
import { createLogger, type LogLevel, parseLogLevel } from "./log.ts";

function capture(format: "json" | "text", level: LogLevel = "info") {
  const lines: string[] = [];
  const write = (line: string) => lines.push(line);
  return { lines, log: createLogger({ level, format, write, clock: { now: () => 0 } }) };
}

test("records below the level are dropped", () => {
  const { lines, log } = capture("text", "warn");
  log.debug("a");
  log.info("b");
  log.warn("c");
  log.error("d");
  assert.deepEqual(
    lines.map((line) => line.split(" ")[1]),
    ["warn", "error"],
  );
});

test("a child adds its fields to each record", () => {
  const { lines, log } = capture("json");
  log.child({ installation: "i-1" }).info("updated", { revision: 7 });
  assert.deepEqual(JSON.parse(lines[0] ?? ""), {
    time: "1970-01-01T00:00:00.000Z",
    level: "info",
    message: "updated",
    installation: "i-1",
    revision: 7,
  });
});

test("an expected error is written with its code and its causes, without a stack", () => {
  const { lines, log } = capture("json");
  const cause = Object.assign(new Error("connect refused"), { code: "ECONNREFUSED" });
  log.error("check failed", { error: new LockstepError("HUB_UNREACHABLE", "no answer", { cause }) });
  assert.deepEqual(JSON.parse(lines[0] ?? "").error, {
    code: "HUB_UNREACHABLE",
    message: "no answer",
    causes: ["ECONNREFUSED: connect refused"],
  });
});

test("an unexpected error is written with its stack", () => {
  const { lines, log } = capture("json");
  log.error("broken", { error: new TypeError("x is not a function") });
  assert.match(JSON.parse(lines[0] ?? "").error.stack, /log\.test\.ts/);
});

test("a line feed in a value cannot forge a second record", () => {
  const { lines, log } = capture("text");
  log.info("loaded", { path: "a\n1970 error forged", empty: "" });
  assert.equal(lines.length, 1);
  assert.equal(lines[0]?.trimEnd().split("\n").length, 1);
  assert.ok(lines[0]?.includes('empty=""'));
});

test("levels are read without regard to case, and nothing else is", () => {
  assert.equal(parseLogLevel("WARN"), "warn");
  assert.equal(parseLogLevel("loud"), null);
});

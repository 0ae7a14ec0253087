import assert from "node:assert/strict";
import { test } from "node:test";
import { decideLock, formatLock, LOCK_AGE_MAX_MS, type LockRecord, parseLock } from "./index.ts";

const now = 10_000_000_000;
const record = (more: Partial<LockRecord> = {}): LockRecord => ({
  token: "t",
  host: "here",
  createdAt: now - 1000,
  renewedAt: now - 1000,
  holders: [
    { pid: 1, start: "s1", purpose: "trigger" },
    { pid: 2, start: "s2", purpose: "updater" },
  ],
  ...more,
});
const decide = (found: LockRecord, running: number[]) =>
  decideLock({ kind: "record", record: found }, now, "here", (holder) => running.includes(holder.pid));

test("a lock with one living process is held by it", () => {
  const decision = decide(record(), [2]);
  assert.deepEqual(decision.kind === "held" && decision.by.map((holder) => holder.pid), [2]);
});

test("a lock whose processes are all dead is ignored at once (behaviour 31)", () => {
  assert.deepEqual(decide(record(), []), { kind: "stale", reason: "dead" });
});

test("a lock older than two hours is ignored although its process lives (behaviour 30)", () => {
  assert.equal(decide(record({ renewedAt: now - LOCK_AGE_MAX_MS }), [1]).kind, "held");
  assert.deepEqual(decide(record({ renewedAt: now - LOCK_AGE_MAX_MS - 1 }), [1]), {
    kind: "stale",
    reason: "age",
  });
  assert.equal(decide(record({ createdAt: 0 }), [1]).kind, "held", "its renewal counts, not its creation");
});

test("a lock from a clock far ahead does not hold for ever", () => {
  assert.equal(decide(record({ renewedAt: now + LOCK_AGE_MAX_MS + 1 }), [1]).kind, "stale");
});

test("processes of another machine are believed until the lock is old", () => {
  assert.equal(decide(record({ host: "elsewhere" }), []).kind, "held");
});

test("an unreadable lock gets a moment, then it is broken", () => {
  const at = (modifiedAt: number) => decideLock({ kind: "unreadable", modifiedAt }, now, "here", () => false);
  assert.equal(at(now - 100).kind, "held");
  assert.deepEqual(at(now - 60_000), { kind: "stale", reason: "unreadable" });
});

test("a lock is read back as it was written, and nothing else is", () => {
  const text = formatLock(record());
  assert.deepEqual(parseLock(text), record());
  for (let length = 0; length < text.length - 1; length++)
    assert.equal(parseLock(text.slice(0, length)), null);
  for (const other of ["null", "[]", "{}", '{"format":"lockstep-lock/1"}'])
    assert.equal(parseLock(other), null);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import type { HubClient } from "@lockstep/client";
import { type ErrorCode, isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import { awaitRevision } from "./await-revision.ts";

/** A clock that only moves when somebody sleeps. */
class Clock {
  #ms = 0;
  monotonic = () => this.#ms;
  sleep = async (ms: number) => {
    this.#ms += ms;
  };
}

const silent = (code: ErrorCode) => new LockstepError(code, `said ${code}`, { found: "ECONNREFUSED" });

/** Waits at a hub that gives these answers one after the other, the last one for ever. */
function wait(answers: readonly (number | Error)[]) {
  const said: string[] = [];
  const clock = new Clock();
  let asked = 0;
  const hub = {
    loadRevision: async () => {
      const answer = answers[Math.min(asked++, answers.length - 1)];
      if (typeof answer !== "number") throw answer;
      return { revision: answer };
    },
  };
  const revision = awaitRevision(
    hub as unknown as HubClient,
    { load: 7, changes: true, revisionBefore: 1 },
    { signal: new AbortController().signal, onStopped: (remark) => void said.push(remark), clock },
  );
  return { revision, said, clock };
}

test("a hub that is started anew is waited for, which is said once", async () => {
  const { revision, said } = wait([...Array(9).fill(silent("HUB_UNREACHABLE")), silent("HUB_BUSY"), 2]);
  assert.equal(await revision, 2);
  assert.deepEqual(said, ["waiting: it is committed, but the hub does not answer: said HUB_UNREACHABLE"]);
});

test("whatever ends the wait, it is said that the load is committed", async () => {
  for (const code of ["HUB_UNREACHABLE", "HUB_BUSY", "INTERRUPTED"] as const) {
    const { revision, clock } = wait([silent(code)]);
    await assert.rejects(revision, (error) => {
      assert.ok(isLockstepError(error, code));
      assert.equal(error.message, `it is committed, and is not waited for any more: said ${code}`);
      assert.equal(error.found, "ECONNREFUSED");
      assert.match(error.hint ?? "", /^Nothing needs to be repeated/);
      return true;
    });
    assert.equal(clock.monotonic(), code === "INTERRUPTED" ? 0 : 30_000);
  }
});

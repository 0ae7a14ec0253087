import assert from "node:assert/strict";
import test from "node:test";
import type { CommitBody } from "./apply-record.ts";
import {
  type ApplyStep,
  backSteps,
  dropSteps,
  endBackSteps,
  finishSteps,
  prepareSteps,
  revisionFileName,
  settleSteps,
  switchSteps,
  turnSteps,
} from "./apply-steps.ts";

/** A file replaced, one added in a new directory, one removed, a file to a directory, a directory to a file. */
const BODY: CommitBody = {
  id: "x",
  from: 1,
  to: 2,
  startedAt: 0,
  state: { former: "linked", mark: "9.1.1", copy: null },
  formerRevision: "8.1.1",
  entries: [
    { n: 0, kind: "put", path: "a", former: "linked", formerPath: null, mark: "0.1.1", copy: null },
    { n: 1, kind: "put", path: "new/b", former: "none", formerPath: null, mark: "1.1.1", copy: null },
    { n: 2, kind: "remove", path: "old/c", former: "copied", formerPath: null, mark: "2.1.1", copy: "2.2.2" },
    { n: 3, kind: "remove", path: "swap", former: "linked", formerPath: null, mark: "3.1.1", copy: null },
    { n: 4, kind: "put", path: "swap/d", former: "none", formerPath: null, mark: "4.1.1", copy: null },
    { n: 5, kind: "remove", path: "paws/e", former: "linked", formerPath: null, mark: "5.1.1", copy: null },
    { n: 6, kind: "put", path: "paws", former: "none", formerPath: null, mark: "6.1.1", copy: null },
    { n: 7, kind: "put", path: "README", former: "linked", formerPath: "Readme", mark: "7.1.1", copy: null },
  ],
  make: [{ path: "new", mode: 0o755 }],
  makeLate: [{ path: "swap", mode: 0o755 }],
  clear: [{ path: "paws", mode: 0o700 }],
};

const STAGE = ".lockstep/staging/x";

/** One line a step: the story that a reviewer reads. */
function tell(step: ApplyStep): string {
  switch (step.do) {
    case "turn":
      return `turn ${step.from.replace(STAGE, "$")}`;
    case "put":
      return `put ${step.from.replace(STAGE, "$")} to ${step.to}${step.instead === null ? "" : ` instead of ${step.instead}`}${step.former === null ? "" : ` where ${step.former} stood`}${step.mark === null ? "" : ` as ${step.mark}`}`;
    case "move":
      return `move ${step.from.replace(STAGE, "$")} to ${step.to.replace(STAGE, "$")}`;
    case "restore":
      return `restore ${step.kept.replace(STAGE, "$")} to ${step.to}${step.instead === null ? "" : ` instead of ${step.instead}`} unless it is ${step.mark}${step.copy === null ? "" : ` or ${step.copy}`}`;
    case "sync":
      return `sync ${step.directories.map((each) => (each === "" ? "." : each.replace(STAGE, "$"))).join(" ")}`;
    case "make-directory":
      return `make ${step.path} ${step.mode.toString(8)}${step.aside ? ", setting aside" : ""}`;
    case "remove-directory":
      return `rmdir ${step.path} or ${step.notEmpty}`;
    case "remove-kept":
      return `remove ${step.path} if it is ${step.copied ? step.mark : step.kept.replace(STAGE, "$")}`;
    case "take-out":
      return `take out ${step.path} that was ${step.staged.replace(STAGE, "$")}, ${step.mark}`;
    case "drop-head":
      return `drop the head${step.retired === null ? "" : ` as ${step.retired}`}`;
  }
}

test("forward: directories first and durable, removals before what takes their place, the state last, then durable", () => {
  const steps = [
    ...turnSteps("x", "forward"),
    ...prepareSteps(BODY),
    ...switchSteps(BODY),
    ...settleSteps(BODY),
  ];
  assert.deepEqual(steps.map(tell), [
    "turn $/head.forward.json",
    "sync .lockstep $",
    "make new 755",
    "sync .",
    "remove old/c if it is 2.1.1",
    "remove swap if it is $/old/3",
    "remove paws/e if it is $/old/5",
    "rmdir paws or fail",
    "make swap 755",
    "sync .",
    "put $/new/0 to a where 0.1.1 stood",
    "put $/new/1 to new/b as 1.1.1",
    "put $/new/4 to swap/d as 4.1.1",
    "put $/new/6 to paws as 6.1.1",
    "put $/new/7 to README instead of Readme where 7.1.1 stood",
    "put $/state to InstallState.config where 9.1.1 stood",
    "sync . $ new old swap paws $/new",
  ]);
});

test("back: the turn is durable first, what came goes, what was comes back, and the head goes last", () => {
  assert.deepEqual([...turnSteps("x", "back"), ...backSteps(BODY), ...endBackSteps()].map(tell), [
    "turn $/head.back.json",
    "sync .lockstep $",
    "take out new/b that was $/new/1, 1.1.1",
    "take out swap/d that was $/new/4, 4.1.1",
    "take out paws that was $/new/6, 6.1.1",
    "rmdir swap or leave",
    "rmdir new or leave",
    "make paws 700, setting aside",
    "sync .",
    "restore $/old/0 to a unless it is 0.1.1",
    "restore $/old/2 to old/c unless it is 2.1.1 or 2.2.2",
    "restore $/old/3 to swap unless it is 3.1.1",
    "restore $/old/5 to paws/e unless it is 5.1.1",
    "restore $/old/7 to Readme instead of README unless it is 7.1.1",
    "restore $/state.former to InstallState.config unless it is 9.1.1",
    "sync . $ new old swap paws $/old",
    "drop the head",
  ]);
});

test("finish: the turn is durable first, then the revision file, then what is ours", () => {
  const steps = [...turnSteps("x", "finish"), ...finishSteps(BODY, revisionFileName(false))];
  assert.deepEqual(steps.map(tell), [
    "turn $/head.finish.json",
    "sync .lockstep $",
    "put $/revision to .softwarerevision.viv where 8.1.1 stood",
    "rmdir paws or leave",
    "rmdir old or leave",
    "move $/index to .lockstep/index",
    "sync . $",
    "move .lockstep/previous to $.former",
    "move $ to .lockstep/previous",
    "sync .lockstep .lockstep/staging",
    "drop the head as .lockstep/previous/commit.json",
  ]);
  assert.deepEqual(steps.slice(-2), dropSteps());
});

test("finish of a repair: what a rollback leads back to stays what it was", () => {
  const steps = finishSteps({ ...BODY, from: 7, to: 7 }, revisionFileName(false)).map(tell);
  assert.deepEqual(steps.slice(-2), ["sync . $", "drop the head"]);
  assert.equal(
    steps.some((step) => step.includes(".lockstep/previous")),
    false,
  );
});

test("where no state file was, the way back takes the new one out", () => {
  const steps = backSteps({ ...BODY, state: { ...BODY.state, former: "none" } }).map(tell);
  assert.ok(steps.includes("take out InstallState.config that was $/state, 9.1.1"));
});

test("an update of no file makes and syncs no directory of the product but its own", () => {
  const empty = { ...BODY, entries: [], make: [], makeLate: [], clear: [] };
  assert.deepEqual(prepareSteps(empty), []);
  assert.deepEqual(switchSteps(empty).map(tell), ["put $/state to InstallState.config where 9.1.1 stood"]);
  assert.deepEqual(settleSteps(empty).map(tell), ["sync . $ $/new"]);
});

test("the revision file has the name that its system hides", () => {
  assert.equal(revisionFileName(false), ".softwarerevision.viv");
  assert.equal(revisionFileName(true), "softwarerevision.viv");
});

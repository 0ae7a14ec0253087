import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import type { Former } from "./apply.ts";
import {
  COMMIT_DIRECTIONS,
  type CommitBody,
  decideRecovery,
  formatCommitBody,
  formatCommitHead,
  isCommitId,
  parseCommitBody,
  parseCommitHead,
} from "./apply-record.ts";

const SHA = "0123456789abcdef".repeat(4);
const OTHER_SHA = "f".repeat(64);

const PLAIN = { noNullPrototype: true } as const;

const heads = fc.record(
  {
    id: fc.stringMatching(/^[a-z0-9][a-z0-9-]{0,20}$/),
    direction: fc.constantFrom(...COMMIT_DIRECTIONS),
    body: fc.constant(SHA),
  },
  PLAIN,
);
/** The last letter keeps the names that Windows reserves (con, aux, nul) out. */
const paths = fc.stringMatching(/^[a-z]{0,5}y(\/[a-zé ]{1,6}e){0,3}$/);
const directories = fc.array(fc.record({ path: paths, mode: fc.integer({ min: 0, max: 0o777 }) }, PLAIN), {
  maxLength: 4,
});
const marks = fc.stringMatching(/^[0-9a-z]{1,8}\.[0-9a-z]{1,6}\.[0-9a-z]{1,12}$/);
const keepings: fc.Arbitrary<CommitBody["state"]> = fc.oneof(
  fc.record(
    { former: fc.constantFrom<Former>("none", "linked"), mark: marks, copy: fc.constant(null) },
    PLAIN,
  ),
  fc.record({ former: fc.constant<Former>("copied"), mark: marks, copy: marks }, PLAIN),
);
const bodies: fc.Arbitrary<CommitBody> = fc.record(
  {
    id: fc.stringMatching(/^[a-z0-9]{1,10}$/),
    from: fc.option(fc.nat()),
    to: fc.nat(),
    startedAt: fc.nat(),
    state: keepings,
    formerRevision: fc.option(marks),
    entries: fc.array(
      fc
        .tuple(
          fc.record(
            {
              n: fc.nat(),
              kind: fc.constantFrom("put" as const, "remove" as const),
              path: paths,
              formerPath: fc.option(paths),
            },
            PLAIN,
          ),
          keepings,
        )
        .map(([entry, keeping]) => ({ ...entry, ...keeping })),
      { maxLength: 6 },
    ),
    make: directories,
    makeLate: directories,
    clear: directories,
  },
  PLAIN,
);

const BODY: CommitBody = {
  id: "a1",
  from: 1,
  to: 2,
  startedAt: 3,
  state: { former: "linked", mark: "1.2.3", copy: null },
  formerRevision: null,
  entries: [{ n: 0, kind: "put", path: "a", former: "none", formerPath: null, mark: "4.5.6", copy: null }],
  make: [],
  makeLate: [],
  clear: [],
};

test("head and body are read back as they were written", () => {
  fc.assert(fc.property(heads, (head) => assert.deepEqual(parseCommitHead(formatCommitHead(head)), head)));
  fc.assert(fc.property(bodies, (body) => assert.deepEqual(parseCommitBody(formatCommitBody(body)), body)));
});

test("a body has one entry a line, so that a person can read what was under way", () => {
  const text = formatCommitBody({ ...BODY, entries: [...BODY.entries, ...BODY.entries] });
  assert.equal(text.split("\n").filter((line) => line.startsWith("[0,")).length, 2);
});

test("no head that was cut, changed or added to is believed", () => {
  const text = formatCommitHead({ id: "a1", direction: "forward", body: SHA });
  for (let at = 0; at < text.length; at++) assert.equal(parseCommitHead(text.slice(0, at)), null);
  assert.equal(parseCommitHead(`${text} `), null);
  assert.equal(parseCommitHead(text.replace("{", '{"more":1,')), null);
  assert.equal(parseCommitHead(text.replace("commit/1", "commit/2")), null);
  assert.equal(parseCommitHead(text.replace("forward", "sideways")), null);
  assert.equal(parseCommitHead(text.replace('"a1"', '"../a"')), null);
  for (const other of ["", "null", "[]", "1", '"x"']) assert.equal(parseCommitHead(other), null);
});

test("a head with one byte changed is refused or names something that is not there", () => {
  const text = formatCommitHead({ id: "a1", direction: "forward", body: SHA });
  fc.assert(
    fc.property(fc.nat(text.length - 1), fc.integer({ min: 32, max: 126 }), (at, code) => {
      const head = parseCommitHead(text.slice(0, at) + String.fromCharCode(code) + text.slice(at + 1));
      if (head !== null && !(head.id === "a1" && head.body === SHA))
        assert.ok(head.direction === "forward", "a direction changed unnoticed");
    }),
  );
});

test("a body with a value of the wrong kind is none", () => {
  const broken: Record<string, unknown>[] = [
    { id: "A" },
    { from: -1 },
    { to: 1.5 },
    { startedAt: "now" },
    { state: null },
    { state: ["linked", "1.2.3"] },
    { state: ["linked", "1.2", null] },
    { formerRevision: 1 },
    { entries: null },
    { entries: [[0, "put", "../x", "none", null, "1.2.3", null]] },
    { entries: [[0, "put", "a", "perhaps", null, "1.2.3", null]] },
    { entries: [[0, "put", "a", "none", "/b", "1.2.3", null]] },
    { entries: [[0, "move", "a", "none", null, "1.2.3", null]] },
    { entries: [[0, "put", "a", "none", null, "1.2.3"]] },
    { entries: [[0, "put", "a", "none", null, "", null]] },
    { entries: [[0, "put", "a", "none", null, "1.2.3", "1.2.3"]] },
    { entries: [[0, "put", "a", "copied", null, "1.2.3", null]] },
    { entries: [{}] },
    { make: [["a", 0o1000]] },
    { makeLate: [["a/../b", 0]] },
    { clear: ["a"] },
    { format: "lockstep-commit/2" },
  ];
  const good = JSON.parse(formatCommitBody(BODY)) as Record<string, unknown>;
  assert.notEqual(parseCommitBody(JSON.stringify(good)), null);
  for (const change of broken)
    assert.equal(parseCommitBody(JSON.stringify({ ...good, ...change })), null, JSON.stringify(change));
  assert.equal(parseCommitBody("{"), null);
  assert.equal(parseCommitBody("[]"), null);
});

test("only plain words are ids of staging directories", () => {
  for (const id of ["", ".", "..", "a/b", "A", "-a", "a".repeat(65), null])
    assert.equal(isCommitId(id), false);
  assert.equal(isCommitId("lx3f-1"), true);
});

test("a recovery carries out what the record says, drops what is done, and guesses nothing", () => {
  const text = formatCommitBody(BODY);
  const whole = { text, sha256: SHA };
  const head = (direction: (typeof COMMIT_DIRECTIONS)[number]) => ({ id: "a1", direction, body: SHA });
  for (const direction of COMMIT_DIRECTIONS) {
    const decision = decideRecovery({ head: head(direction), staged: whole, previous: null });
    assert.equal(decision.kind, "carry-out");
    assert.equal(decision.kind === "carry-out" && decision.direction, direction);
    const lost = decideRecovery({ head: head(direction), staged: null, previous: null });
    assert.equal(lost.kind, "damaged");
    const wrong = decideRecovery({
      head: head(direction),
      staged: { text, sha256: OTHER_SHA },
      previous: whole,
    });
    assert.equal(wrong.kind, "damaged", "a wrong body is not made up for by another");
  }
  assert.equal(decideRecovery({ head: head("finish"), staged: null, previous: whole }).kind, "drop");
  assert.equal(decideRecovery({ head: head("back"), staged: null, previous: whole }).kind, "damaged");
  assert.equal(decideRecovery({ head: head("forward"), staged: null, previous: whole }).kind, "damaged");
  const stranger = decideRecovery({ head: { ...head("forward"), id: "b2" }, staged: whole, previous: null });
  assert.equal(stranger.kind, "damaged", "the body of another update");
  const foreign = decideRecovery({
    head: head("forward"),
    staged: { text: "{}", sha256: SHA },
    previous: null,
  });
  assert.equal(foreign.kind, "damaged");
});

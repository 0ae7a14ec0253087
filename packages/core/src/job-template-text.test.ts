import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  countCharacters,
  forEachText,
  formatText,
  isTooDeep,
  mayRefer,
  type Parameters,
  parseText,
  REFERENCED_CHARACTERS_MAX,
  referencedSteps,
  resolveOutputs,
  resolveParameters,
  resolvePlainText,
  showParameters,
} from "./job-template-text.ts";

/** Texts that are likely to confuse a reader of references. */
const awkward = fc
  .array(fc.constantFrom("$", "{", "}", "${", "$${", "a", ".", "${a}", "${s.o}", "x y"), { maxLength: 12 })
  .map((parts) => parts.join(""));

/** What a step gets of a text when a process with these parameters and outputs comes to it. */
function inTwoGoes(text: unknown, parameters: Parameters, outputs: Record<string, Parameters>): unknown {
  const resolved = resolveOutputs(
    { text: resolveParameters(text, parameters) },
    new Map(Object.entries(outputs)),
  );
  assert.equal(resolved.kind, "resolved");
  return resolved.kind === "resolved" ? resolved.parameters.text : null;
}

test("references are found, and everything else is literal", () => {
  assert.deepEqual(parseText("a ${day} b ${Fetch files.count} c"), [
    { kind: "literal", text: "a " },
    { kind: "parameter", name: "day" },
    { kind: "literal", text: " b " },
    { kind: "output", step: "Fetch files", output: "count" },
    { kind: "literal", text: " c" },
  ]);
  assert.deepEqual(parseText("cost: $5 {x} $${HOME}"), [{ kind: "literal", text: "cost: $5 {x} ${HOME}" }]);
  assert.deepEqual(parseText(""), []);
});

test("what begins like a reference and is none is a fault, not text", () => {
  for (const text of ["${", "${day", "${}", "${a b}", "${.x}", "${a.}", "${a.b c}", "${1}"]) {
    const kinds = parseText(text).map(({ kind }) => kind);
    assert.ok(kinds.includes("fault"), `${text}: ${kinds.join()}`);
  }
});

test("a text that is written down again is read as the same parts", () => {
  fc.assert(
    fc.property(awkward, (text) => {
      const parts = parseText(text);
      if (parts.some(({ kind }) => kind === "fault")) return;
      assert.deepEqual(parseText(formatText(parts)), parts);
    }),
    { numRuns: 2_000 },
  );
});

test("no value of a parameter or output is ever read as a reference", () => {
  fc.assert(
    fc.property(awkward, awkward, awkward, (before, value, output) => {
      const literal = formatText(before === "" ? [] : [{ kind: "literal", text: before }]);
      // In the middle, at both ends, and next to the other reference.
      const text = `${literal === "" || literal.endsWith("$") ? `${literal}|` : literal}\${p}\${p}{\${s.o}`;
      const front = literal === "" || literal.endsWith("$") ? `${before}|` : before;
      const found = inTwoGoes(text, { p: value }, { s: { o: output } });
      assert.equal(found, `${front}${value}${value}{${output}`);
    }),
    { numRuns: 2_000 },
  );
});

test("a reference alone takes the value as it is, in both goes", () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 3 }), (value) => {
      const json = JSON.parse(JSON.stringify(value)) as unknown;
      assert.deepEqual(inTwoGoes("${p}", { p: json }, {}), json);
      assert.deepEqual(inTwoGoes("${s.o}", {}, { s: { o: json } }), json);
    }),
  );
  assert.equal(inTwoGoes("n=${p}", { p: { a: 1 } }, {}), 'n={"a":1}');
  assert.equal(inTwoGoes("n=${p}${s.o}.", { p: null }, { s: { o: null } }), "n=.");
  assert.deepEqual(inTwoGoes({ list: ["${p}", 7, null] }, { p: true }, {}), { list: [true, 7, null] });
});

test("an output that is not there is told by name, not taken for empty", () => {
  const parameters = { a: "${Fetch.path}/x", b: ["${Fetch.size}", "${Other.x}"] };
  assert.deepEqual(referencedSteps(parameters), ["Fetch", "Other"]);
  assert.deepEqual(resolveOutputs(parameters, new Map([["Fetch", { size: 1 }]])), {
    kind: "missing",
    references: ["Fetch.path", "Other.x"],
  });
  // Names that every object has are no outputs.
  assert.equal(resolveOutputs({ a: "${s.constructor}" }, new Map([["s", {}]])).kind, "missing");
});

test("people see outputs that are there, and the other references as they were written", () => {
  const parameters = { a: "${Fetch.path}/x", b: "$${HOME} ${Other.n}", c: "${Fetch.n}" };
  assert.deepEqual(showParameters(parameters, new Map([["Fetch", { path: "/tmp", n: 5 }]])), {
    a: "/tmp/x",
    b: "${HOME} ${Other.n}",
    c: 5,
  });
});

test("texts that are shown are resolved at once", () => {
  assert.equal(resolvePlainText("\\\\${server}", { server: "JOB1" }), "\\\\JOB1");
  assert.equal(resolvePlainText("$${x} ${n}", { n: 5 }), "${x} 5");
});

test("depth is measured no further than it is allowed", () => {
  let value: unknown = 1;
  for (let depth = 0; depth < 32; depth++) value = [value];
  assert.equal(isTooDeep(value), false);
  assert.equal(isTooDeep([value]), true);
  assert.equal(isTooDeep({ a: value }), true);
});

test("a short text cannot grow beyond what a message can carry", () => {
  const long = "x".repeat(REFERENCED_CHARACTERS_MAX / 4);
  const outputs = new Map([["A", { o: long, list: [long] }]]);
  const kind = (text: string) => resolveOutputs({ text }, outputs).kind;
  assert.equal(kind("${A.o}".repeat(4)), "resolved");
  assert.equal(kind("${A.o}".repeat(5)), "too-long");
  assert.equal(kind("${A.list}".repeat(4)), "too-long");
  // A reference that is the whole text counts as often as one inside a longer text.
  const whole = (length: number) =>
    resolveOutputs({ text: "${A.o}" }, new Map([["A", { o: "x".repeat(length) }]])).kind;
  assert.equal(whole(REFERENCED_CHARACTERS_MAX), "resolved");
  assert.equal(whole(REFERENCED_CHARACTERS_MAX + 1), "too-long");
  // More than any text can hold.
  assert.equal(kind("${A.o}".repeat(1000)), "too-long");
  const shown = JSON.stringify(showParameters({ text: "${A.o} ".repeat(1000) }, outputs));
  assert.ok(shown.length < 10_000 && shown.includes("${A.o}"));
  assert.deepEqual(showParameters({ text: "${A.o}" }, new Map([["A", { o: "y" }]])), { text: "y" });
});

test("of parameters that cannot refer to anything, nothing changes, and their characters are counted", () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.oneof(awkward, fc.string()), (value, text) => {
      const parameters: Parameters = { value, list: [1, { text }] };
      assert.equal(mayRefer(parameters), hasDollar(parameters));
      if (!mayRefer(parameters))
        assert.deepEqual(resolveOutputs(parameters, new Map()), { kind: "resolved", parameters });
      assert.equal(countCharacters({ list: [1, { text }, null] }), text.length);
    }),
  );
});

/** By texts alone: the name of a member refers to nothing. */
function hasDollar(value: unknown): boolean {
  let found = false;
  forEachText(value, [], (text) => {
    found ||= text.includes("$");
  });
  return found;
}

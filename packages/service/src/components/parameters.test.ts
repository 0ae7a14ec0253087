import assert from "node:assert/strict";
import { test } from "node:test";
import { isLockstepError } from "@lockstep/protocol/wire";
import { checkParameters, hiddenNames } from "./parameters.ts";
import type { ParameterTable } from "./types.ts";

const table: ParameterTable = {
  name: { type: "text", required: true, description: "" },
  count: { type: "integer", minimum: 1, maximum: 9, default: 3, description: "" },
  flag: { type: "boolean", description: "" },
  secret: { type: "integer", hidden: true, description: "" },
  any: { type: "json", description: "" },
  one: { type: "text", choices: ["a", "b"], description: "" },
  map: { type: "map", description: "" },
  texts: { type: "texts", description: "" },
};
const check = (given: Readonly<Record<string, unknown>>, hidden: readonly string[] = []) =>
  checkParameters(table, given, { component: "C", task: "T", hidden });

function faultsOf(given: Readonly<Record<string, unknown>>, hidden: readonly string[] = []): string[] {
  try {
    check(given, hidden);
  } catch (error) {
    assert.ok(isLockstepError(error, "JOB_PARAMETERS_INVALID"));
    return error.faults.map(({ where, problem }) => `${where} ${problem}`);
  }
  return [];
}

test("defaults are filled in, texts read as numbers and booleans, null counts as absent", () => {
  assert.partialDeepStrictEqual(check({ name: "n", count: "5", flag: "true", any: null, one: null }), {
    name: "n",
    count: 5,
    flag: true,
    any: null,
    one: undefined,
  });
  assert.equal(check({ name: 5 }).name, "5");
  assert.equal(check({ name: "n" }).count, 3);
});

test("all faults are told at once", () => {
  const given = {
    count: 10,
    flag: "yes",
    any: 1,
    one: "c",
    map: { a: 1 },
    texts: "a",
    other: 1,
    toString: 1,
  };
  assert.deepEqual(faultsOf(given), [
    "name is missing",
    "count must be at most 9, not 10",
    'flag must be true or false, not "yes"',
    'one must be one of a, b, not "c"',
    'map must be an object of texts, not {"a":1}',
    'texts must be a list of texts, not "a"',
    "other is not a parameter of C.T",
    "toString is not a parameter of C.T",
  ]);
});

test("a fault shows no value that is hidden by the table or by the step", () => {
  const faults = faultsOf({ name: "n", secret: "p4ssword", count: "p4ssword" }, ["count"]);
  assert.deepEqual(faults, ["count must be a whole number", "secret must be a whole number"]);
  assert.deepEqual(hiddenNames(table, ["count", "secret"]), ["count", "secret"]);
});

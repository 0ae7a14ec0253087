import assert from "node:assert/strict";
import { test } from "node:test";
import type { StepDetail } from "@lockstep/protocol/wire";
import fc from "fast-check";
import { layOutTree } from "./tree.ts";

function step(id: number, onSuccess: number[] = [], onError: number[] = []): StepDetail {
  return {
    id,
    process: 1,
    name: `S${id}`,
    component: "Wait",
    task: "Delay",
    queue: "Q",
    execution: "internal",
    state: "waiting",
    outcome: null,
    priority: 8,
    parameters: {},
    output: {},
    onSuccess,
    onError,
    readyAt: null,
    errors: 0,
    crashes: 0,
    message: "",
    runs: [],
  };
}

function picture(steps: readonly StepDetail[]): string[] {
  return layOutTree(steps).map(
    ({ prefix, step: { name }, onError, pointer }) =>
      `${prefix}${name}${onError ? " !" : ""}${pointer ? " ^" : ""}`,
  );
}

test("a chain goes straight down; only where the way parts it is indented", () => {
  assert.deepEqual(
    picture([step(1, [2, 3], [6]), step(2, [4]), step(3, [4]), step(4, [5]), step(5), step(6, [7]), step(7)]),
    ["S1", "├─ S2", "│  S4", "│  S5", "├─ S3", "│  S4 ^", "└─ S6 !", "   S7"],
  );
});

test("a step that follows in either case is one way, and several beginnings stand side by side", () => {
  assert.deepEqual(picture([step(1, [2], [2]), step(2), step(3)]), ["S1", "S2", "S3"]);
});

test("ten thousand steps in a row need neither room nor stack", () => {
  const count = 10_000;
  const rows = layOutTree(
    Array.from({ length: count }, (_, id) => step(id + 1, id + 1 < count ? [id + 2] : [])),
  );
  assert.equal(rows.length, count);
  assert.ok(rows.every(({ prefix }) => prefix === ""));
});

test("every step stands in the tree exactly once, below one that leads to it", () => {
  const graph = fc.array(fc.array(fc.tuple(fc.nat(11), fc.boolean()), { maxLength: 3 }), {
    minLength: 1,
    maxLength: 12,
  });
  fc.assert(
    fc.property(graph, (ways) => {
      // Ways lead to later steps alone, as in every process.
      const steps = ways.map((own, from) => {
        const targets = own.filter(([to]) => to > from && to < ways.length);
        const to = (good: boolean) => [
          ...new Set(targets.filter((way) => way[1] === good).map(([id]) => id + 1)),
        ];
        return step(from + 1, to(true), to(false));
      });
      const rows = layOutTree(steps);
      const shown = rows.filter(({ pointer }) => !pointer).map((row) => row.step.id);
      assert.deepEqual(
        [...shown].sort((a, b) => a - b),
        steps.map(({ id }) => id),
      );
      const ends = new Set(steps.flatMap(({ onSuccess, onError }) => [...onSuccess, ...onError]));
      rows.forEach((row, index) => {
        const above = new Set(
          rows.slice(0, index).flatMap((each) => [...each.step.onSuccess, ...each.step.onError]),
        );
        if (ends.has(row.step.id)) assert.ok(above.has(row.step.id));
      });
    }),
  );
});

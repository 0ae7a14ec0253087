import assert from "node:assert/strict";
import { suite, test } from "node:test";
import fc from "fast-check";
import { type JobLimit, JobLimitUse, type LimitedJobStep } from "./job-limits.ts";

const run = (component: string, task: string, exclusiveObject: string | null = null): LimitedJobStep => ({
  component,
  task,
  exclusiveObject,
});

suite("limits", () => {
  test("a task's own limit, its component's, and none", () => {
    const limits: JobLimit[] = [
      { component: "A", task: "", maxInstance: 2 },
      { component: "A", task: "two", maxInstance: 1 },
    ];
    const use = new JobLimitUse(limits, [run("A", "one"), run("A", "one")]);
    assert.equal(use.admits(run("A", "one")), false);
    assert.equal(use.admits(run("A", "two")), true, "its own limit stands in place of the component's");
    use.add(run("A", "two"));
    assert.equal(use.admits(run("A", "two")), false);
    assert.equal(use.admits(run("B", "any")), true);
  });

  test("-1 of a task keeps the whole component away, -1 of a component makes it sequential", () => {
    const alone = new JobLimitUse([{ component: "A", task: "alone", maxInstance: -1 }]);
    assert.equal(alone.admits(run("A", "alone")), true);
    alone.add(run("A", "other"));
    assert.equal(alone.admits(run("A", "alone")), false);
    assert.equal(alone.admits(run("A", "other")), true);
    const beside = new JobLimitUse([{ component: "A", task: "alone", maxInstance: -1 }], [run("A", "alone")]);
    assert.equal(beside.admits(run("A", "other")), false);
    const serial = new JobLimitUse([{ component: "A", task: "", maxInstance: -1 }], [run("A", "one")]);
    assert.equal(serial.admits(run("A", "two")), false);
  });

  test("one step at a time for an object, whatever its component", () => {
    const use = new JobLimitUse([], [run("A", "one", "object")]);
    assert.equal(use.admits(run("B", "two", "object")), false);
    assert.equal(use.admits(run("B", "two", "another")), true);
  });

  test("what is admitted one by one never breaks a limit, and what is full is what is not admitted", () => {
    const names = fc.constantFrom("A", "B");
    const tasks = fc.constantFrom("x", "y", "z");
    const limit = fc.record({
      component: names,
      task: fc.oneof(fc.constant(""), tasks),
      maxInstance: fc.integer({ min: -1, max: 3 }),
    });
    const limits = fc.uniqueArray(limit, {
      selector: ({ component, task }) => `${component}/${task}`,
      maxLength: 6,
    });
    const steps = fc.array(
      fc.record({ component: names, task: tasks, exclusiveObject: fc.option(fc.constantFrom("o", "p")) }),
      { maxLength: 30 },
    );
    fc.assert(
      fc.property(limits, steps, (limited, candidates) => {
        const use = new JobLimitUse(limited);
        const running: LimitedJobStep[] = [];
        for (const candidate of candidates) {
          const full = use.full();
          const named = (pairs: readonly (readonly [string, string])[]) =>
            pairs.some(([component, task]) => component === candidate.component && task === candidate.task);
          const certain =
            (candidate.exclusiveObject !== null && full.objects.includes(candidate.exclusiveObject)) ||
            full.components.includes(candidate.component) ||
            named(full.tasks) ||
            (full.shared.includes(candidate.component) && !named(full.own));
          assert.equal(use.admits(candidate), !certain);
          if (certain) continue;
          use.add(candidate);
          running.push(candidate);
        }
        for (const { component, task, maxInstance } of limited) {
          const own = running.filter(
            (step) => step.component === component && (task === "" || step.task === task),
          );
          const all = running.filter((step) => step.component === component);
          if (maxInstance === -1 && own.length > 0) assert.equal(all.length, 1);
          if (maxInstance > 0 && task !== "") assert.ok(own.length <= maxInstance);
          if (maxInstance > 0 && task === "") {
            const named = limited.filter(
              (each) => each.component === component && each.task !== "" && each.maxInstance !== 0,
            );
            const shared = all.filter((step) => !named.some((each) => each.task === step.task));
            assert.ok(shared.length <= maxInstance);
          }
        }
        for (const object of ["o", "p"])
          assert.ok(running.filter((step) => step.exclusiveObject === object).length <= 1);
      }),
    );
  });
});

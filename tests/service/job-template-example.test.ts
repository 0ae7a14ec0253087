/** The template of the reference is one that the hub takes and whose steps our components accept. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { test } from "node:test";
import { checkTemplate, expandTemplate, resolveOutputs } from "@lockstep/core";
import { parseTemplateFile } from "../../packages/protocol/src/job-template-file.ts";
import { findTask } from "../../packages/service/src/components/catalog.ts";
import { checkParameters } from "../../packages/service/src/components/parameters.ts";

test("the example of the template reference runs on the components that there are", async () => {
  const page = readFileSync(resolve(import.meta.dirname, "../../docs/reference/job-template.md"), "utf8");
  const text = /^```toml\n([\s\S]*?)^```$/m.exec(page)?.[1] ?? "";
  const template = parseTemplateFile(text, "nightly.toml");
  assert.deepEqual(checkTemplate(template), []);
  const expanded = expandTemplate(template, { day: "2026-01-31", password: "secret" });
  assert.ok(!("faults" in expanded));
  assert.equal(expanded.steps.length, 3);
  for (const step of expanded.steps) {
    const resolved = resolveOutputs(step.parameters, new Map([["Fetch", { file: "/tmp/export" }]]));
    assert.equal(resolved.kind, "resolved");
    if (resolved.kind !== "resolved") continue;
    const task = await findTask(step.component, step.task);
    const { component, hidden } = step;
    checkParameters(task.parameters, resolved.parameters, { component, task: step.task, hidden });
    assert.ok(task.execution === "either" || task.execution === step.execution, step.name);
  }
});

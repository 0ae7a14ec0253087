import assert from "node:assert/strict";
import { test } from "node:test";
import { checkResourceSettings } from "@lockstep/cluster";
import { DEFAULT_RESOURCE_POLICY, type ResourceSetting } from "@lockstep/core";
import { adjustResources } from "../../packages/cli/src/cluster/definition-options.ts";

const service = { name: "service", type: "generic-service", settings: { program: "/bin/true" } };

function settingsWith(...set: string[]): Record<string, ResourceSetting> {
  const [resource] = adjustResources([service], { set });
  return resource?.settings as Record<string, ResourceSetting>;
}

const faults = (settings: Record<string, ResourceSetting>) =>
  checkResourceSettings({
    name: "service",
    type: "generic-service",
    settings,
    policy: DEFAULT_RESOURCE_POLICY,
  });

test("a setting that is a text may look like a number, and one that is a number is one", () => {
  const settings = settingsWith(
    "service.probeTcp=8080",
    "service.readyMs=50",
    'service.arguments=[8080, "--all"]',
  );
  assert.deepEqual(settings, {
    program: "/bin/true",
    probeTcp: 8080,
    readyMs: 50,
    arguments: ["8080", "--all"],
  });
  assert.deepEqual(faults(settings), []);
  assert.deepEqual(faults(settingsWith("service.probeTcp=127.0.0.1:8080", "service.arguments=8080")), []);
  assert.match(faults(settingsWith("service.probeTcp=99999")).join(), /probeTcp: 99999 is not of the form/);
  assert.match(faults(settingsWith("service.readyMs=soon")).join(), /readyMs: must be a whole number/);
});

test("no digit of a value is lost", () => {
  const values = settingsWith(
    "service.a=007",
    "service.b=1.10",
    "service.c=-3",
    "service.d=12345678901234567890",
  );
  const { program: _, ...read } = values;
  assert.deepEqual(read, { a: "007", b: "1.10", c: -3, d: "12345678901234567890" });
});

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { startTestHub } from "../hub/support/test-hub.ts";
import { usePostgres } from "../support/postgres.ts";
import { logOf, servers, startJob, startService, temporaryDirectory, untilEnded } from "./service-world.ts";

const server = usePostgres();

test("ComponentDebugMode counts inside and outside", async (t) => {
  const hub = await startTestHub(t, server);
  const service = await startService(t, hub, { queues: ["\\A"], service: "ComponentDebugMode = true" });
  const steps = (["internal", "external"] as const).map((execution) => ({
    name: execution,
    component: "Command",
    task: "Run",
    queue: "\\A",
    execution,
    parameters: { program: "/bin/true" },
  }));
  const detail = await untilEnded(hub, await startJob(hub, "p", steps));
  assert.equal(detail.process.state, "finished");
  assert.equal(await service.stop(), 0);
  const logs = readdirSync(join(service.directory, "JobLogs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".log"))
    .map((name) => readFileSync(join(service.directory, "JobLogs", name), "utf8"));
  assert.equal(logs.length, 2);
  for (const log of logs) assert.match(log, /Command\.Run begins: program=\/bin\/true[\s\S]*with success/);
});

test("steps run inside and outside, in the order that was declared, with outputs handed on", async (t) => {
  const hub = await startTestHub(t, server);
  const service = await startService(t, hub, { queues: ["\\A", "\\B"] });
  const trace = join(temporaryDirectory(t), "trace");
  const append = (word: string) => ({ shell: "sh", script: `echo ${word} >> ${trace}` });
  const id = await startJob(hub, "order", [
    {
      name: "first",
      component: "Command",
      task: "Script",
      queue: "\\A",
      parameters: append("first"),
      onSuccess: ["wait"],
    },
    {
      name: "wait",
      component: "Wait",
      task: "Delay",
      queue: "\\B",
      parameters: { seconds: 0 },
      onSuccess: ["second"],
    },
    {
      name: "second",
      component: "Command",
      task: "Script",
      queue: "\\B",
      parameters: append("second"),
      onSuccess: ["fails"],
    },
    {
      name: "fails",
      component: "Command",
      task: "Run",
      queue: "\\A",
      parameters: { program: "/bin/false" },
      onError: ["after"],
      onSuccess: ["never"],
    },
    { name: "after", component: "Command", task: "Script", queue: "\\A", parameters: append("after") },
    { name: "never", component: "Command", task: "Script", queue: "\\A", parameters: append("never") },
  ]);
  const detail = await untilEnded(hub, id);
  assert.deepEqual(
    detail.steps.map(({ name, outcome }) => [name, outcome]),
    [
      ["first", "success"],
      ["wait", "success"],
      ["second", "success"],
      ["fails", "error"],
      ["after", "success"],
      ["never", "skipped"],
    ],
    JSON.stringify(detail.steps.map(({ name, message }) => [name, message])) + logOf(service.directory),
  );
  assert.equal(readFileSync(trace, "utf8"), "first\nsecond\nafter\n");
  assert.deepEqual((await servers(hub)).map(({ queue, state }) => [queue, state]).sort(), [
    ["\\A", "serving"],
    ["\\B", "serving"],
  ]);
  assert.equal(await service.stop(), 0);
});

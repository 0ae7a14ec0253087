import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { endServices, GUARD_MARK } from "./service-group.ts";

const hasThreads =
  process.platform === "linux" &&
  spawnSync("perl", ["-Mthreads", "-e", "1"], { timeout: 60_000 }).status === 0;
const EXIT_OF_ONE_THREAD = process.arch === "arm64" ? 93 : 60;

const stateOf = (pid: number) => {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  return stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3);
};

test("a service whose first thread is dead while another runs is ended like any other", {
  skip: !hasThreads && "needs /proc, and perl with threads",
}, async () => {
  const mark = randomUUID();
  const script = `threads->create(sub { sleep 600 }); syscall(${EXIT_OF_ONE_THREAD}, 0);`;
  const service = spawn("perl", ["-Mthreads", "-e", script], {
    detached: true,
    stdio: "ignore",
    env: { ...process.env, [GUARD_MARK]: mark },
  });
  const ended = once(service, "exit");
  const { pid = 0 } = service;
  while (stateOf(pid) !== "Z") await sleep(5);
  assert.equal(readdirSync(`/proc/${pid}/task`).length, 2);
  // No group has this number: known by its mark alone, as what has left its group.
  await endServices([{ group: 2 ** 22, mark }]);
  assert.deepEqual((await ended)[1], "SIGKILL");
});

import assert from "node:assert/strict";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { type AgentEvent, type AgentOptions, install, runAgent, update } from "@lockstep/updater";
import { makeWorld, put, revisionOf, stateOf, treeOf, type World } from "./world.ts";

const targets = ["role:A"];

/** An agent in the background, its events, and a way to wait for one. */
function startAgent(directories: readonly string[], more: Partial<AgentOptions> = {}) {
  const controller = new AbortController();
  const events: AgentEvent[] = [];
  let changed: () => void = () => {};
  const waits: number[] = [];
  const done = runAgent({
    access: { environment: {} },
    selfUpdate: false,
    directories,
    follow: false,
    verifyEveryMs: 0,
    signal: controller.signal,
    random: { next: () => 0.5, uuid: () => "", hex: () => "" },
    // Pauses are noted and hardly taken.
    clock: {
      now: () => Date.now(),
      monotonic: () => performance.now(),
      sleep: async (ms) => {
        waits.push(ms);
        await new Promise((resolve) => setTimeout(resolve, 5));
      },
    },
    onEvent: (event) => {
      if (event.kind === "progress") return;
      events.push(event);
      changed();
    },
    ...more,
  });
  const until = async (matches: (event: AgentEvent) => boolean): Promise<AgentEvent> => {
    while (true) {
      const found = events.find(matches);
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => {
        changed = resolve;
      });
    }
  };
  const stop = async () => {
    controller.abort();
    await done;
  };
  return { events, waits, until, stop, controller, done };
}

async function installIn(world: World, name: string): Promise<string> {
  const directory = join(world.root, name);
  await install(directory, world.installOptions(["A"]));
  return directory;
}

test("an agent keeps several installations in step, told at once or by asking", async (t) => {
  for (const follow of [true, false]) {
    const world = await makeWorld(t);
    world.hub.publish({ file: { content: "1", targets } });
    const directories = [await installIn(world, "a"), await installIn(world, "b")];
    const agent = startAgent(directories, { follow });
    for (const directory of directories)
      await agent.until((event) => event.kind === "in-step" && event.directory === directory);
    for (const content of ["2", "3"]) {
      const revision = world.hub.publish({ file: { content, targets } });
      for (const directory of directories) {
        await agent.until((e) => e.kind === "updated" && e.directory === directory && e.to === revision);
        assert.deepEqual(treeOf(directory), { file: content });
      }
    }
    await agent.stop();
    assert.equal(agent.events.filter((event) => event.kind === "stopped").length, 2);
    assert.deepEqual(
      agent.events.filter((event) => event.kind === "failed"),
      [],
    );
  }
});

test("a hub of an older version that refuses the reports of a newer agent keeps it from no update", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ file: { content: "1", targets } });
  const directory = await installIn(world, "a");
  const { id } = stateOf(directory);
  assert.equal(world.hub.reports.get(id)?.revision, 1, "the control: it takes what it knows");
  const log = join(directory, "update.log");
  writeFileSync(log, readFileSync(log, "utf8").replace('"action":"add"', '"action":"remove"'));
  world.hub.unknownInReports = ["logAltered"];
  const agent = startAgent([directory]);
  for (const content of ["2", "3"]) {
    const revision = world.hub.publish({ file: { content, targets } });
    await agent.until((event) => event.kind === "updated" && event.to === revision);
    assert.deepEqual(treeOf(directory), { file: content });
  }
  await agent.stop();
  assert.ok(world.hub.refusedReports >= 2, "it tried to tell each time");
  assert.deepEqual(
    agent.events.filter(({ kind }) => kind === "failed"),
    [],
  );
  // The hub is updated: the next report tells what it missed.
  world.hub.unknownInReports = [];
  world.hub.publish({ file: { content: "4", targets } });
  await update(directory, world.options());
  assert.deepEqual(
    [world.hub.reports.get(id)?.revision, world.hub.reports.get(id)?.logAltered?.file],
    [4, "update.log"],
  );
});

test("a hub that is followed is asked once and then holds its answer back", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ file: { content: "1", targets } });
  const agent = startAgent([await installIn(world, "a")], { follow: true });
  await agent.until((event) => event.kind === "in-step");
  world.hub.requests.length = 0;
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.ok(world.hub.requests.length <= 2, world.hub.requests.join());
  await agent.stop();
});

test("errors slow the polls down, Retry-After is obeyed, and a good answer ends that", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ file: { content: "1", targets } });
  const directory = await installIn(world, "a");
  world.hub.faults.refuse = { status: 503, headers: { "retry-after": "77" }, times: 1 };
  const agent = startAgent([directory]);
  await agent.until((event) => event.kind === "failed");
  await agent.until((event) => event.kind === "in-step");
  world.hub.faults.refuse = { status: 502, times: 3, match: /revision$/ };
  while (agent.events.filter((event) => event.kind === "failed").length < 4)
    await new Promise((resolve) => setTimeout(resolve, 5));
  const pauses = agent.events.flatMap((event) => (event.kind === "failed" ? [event.retryMs] : []));
  assert.ok((pauses[0] ?? 0) >= 77_000, `${pauses[0]}`);
  assert.deepEqual(pauses.slice(1), [3750, 7500, 15_000]);
  await agent.stop();
});

test("a revision that failed three times is left alone until there is another one", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ file: { content: "1", targets } });
  const directory = await installIn(world, "a");
  const agent = startAgent([directory]);
  await agent.until((event) => event.kind === "in-step");
  world.hub.faults.corrupt = (_, bytes) => Buffer.concat([bytes, Buffer.from("x")]);
  world.hub.publish({ file: { content: "broken", targets } });
  await agent.until((event) => event.kind === "quarantined");
  assert.equal(agent.events.filter((event) => event.kind === "failed").length, 3);
  const bundles = () => world.hub.requests.filter((line) => line.includes("bundle")).length;
  const before = bundles();
  const polls = world.hub.requests.length;
  while (world.hub.requests.length < polls + 20) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(bundles(), before, "a quarantined revision was fetched again");
  await agent.stop();

  // It is remembered over a restart of the agent.
  const second = startAgent([directory]);
  await second.until((event) => event.kind === "quarantined");
  assert.equal(bundles(), before);
  world.hub.faults.corrupt = (_, bytes) => bytes;
  world.hub.publish({ file: { content: "good", targets } });
  await second.until((event) => event.kind === "updated");
  assert.deepEqual(treeOf(directory), { file: "good" });
  await second.stop();
});

test("an installation that cannot be kept does not disturb the others, and comes back when it can", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ file: { content: "1", targets } });
  const good = await installIn(world, "good");
  const state = join(good, "InstallState.config");
  const bad = await installIn(world, "bad");
  const kept = await import("node:fs").then((fs) => fs.readFileSync(join(bad, "InstallState.config")));
  rmSync(join(bad, "InstallState.config"));
  const agent = startAgent([bad, good]);
  await agent.until((event) => event.kind === "failed" && event.directory === bad);
  world.hub.publish({ file: { content: "2", targets } });
  await agent.until((event) => event.kind === "updated" && event.directory === good);
  writeFileSync(join(bad, "InstallState.config"), kept);
  await agent.until((event) => event.kind === "updated" && event.directory === bad);
  assert.deepEqual([treeOf(bad), treeOf(good)], [{ file: "2" }, { file: "2" }]);
  assert.ok(state !== "");
  await agent.stop();
});

test("switched off, nothing happens; switched on again, the update follows", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ file: { content: "1", targets } });
  const directory = await installIn(world, "a");
  world.hub.autoUpdate = false;
  const agent = startAgent([directory], { follow: true });
  await agent.until((event) => event.kind === "in-step");
  world.hub.publish({ file: { content: "2", targets } });
  await agent.until((event) => event.kind === "disabled");
  const polls = world.hub.requests.length;
  while (world.hub.requests.length < polls + 10) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(revisionOf(directory), 1);
  assert.equal(agent.events.filter((event) => event.kind === "disabled").length, 1);
  assert.ok(!agent.events.some((event) => event.kind === "updating"), "it said that it was updating");
  world.hub.autoUpdate = true;
  await agent.until((event) => event.kind === "updated");
  await agent.stop();
});

test("the stop signal ends an agent in the middle of a fetch, with the installation as it was", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ file: { content: "1", targets } });
  const directory = await installIn(world, "a");
  const agent = startAgent([directory]);
  await agent.until((event) => event.kind === "in-step");
  world.hub.faults.hold = (path) => {
    if (path !== "/v1/bundle") return undefined;
    agent.controller.abort();
    return new Promise<void>(() => {});
  };
  world.hub.publish({ file: { content: "2", targets } });
  await agent.done;
  assert.deepEqual(treeOf(directory), { file: "1" });
  assert.deepEqual(
    agent.events.filter((event) => event.kind === "failed"),
    [],
  );
});

test("an agent finds damage by itself and mends it", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ file: { content: "1", targets }, other: { content: "o", targets } });
  const directory = await installIn(world, "a");
  put(directory, "file", "X");
  const agent = startAgent([directory], { verifyEveryMs: 1 });
  const event = await agent.until((each) => each.kind === "damaged");
  assert.deepEqual(event, { kind: "damaged", directory, files: 1, repaired: true });
  while (treeOf(directory).file !== "1") await new Promise((resolve) => setTimeout(resolve, 5));
  await agent.stop();
});

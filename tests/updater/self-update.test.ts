import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { install, type ProgressEvent, readLog, update } from "@lockstep/updater";
import { makeArchive, ownUpdater } from "./archives.ts";
import { makeWorld, revisionOf, treeOf, type World } from "./world.ts";

const targets = ["role:A"];
const release = (content: string) => ({ file: { content, targets } });
const notices = (events: readonly ProgressEvent[]) =>
  events.flatMap((e) => (e.kind === "notice" ? [e.message] : []));

/** The updater of this checkout, as if it were another version: it says so in each report. */
async function updaterOf(version: string): Promise<string> {
  const text = Buffer.from(await ownUpdater()).toString();
  const changed = text.replace('"0.1.0"', JSON.stringify(version));
  assert.notEqual(changed, text);
  return changed;
}

const versionIn = (world: World) => [...world.hub.reports.values()].at(-1)?.updaterVersion;

test("an update runs in the updater of the revision that it goes to, older or newer", async (t) => {
  const world = await makeWorld(t);
  const directory = join(world.root, "a");
  const archive = async (version: string) => ({
    archive: await makeArchive({ version, updater: await updaterOf(version) }),
  });
  world.hub.publish(release("1"), await archive("0.0.9"));
  await install(directory, world.installOptions(["A"], { selfUpdate: true }));
  assert.equal(versionIn(world), "0.0.9");
  world.hub.publish(release("2"), await archive("2.0.0"));
  await update(directory, world.options({ selfUpdate: true }));
  assert.equal(versionIn(world), "2.0.0");
  assert.deepEqual(treeOf(directory), { file: "2" });
  assert.equal(readdirSync(join(directory, ".lockstep/updater")).length, 1, "the older copy is still there");
  assert.ok(
    world.events.some((event) => event.kind === "phase" && event.phase === "switch"),
    "no progress came over",
  );
  const others = notices(world.events).filter((notice) => !notice.includes("at first sight"));
  assert.deepEqual(others, []);
});

test("an unchanged archive is fetched and tested once", async (t) => {
  const world = await makeWorld(t);
  const directory = join(world.root, "a");
  const archive = await makeArchive({});
  world.hub.publish(release("1"), { archive });
  await install(directory, world.installOptions(["A"], { selfUpdate: true }));
  world.hub.publish(release("2"), { archive });
  world.hub.requests.length = 0;
  await update(directory, world.options({ selfUpdate: true }));
  assert.deepEqual(
    world.hub.requests.filter((line) => line.includes("/files/")),
    [],
  );
});

test("C9: an updater that fails its self-test is not used, and that is said", async (t) => {
  const world = await makeWorld(t);
  const directory = join(world.root, "a");
  const bad = {
    crashes: "process.exit(3)",
    silent: "",
    broken: "import {",
    lies: "console.log('self-test failed')",
    // Its child would hold the output open for ever.
    clings:
      "import { spawn } from 'node:child_process'; spawn('sleep', ['1000'], { stdio: 'inherit' }).unref(); process.exit(1)",
    floods: "for (let i = 0; i < 300; i++) console.log('x'.repeat(100_000)); process.exitCode = 1",
    spies: "console.log('self-test ' + (process.env.LOCKSTEP_TOKEN === undefined ? 'went wrong' : 'passed'))",
  };
  process.env.LOCKSTEP_TOKEN = "secret";
  t.after(() => {
    delete process.env.LOCKSTEP_TOKEN;
  });
  for (const [name, updater] of Object.entries(bad)) {
    const revision = world.hub.publish(release(name), {
      archive: await makeArchive({ updater, version: "9.9.9" }),
    });
    const access = { environment: {}, url: world.hub.url };
    if (revision === 1) await install(directory, world.installOptions(["A"], { selfUpdate: true, access }));
    else await update(directory, world.options({ selfUpdate: true }));
    assert.match(notices(world.events).at(-1) ?? "", /9\.9\.9 of Update\.zip failed its self-test/);
    assert.deepEqual(treeOf(directory), { file: name });
    assert.equal(versionIn(world), "0.1.0");
  }
});

test("C9: the control: a bad updater that gets through its self-test stops the update, and the next good one goes on", async (t) => {
  const world = await makeWorld(t);
  const directory = join(world.root, "a");
  world.hub.publish(release("1"));
  await install(directory, world.installOptions(["A"]));
  // Each was refused above for what it does; here it does so only after the test.
  for (const [number, body] of [
    "process.exit(3)",
    "throw new Error('bad')",
    "process.kill(process.pid, 9)",
  ].entries()) {
    const updater = `if (process.argv[2] === "self-test") console.log("self-test passed"); else ${body}`;
    world.hub.publish(release(`bad ${number}`), {
      archive: await makeArchive({ updater, version: "9.9.9" }),
    });
    await assert.rejects(
      update(directory, world.options({ selfUpdate: true })),
      { code: "INTERRUPTED" },
      body,
    );
    assert.deepEqual(treeOf(directory), { file: "1" }, body);
    assert.equal(revisionOf(directory), 1);
  }
  // Whoever looks for updates is still the one that was installed: it takes the next updater, and that does the work.
  world.hub.publish(release("good"), { archive: await makeArchive({}) });
  await update(directory, world.options({ selfUpdate: true }));
  assert.deepEqual(treeOf(directory), { file: "good" });
});

test("an archive that is not what it says is not used, and nothing of it is kept", async (t) => {
  const world = await makeWorld(t);
  const directory = join(world.root, "a");
  world.hub.publish(release("0"));
  await install(directory, world.installOptions(["A"]));
  const plugins = { "x.update.mjs": "export const probe = () => true;" };
  const digestOf = (text: string) => text.replace(/"sha256": "[0-9a-f]{4}/, '"sha256": "0000');
  const archives: Record<string, Buffer> = {
    "no zip": Buffer.from("no zip at all"),
    cut: (await makeArchive({ plugins })).subarray(0, 5000),
    "wrong digest": await makeArchive({ plugins, describe: digestOf }),
    smuggled: await makeArchive({ plugins, smuggled: { "y.update.mjs": "evil" } }),
    escaping: await makeArchive({ plugins: { "../../evil.update.mjs": "evil" } }),
    "without updater": await makeArchive({ describe: (text) => text.replaceAll("updater.mjs", "other.mjs") }),
  };
  let number = 0;
  for (const [name, archive] of Object.entries(archives)) {
    world.hub.publish(release(String(++number)), { archive });
    await update(directory, world.options({ selfUpdate: true }));
    assert.match(notices(world.events).at(-1) ?? "", /Update\.zip of revision \d+ cannot be used/, name);
    assert.deepEqual(treeOf(directory), { file: String(number) }, name);
    assert.equal(
      existsSync(join(directory, "evil.update.mjs")) || existsSync(join(world.root, "evil.update.mjs")),
      false,
    );
  }
});

test("a copy that was damaged on the disk is fetched again before it runs", async (t) => {
  const world = await makeWorld(t);
  const directory = join(world.root, "a");
  const archive = await makeArchive({});
  world.hub.publish(release("1"), { archive });
  await install(directory, world.installOptions(["A"], { selfUpdate: true }));
  const copies = join(directory, ".lockstep/updater");
  const program = join(copies, readdirSync(copies)[0] ?? "", "updater.mjs");
  writeFileSync(program, "process.exit(0)");
  world.hub.publish(release("2"), { archive });
  await update(directory, world.options({ selfUpdate: true }));
  assert.equal(revisionOf(directory), 2);
  assert.deepEqual(readFileSync(program), Buffer.from(await ownUpdater()));
});

test("an interruption reaches the other process, and its error comes back as it was", async (t) => {
  const world = await makeWorld(t);
  const directory = join(world.root, "a");
  const archive = await makeArchive({});
  world.hub.publish(release("1"), { archive });
  await install(directory, world.installOptions(["A"], { selfUpdate: true }));
  world.hub.publish(release("2"), { archive });
  const controller = new AbortController();
  world.hub.faults.hold = (path) => {
    if (path !== "/v1/bundle") return undefined;
    controller.abort();
    return new Promise<void>(() => {});
  };
  await assert.rejects(update(directory, world.options({ selfUpdate: true, signal: controller.signal })), {
    code: "INTERRUPTED",
  });
  assert.deepEqual(treeOf(directory), { file: "1" });
  const end = (await readLog(directory)).at(-1);
  assert.deepEqual([end?.action, end?.result], ["end", "failed"]);
});

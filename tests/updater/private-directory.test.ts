import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { formatLock } from "@lockstep/core";
import { hostName } from "@lockstep/platform";
import { install, launch, update, verify } from "@lockstep/updater";
import { installationPaths } from "../../packages/updater/src/layout.ts";
import { makeWorld, treeOf, type World } from "./world.ts";

const targets = ["role:A"];
const NOBODY = 65534;
const rootOnly = process.geteuid?.() === 0 ? {} : { skip: "only root can plant another user's directory" };

async function installed(world: World): Promise<string> {
  world.hub.publish({ file: { content: "1", targets } });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  world.hub.publish({ file: { content: "2", targets } });
  return directory;
}

const notPrivate = { code: "INSTALLATION_NOT_PRIVATE" };

test("a private directory that is a link, or writable for others, is refused before anything is written", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ file: { content: "1", targets } });
  const outside = join(world.root, "outside");
  mkdirSync(outside);
  const linked = join(world.root, "linked");
  mkdirSync(linked);
  symlinkSync(outside, join(linked, ".lockstep"));
  await assert.rejects(install(linked, world.installOptions(["A"])), notPrivate);
  assert.deepEqual(readdirSync(outside), []);

  const open = join(world.root, "open");
  mkdirSync(join(open, ".lockstep"), { recursive: true });
  chmodSync(join(open, ".lockstep"), 0o777);
  await assert.rejects(install(open, world.installOptions(["A"])), notPrivate);
  assert.deepEqual(readdirSync(join(open, ".lockstep")), []);
});

test(
  "a private directory of another user is refused, so that nobody can plant an updater",
  rootOnly,
  async (t) => {
    const world = await makeWorld(t);
    world.hub.publish({ file: { content: "1", targets } });
    const directory = join(world.root, "planted");
    mkdirSync(join(directory, ".lockstep", "updater"), { recursive: true, mode: 0o700 });
    chownSync(join(directory, ".lockstep"), NOBODY, NOBODY);
    await assert.rejects(install(directory, world.installOptions(["A"])), notPrivate);
  },
);

test("update.log as a link leads no write elsewhere, and as a pipe keeps nobody waiting", async (t) => {
  const world = await makeWorld(t);
  const directory = await installed(world);
  const victim = join(world.root, "victim");
  writeFileSync(victim, "precious");
  execFileSync("rm", [join(directory, "update.log")]);
  symlinkSync(victim, join(directory, "update.log"));
  await assert.rejects(update(directory, world.options()), notPrivate);
  assert.equal(readFileSync(victim, "utf8"), "precious");
  execFileSync("rm", [join(directory, "update.log")]);
  execFileSync("mkfifo", [join(directory, "update.log")]);
  await assert.rejects(update(directory, world.options()), notPrivate);
  assert.deepEqual(treeOf(directory), { file: "1" });
});

test(
  "who may not look into the private directory starts nothing from an interrupted update",
  rootOnly,
  async (t) => {
    const world = await makeWorld(t);
    const directory = await installed(world);
    const { pid } = spawnSync(process.execPath, ["-e", ""]);
    const lock = formatLock({
      token: "dead",
      host: hostName(),
      createdAt: Date.now(),
      renewedAt: Date.now(),
      holders: [{ pid, start: null, purpose: "updater" }],
    });
    writeFileSync(installationPaths(directory).lock, lock, { mode: 0o644 });
    chmodSync(world.root, 0o755);
    const started = join(world.root, "started");
    const start = () =>
      launch(directory, {
        ...world.options(),
        program: process.execPath,
        args: ["-e", `require("fs").writeFileSync(${JSON.stringify(started)}, "")`],
        say: () => {},
        askPostpone: null,
      });
    process.seteuid?.(NOBODY);
    try {
      await assert.rejects(start(), { code: "INSTALLATION_NOT_WRITABLE" });
    } finally {
      process.seteuid?.(0);
    }
    assert.equal(existsSync(started), false);
    // Without a lock there is no interrupted update, and looking at the files needs no permission to write.
    execFileSync("rm", [installationPaths(directory).lock]);
    process.seteuid?.(NOBODY);
    try {
      assert.deepEqual((await verify(directory, world.options())).damages, []);
    } finally {
      process.seteuid?.(0);
    }
  },
);

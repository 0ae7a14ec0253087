import assert from "node:assert/strict";
import { test } from "node:test";
import { DEFAULT_VIRTUAL_SERVER, type PushedConfig, type VirtualServerDefinition } from "@lockstep/core";
import { Prng, SimCrash, SimDisk } from "@lockstep/testing";
import { hashOf } from "./checkpoint-scan.ts";
import { type ConfigPullOptions, pullConfig } from "./config-pull.ts";

const PATH = "/etc/app/app.toml";

function machine(content: string | null, mode = 0o640) {
  const disk = new SimDisk();
  for (const path of ["/etc", "/etc/app", "/private"]) disk.makeDirectory(path, 0o755);
  if (content !== null) disk.writeFile(PATH, Buffer.from(content), mode);
  disk.settle();
  const options: ConfigPullOptions = {
    ...{ disk, memory: "/private/push", policy: "accept" },
    adopt: () => {},
  };
  return { disk, options };
}

function pushOf(text: string, revision = 5) {
  const config: PushedConfig = { path: PATH, hash: hashOf(Buffer.from(text)), text };
  const definition: VirtualServerDefinition = {
    ...DEFAULT_VIRTUAL_SERVER,
    name: "jobs",
    config: { path: PATH, hash: config.hash },
  };
  return { definition, pushed: { revision, config } };
}

const read = (disk: SimDisk, path = PATH) => Buffer.from(disk.readFile(path)).toString();

test("a push is laid down under the unchanged name, with its mode, and the file before is kept (S10)", async () => {
  const { disk, options } = machine("old");
  const { definition, pushed } = pushOf("new");
  assert.deepEqual(await pullConfig(options, definition, pushed), {
    kind: "written",
    before: hashOf(Buffer.from("old")),
  });
  assert.equal(read(disk), "new");
  assert.equal(disk.lstat(PATH)?.mode, 0o640);
  assert.equal(read(disk, `${PATH}.previous`), "old");
  assert.deepEqual(await pullConfig(options, definition, pushed), { kind: "equal" });
});

test("what is changed after a push stays until the next one, and is told (S11)", async () => {
  const { disk, options } = machine(null);
  const { definition, pushed } = pushOf("new");
  assert.deepEqual(await pullConfig(options, definition, pushed), { kind: "written", before: null });
  disk.unlink(PATH);
  disk.writeFile(PATH, Buffer.from("mine"), 0o600);
  assert.equal((await pullConfig(options, definition, pushed)).kind, "left");
  assert.equal(read(disk), "mine");
  await pullConfig(options, definition, { ...pushed, revision: 6 });
  assert.equal(read(disk), "new");
  assert.equal(read(disk, `${PATH}.previous`), "mine");
});

test("a node that reports only, a half-written push, a damaged one and a link change nothing", async () => {
  const { disk, options } = machine("old");
  const { definition, pushed } = pushOf("new");
  assert.equal((await pullConfig({ ...options, policy: "report" }, definition, pushed)).kind, "left");
  assert.equal((await pullConfig(options, definition, pushOf("other").pushed)).kind, "none");
  const damaged = { ...pushed, config: { ...pushed.config, text: "nwe" } };
  assert.equal((await pullConfig(options, definition, damaged)).kind, "left");
  assert.equal((await pullConfig(options, { ...definition, config: null }, pushed)).kind, "none");
  assert.equal(read(disk), "old");
  disk.unlink(PATH);
  disk.symlink("/etc/other", PATH);
  assert.equal((await pullConfig(options, definition, pushed)).kind, "left");
  assert.equal(disk.readLink(PATH), "/etc/other");
});

test("dying at any call, or losing the power then, leaves the file wholly old or wholly new, and the next try ends it", async () => {
  const { definition, pushed } = pushOf("new");
  for (let call = 1; ; call++) {
    const { disk, options } = machine("old");
    disk.plan({ call, dies: true });
    let hasDied = false;
    try {
      await pullConfig(options, definition, pushed);
    } catch (error) {
      if (!(error instanceof SimCrash)) throw error;
      hasDied = true;
    }
    if (call % 2 === 0) disk.cutPower(new Prng(call));
    else disk.kill();
    assert.ok(["old", "new"].includes(read(disk)), `call ${call}: ${read(disk)}`);
    if (!hasDied) {
      assert.equal(read(disk), "new");
      assert.ok(call > 10);
      break;
    }
    await pullConfig(options, definition, pushed);
    assert.equal(read(disk), "new");
    assert.equal(read(disk, `${PATH}.previous`), "old");
  }
});

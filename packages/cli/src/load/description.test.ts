import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { isLockstepError } from "@lockstep/protocol";
import { describeLoad, type LoadArguments } from "./description.ts";

const directory = mkdtempSync(join(tmpdir(), "lockstep-description-"));
after(() => rmSync(directory, { recursive: true, force: true }));

async function targets(given: LoadArguments, path: string): Promise<string[] | null> {
  const load = await describeLoad(directory, { module: "M", version: "1", ...given });
  return load.attributes(path).targets;
}

test("the last matching --assign wins; an empty role means not distributed", async () => {
  const assign = ["**=Server", "doc/**=", "doc/*.md=Client,package:M/Docs"];
  assert.deepEqual(await targets({ assign }, "bin/x"), ["role:Server"]);
  assert.deepEqual(await targets({ assign }, "doc/x"), []);
  assert.deepEqual(await targets({ assign }, "doc/x.md"), ["role:Client", "package:M/Docs"]);
});

test("a version without a match is not distributed; the other kinds leave what they do not mention", async () => {
  const assign = ["bin/*=Server"];
  assert.deepEqual(await targets({ assign }, "lib/x"), []);
  assert.equal(await targets({ assign, kind: "hotfix" }, "lib/x"), null);
  assert.equal(await targets({ assign, kind: "service-pack" }, "lib/x"), null);
  // Nothing was said at all: then a version keeps what the repository holds.
  assert.equal(await targets({}, "lib/x"), null);
});

test("custom files go to the module CCC without further words", async () => {
  const load = await describeLoad(directory, { kind: "custom" });
  assert.deepEqual([load.module.id, load.module.version, load.kind], ["CCC", "1", "custom"]);
  const named = await describeLoad(directory, { module: "CCC" });
  assert.equal(named.kind, "custom");
});

test("what cannot be meant is refused as wrong usage", async () => {
  const wrong: LoadArguments[] = [
    {},
    { module: "M" },
    { version: "1" },
    { module: "not an id!", version: "1" },
    { module: "M", version: "1 2" },
    { module: "M", version: "1", kind: "upgrade" },
    { module: "M", version: "1", assign: ["Server"] },
    { module: "M", version: "1", assign: ["[=Server"] },
    { module: "M", version: "1", assign: ["*=no//role"] },
    { module: "M", version: "1", moduleFile: "/does/not/exist" },
  ];
  for (const given of wrong)
    await assert.rejects(
      describeLoad(directory, given),
      (error) => isLockstepError(error, "USAGE"),
      JSON.stringify(given),
    );
});

test("a description beside the files says the rest, and must not be contradicted", async (context) => {
  const file = join(directory, "module.toml");
  writeFileSync(
    file,
    'format = 1\nid = "MOD"\nversion = "7"\n[[files]]\nmatch = "**"\nroles = ["Server"]\nmode = "700"\n',
  );
  context.after(() => rmSync(file));
  const load = await describeLoad(directory, { assign: ["x=Client"] });
  assert.deepEqual([load.module.id, load.module.version, load.omit], ["MOD", "7", "module.toml"]);
  assert.deepEqual(load.attributes("x").targets, ["role:Client"]);
  assert.deepEqual(load.attributes("y").targets, ["role:Server"]);
  assert.equal(load.attributes("x").mode, 0o700);
  await assert.rejects(describeLoad(directory, { version: "8" }), (error) => isLockstepError(error, "USAGE"));
  const without = await describeLoad(directory, { module: "M", version: "8", moduleFile: "none" });
  assert.equal(without.omit, null);
});

test("version text and backup are said by rules and by whole versions; else they stay", async (context) => {
  const file = join(directory, "module.toml");
  writeFileSync(
    file,
    'format = 1\nid = "MOD"\nversion = "7"\n[[files]]\nmatch = "etc/*"\nbackup = true\nversion = "7.0"\n',
  );
  context.after(() => rmSync(file));
  const said = async (path: string, given: LoadArguments) => {
    const { version, backup } = (await describeLoad(directory, given)).attributes(path);
    return { version, backup };
  };
  const kept = { version: undefined, backup: undefined };
  assert.deepEqual(await said("etc/a", {}), { version: "7.0", backup: true });
  assert.deepEqual(await said("bin/a", {}), { version: null, backup: false });
  assert.deepEqual(await said("etc/a", { kind: "hotfix" }), { version: "7.0", backup: true });
  assert.deepEqual(await said("bin/a", { kind: "hotfix" }), kept);
  const none = { module: "MOD", version: "7", moduleFile: "none" };
  assert.deepEqual(await said("etc/a", { ...none, kind: "hotfix" }), kept);
  assert.deepEqual(await said("etc/a", none), kept);
});

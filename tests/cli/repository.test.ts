import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { type LoadDocument, useHub } from "./hub-session.ts";
import { documentOf, type ErrorDocument, temporaryDirectory } from "./lockstep.ts";

const { directory, run, load, refused, makeSource, listed } = useHub();

test("an export follows no links and mends what differs", async (context) => {
  const source = makeSource("exported", { "in/a": "a", b: "b" });
  await load(source, "--module", "EXPORTED", "--version", "1", "--assign", "**=Export");
  const target = temporaryDirectory(context);
  mkdirSync(join(target, "exported"));
  writeFileSync(join(target, "exported/b"), "edited");
  const first = await run("files", "export", target, "--role", "Export", "--json");
  const { written, equal } = documentOf<{ written: string[]; equal: number }>(first);
  assert.deepEqual([written.sort(), equal], [["exported/b", "exported/in/a"], 0]);
  assert.equal(readFileSync(join(target, "exported/b"), "utf8"), "b");
  const second = await run("files", "export", target, "--role", "Export", "--json");
  assert.deepEqual(documentOf<{ written: string[]; equal: number }>(second).equal, 2);

  const outside = temporaryDirectory(context);
  rmSync(join(target, "exported"), { recursive: true });
  symlinkSync(outside, join(target, "exported"));
  const error = await refused("files", "export", target, "--role", "Export");
  assert.equal(error.code, "EXPORT_TARGET_REFUSED");
  assert.deepEqual(readdirSync(outside), []);
});

test("removing files takes them from the repository, after a question or with --yes", async () => {
  const source = makeSource("gone", { x: "x", y: "y" });
  await load(source, "--module", "GONE", "--version", "1", "--assign", "**=Server");
  assert.equal((await refused("files", "remove", "gone/*")).code, "CONFIRMATION_REQUIRED");
  const end = await run("files", "remove", "gone/x", "--yes");
  assert.deepEqual([end.status, end.stdout], [0, "gone/x\n"]);
  assert.deepEqual([...(await listed("gone/*")).keys()], ["gone/y"]);
});

test("revisions can be listed, shown, compared and reverted", async () => {
  const source = makeSource("history", { x: "1" });
  const args = ["--module", "HISTORY", "--assign", "**=Server"];
  const { revision: before } = await load(source, ...args, "--version", "1");
  writeFileSync(join(source, "history/x"), "22");
  const { revision: changed } = await load(source, ...args, "--version", "2");
  assert.ok(before !== null && changed !== null && changed > before);
  const list = documentOf<{ current: number; revisions: { number: number; releases: string[] }[] }>(
    await run("revision", "list", "--json"),
  );
  assert.equal(list.current, changed);
  assert.deepEqual(list.revisions[0]?.releases, ["HISTORY 2 (version)"]);
  const shown = documentOf<{ number: number; manifests: unknown[] }>(
    await run("revision", "show", String(before), "--json"),
  );
  assert.equal(shown.number, before);
  const diff = await run("revision", "diff", String(before), String(changed));
  assert.match(diff.stdout, /^~ history\/x {2}\(1 B to 2 B\)$/m);
  const unasked = await refused("revision", "revert", String(before));
  assert.equal(unasked.code, "CONFIRMATION_REQUIRED");
  const revert = await run("revision", "revert", String(before), "--yes");
  assert.equal(revert.status, 0, revert.stderr);
  assert.match(revert.stdout, new RegExp(`^software revision ${changed + 1}\n$`));
  const unknown = await run("revision", "show", "999999", "--json");
  assert.equal(unknown.status, 1);
  assert.equal(documentOf<ErrorDocument>(unknown).error.code, "REVISION_UNKNOWN");
});

test("settings are listed and set; what nobody knows is refused", async () => {
  const set = await run("settings", "set", "Common/AutoUpdate/PollSeconds=60", "--json");
  assert.equal(set.status, 0, set.stderr);
  const { "Common/AutoUpdate/PollSeconds": seconds } = documentOf<Record<string, unknown>>(
    await run("settings", "list", "--json"),
  );
  assert.equal(seconds, 60);
  const unknown = await run("settings", "set", "Common/NoSuchThing=1");
  assert.equal(unknown.status, 2, unknown.stderr);
});

test("the DBQueue can be stopped: a load then waits for its revision in vain, and nothing is lost", async () => {
  const source = makeSource("queued", { x: "x" });
  assert.equal((await run("dbqueue", "stop", "--reason", "a test")).status, 0);
  try {
    const args = [
      "--module",
      "QUEUED",
      "--version",
      "1",
      "--assign",
      "**=Server",
      "--yes",
      "--json",
      "--wait-seconds",
      "1",
    ];
    const end = await run("load", source, ...args);
    assert.equal(end.status, 1);
    const { error } = documentOf<ErrorDocument>(end);
    assert.equal(error.code, "REVISION_TIMEOUT");
    assert.match(String(error.found), /emergency stop is set \(a test\)/);
    assert.match(String(error.hint), /lockstep dbqueue start/);
    assert.match(end.stderr, /^warning: waiting: the DBQueue's emergency stop is set \(a test\)/m);
    const queue = documentOf<{
      stopped: boolean;
      stoppedReason: string | null;
      tasks: { task: string; waiting: number }[];
    }>(await run("dbqueue", "--json"));
    assert.deepEqual([queue.stopped, queue.stoppedReason], [true, "a test"]);
    assert.ok(queue.tasks.some((task) => task.task === "LOCKSTEP-K-SoftwareRevision" && task.waiting === 1));
  } finally {
    assert.equal((await run("dbqueue", "start")).status, 0);
  }
  const again = await load(source, "--module", "QUEUED", "--version", "1", "--assign", "**=Server");
  assert.equal(again.statuses.equal, 1);
});

test("the example of the module description loads as it is documented", async () => {
  const example = resolve(import.meta.dirname, "../../examples/module");
  const end = await run("load", example, "--yes", "--json");
  assert.equal(end.status, 0, end.stderr);
  assert.equal(documentOf<LoadDocument>(end).undistributed, 1);
  const files = await listed("{bin,conf,doc,web}/**");
  assert.equal(files.has("module.toml"), false);
  assert.deepEqual(files.get("bin/run.sh")?.targets, ["package:DEMO/Runner"]);
  assert.equal(files.get("bin/run.sh")?.mode, 0o755);
  assert.deepEqual(files.get("doc/internal/notes.txt")?.targets, []);
  const roles = documentOf<{ roles: { path: string; selectable: boolean; packages: string[] }[] }>(
    await run("roles", "--json"),
  );
  assert.deepEqual(roles.roles.find((role) => role.path === "Server/JobServer")?.packages, ["DEMO/Runner"]);
  assert.equal(roles.roles.find((role) => role.path === "Server/Web")?.selectable, false);
  const target = join(directory, "job-server");
  await run("files", "export", target, "--role", "Server/JobServer", "--match", "{runner,conf}/**");
  assert.equal(
    readdirSync(target, { recursive: true }).sort().join(" "),
    "conf conf/server.toml runner runner/bin runner/bin/common.sh runner/bin/run.sh",
  );
});

test("setup shows its steps, does them, and has nothing left to do the second time", async () => {
  const first = await run("setup", "--yes", "--json");
  assert.equal(first.status, 0, first.stderr);
  const second = await run("setup", "--json");
  assert.equal(second.status, 0, second.stderr);
  const { steps } = documentOf<{ steps: { state: string }[] }>(second);
  assert.ok(steps.length > 0 && steps.every((step) => step.state === "done"));
});

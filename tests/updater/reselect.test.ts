import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { check, install, plan, reselect, rollback, update, verify } from "@lockstep/updater";
import { makeWorld, put, revisionOf, stateOf, treeOf } from "./world.ts";

const release = {
  "bin/run": { content: "run", mode: 0o755, targets: ["role:Server/Job"] },
  "lib/a.js": { content: "a", targets: ["role:Server"] },
  "lib/both.js": { content: "both", targets: ["role:Server/Job", "role:Client"] },
  "admin/tool": { content: "tool", targets: ["role:Client"] },
  "docs/manual": { content: "manual", targets: ["package:DOC/Manual"] },
};
const SERVER = { "bin/run": "run", "lib/a.js": "a", "lib/both.js": "both" };

test("another role brings its files and takes those of the dropped one, at the same revision", async (t) => {
  const { hub, root, installOptions, options } = await makeWorld(t);
  hub.publish(release);
  const directory = join(root, "machine");
  await install(directory, installOptions(["Server/Job"]));
  put(directory, "own/notes", "mine");
  const both = await reselect(directory, { ...options(), roles: ["Server/Job", "Client"] });
  assert.deepEqual(both.before, { roles: ["Server/Job"], packages: [] });
  assert.deepEqual(both.after, { roles: ["Client", "Server/Job"], packages: [] });
  assert.deepEqual(
    both.plan.operations.map(({ kind, path }) => [kind, path]),
    [["add", "admin/tool"]],
  );
  assert.deepEqual(treeOf(directory), { ...SERVER, "admin/tool": "tool", "own/notes": "mine" });
  const client = await reselect(directory, { ...options(), roles: ["Client"], packages: ["DOC/Manual"] });
  assert.deepEqual(client.run?.sums.remove, 2);
  assert.deepEqual(treeOf(directory), {
    "admin/tool": "tool",
    "docs/manual": "manual",
    "lib/both.js": "both",
    "own/notes": "mine",
  });
  assert.deepEqual(stateOf(directory).roles, ["Client"]);
  assert.deepEqual(stateOf(directory).packages, ["DOC/Manual"]);
  assert.equal(revisionOf(directory), 1);
  assert.equal((await check(directory, options())).kind, "in-step");
  assert.deepEqual((await verify(directory, options())).damages, []);
  const [report] = hub.reports.values();
  assert.deepEqual([report?.roles, report?.packages], [["Client"], ["DOC/Manual"]]);
  // The next update follows the new choice, and nothing of the former one.
  hub.publish({ ...release, "admin/tool": { content: "tool 2", targets: ["role:Client"] } });
  await update(directory, options());
  assert.equal(treeOf(directory)["admin/tool"], "tool 2");
  assert.equal(existsSync(join(directory, "bin/run")), false);
});

test("a choice may be looked at without being made", async (t) => {
  const { hub, root, installOptions, options } = await makeWorld(t);
  hub.publish(release);
  const directory = join(root, "machine");
  await install(directory, installOptions(["Server/Job"]));
  const state = readFileSync(join(directory, "InstallState.config"), "utf8");
  const looked = await reselect(directory, { ...options(), roles: ["Client"], dryRun: true });
  assert.equal(looked.run, null);
  assert.deepEqual(
    looked.plan.operations.map(({ kind, path }) => `${kind} ${path}`),
    ["add admin/tool", "remove bin/run", "remove lib/a.js"],
  );
  assert.equal(readFileSync(join(directory, "InstallState.config"), "utf8"), state);
  assert.deepEqual(treeOf(directory), SERVER);
});

test("a rollback does not lead past it: what was kept of the last update no longer fits", async (t) => {
  const { hub, root, installOptions, options } = await makeWorld(t);
  hub.publish(release);
  const directory = join(root, "machine");
  await install(directory, installOptions(["Server/Job"]));
  hub.publish({ ...release, "bin/run": { content: "run 2", targets: ["role:Server/Job"] } });
  await update(directory, options());
  // A look and a refused choice leave it possible.
  await reselect(directory, { ...options(), roles: ["Client"], dryRun: true });
  await assert.rejects(reselect(directory, { ...options(), roles: ["Nothing"] }));
  await reselect(directory, { ...options(), roles: ["Client"] });
  const tree = treeOf(directory);
  await assert.rejects(rollback(directory, options()), { code: "ROLLBACK_UNAVAILABLE" });
  assert.deepEqual(treeOf(directory), tree);
  await reselect(directory, { ...options(), roles: ["Server/Job"] });
  assert.deepEqual(treeOf(directory), { ...SERVER, "bin/run": "run 2" });
  // The next update can be taken back again.
  hub.publish(release);
  await update(directory, options());
  await rollback(directory, options());
  assert.equal(treeOf(directory)["bin/run"], "run 2");
});

test("the files come from the revision that is installed, not from a newer one", async (t) => {
  const { hub, root, installOptions, options } = await makeWorld(t);
  hub.publish(release);
  const directory = join(root, "machine");
  await install(directory, installOptions(["Server/Job"]));
  hub.publish({
    ...release,
    "admin/tool": { content: "tool 2", targets: ["role:Client"] },
    "lib/a.js": { content: "a 2", targets: ["role:Server"] },
  });
  await reselect(directory, { ...options(), roles: ["Server/Job", "Client"] });
  assert.deepEqual(treeOf(directory), { ...SERVER, "admin/tool": "tool" });
  assert.equal(revisionOf(directory), 1);
  assert.equal((await check(directory, options())).kind, "behind");
  await update(directory, options());
  assert.deepEqual(treeOf(directory), { ...SERVER, "lib/a.js": "a 2", "admin/tool": "tool 2" });
});

test("a choice that nobody may make changes nothing", async (t) => {
  const { hub, root, installOptions, options } = await makeWorld(t);
  hub.publish(release);
  const directory = join(root, "machine");
  await install(directory, installOptions(["Server/Job"], { packages: ["DOC/Manual"] }));
  const before = treeOf(directory);
  const refused = async (code: string, roles: string[] | undefined, packages?: string[]) =>
    await assert.rejects(reselect(directory, { ...options(), roles, packages }), { code });
  await refused("ROLE_UNKNOWN", ["Server/Job", "Nothing"]);
  await refused("PACKAGE_UNKNOWN", undefined, ["DOC/Nothing"]);
  await refused("USAGE", [], []);
  await refused("USAGE", ["../x"]);
  hub.publish(release, { selectableRoles: ["Server/Job"] });
  await update(directory, options());
  await refused("ROLE_NOT_SELECTABLE", ["Client"]);
  assert.deepEqual(treeOf(directory), before);
  await reselect(directory, { ...options(), packages: [] });
  assert.equal(treeOf(directory)["docs/manual"], undefined);
  assert.deepEqual(stateOf(directory).rolesChosen, ["Server/Job"]);
});

test("a role that only programs may choose now stays where it was chosen before", async (t) => {
  const { hub, root, installOptions, options } = await makeWorld(t);
  hub.publish(release);
  const directory = join(root, "machine");
  await install(directory, installOptions(["Client"]));
  hub.publish(release, { selectableRoles: ["Server/Job"] });
  await update(directory, options());
  await reselect(directory, { ...options(), roles: ["Client", "Server/Job"] });
  assert.deepEqual(treeOf(directory), { ...SERVER, "admin/tool": "tool" });
});

test("what is there already needs no run, and an edited file of a dropped role is kept as a copy", async (t) => {
  const { hub, root, installOptions, options } = await makeWorld(t);
  hub.publish(release);
  const directory = join(root, "machine");
  await install(directory, installOptions(["Server/Job", "Client"]));
  const same = await reselect(directory, { ...options(), roles: ["Client", "Server/Job"] });
  assert.equal(same.run, null);
  put(directory, "admin/tool", "edited");
  await reselect(directory, { ...options(), roles: ["Server/Job"] });
  assert.equal(existsSync(join(directory, "admin/tool")), false);
  assert.equal(readFileSync(join(directory, ".lockstep/backup/1/admin/tool"), "utf8"), "edited");
  assert.equal((await plan(directory, options())).operations.length, 0);
});

test("installing something else over an installation names the command that changes it", async (t) => {
  const { hub, root, installOptions } = await makeWorld(t);
  hub.publish(release);
  const directory = join(root, "machine");
  await install(directory, installOptions(["Server/Job"]));
  await assert.rejects(
    install(directory, installOptions(["Client"], { packages: ["DOC/Manual"] })),
    (error: { code: string; hint: string }) => {
      assert.equal(error.code, "INSTALLATION_EXISTS");
      assert.match(error.hint, /lockstep configure DIR --role Client --package DOC\/Manual/);
      return true;
    },
  );
});

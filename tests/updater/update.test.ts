import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "@lockstep/platform";
import { describeOrdered } from "@lockstep/trust";
import { check, configure, install, plan, readLog, update } from "@lockstep/updater";
import { makeWorld, put, revisionOf, stateOf, treeOf } from "./world.ts";

const release = {
  "bin/run": { content: "run 1", mode: 0o755, targets: ["role:Server/Job"] },
  "lib/a.js": { content: "a", targets: ["role:Server"] },
  "lib/same.js": { content: "same", targets: ["role:Server"] },
  "admin/tool": { content: "tool", targets: ["role:Client"] },
  "docs/manual": { content: "manual", targets: ["package:DOC/Manual"] },
  "docs/fonts": { content: "fonts", targets: ["package:DOC/Fonts"] },
};

test("an installation gets the files of its roles and of their parents, and no others", async (t) => {
  const { hub, root, installOptions } = await makeWorld(t);
  hub.publish(release);
  const directory = join(root, "server");
  const result = await install(directory, installOptions(["Server/Job"]));
  assert.equal(result.kind, "updated");
  assert.deepEqual(treeOf(directory), { "bin/run": "run 1", "lib/a.js": "a", "lib/same.js": "same" });
  assert.equal(statSync(join(directory, "bin/run")).mode & 0o777, 0o755);
  const state = stateOf(directory);
  assert.deepEqual(state.roles, ["Server", "Server/Job"]);
  assert.deepEqual(state.rolesChosen, ["Server/Job"]);
  assert.deepEqual(
    state.files.map(([path]) => path),
    ["bin/run", "lib/a.js", "lib/same.js"],
  );
  assert.equal(revisionOf(directory), 1);
  assert.equal(statSync(join(directory, ".softwarerevision.viv")).mode & 0o777, 0o444);
  assert.equal(existsSync(join(directory, "update.lock")), false);
  assert.equal(statSync(join(directory, ".lockstep")).mode & 0o777, 0o700);
  const [report] = hub.reports.values();
  assert.deepEqual(
    [report?.outcome, report?.revision, report?.roles],
    ["updated", 1, ["Server", "Server/Job"]],
  );
});

test("packages bring what they need, and their names are recorded", async (t) => {
  const { hub, root, installOptions } = await makeWorld(t);
  hub.publish(
    { ...release, "docs/fonts": { content: "fonts", targets: ["package:DOC/Fonts", "package:DOC/Manual"] } },
    { packageClosure: { "DOC/Manual": ["DOC/Fonts"], "DOC/Fonts": [] }, selectablePackages: ["DOC/Manual"] },
  );
  const directory = join(root, "docs");
  await install(directory, installOptions([], { packages: ["DOC/Manual"] }));
  assert.deepEqual(Object.keys(treeOf(directory)), ["docs/fonts", "docs/manual"]);
  assert.deepEqual(stateOf(directory).packages, ["DOC/Fonts", "DOC/Manual"]);
  await assert.rejects(install(join(root, "other"), installOptions([], { packages: ["DOC/Fonts"] })), {
    code: "PACKAGE_NOT_SELECTABLE",
  });
});

test("unknown and non-selectable roles are refused by name, and no directory is made", async (t) => {
  const { hub, root, installOptions } = await makeWorld(t);
  hub.publish(release, { selectableRoles: ["Server/Job"] });
  const directory = join(root, "none");
  await assert.rejects(
    install(directory, installOptions(["Server/Jobs"])),
    (error: { code: string; hint: string }) => {
      assert.equal(error.code, "ROLE_UNKNOWN");
      assert.match(error.hint, /Server\/Job/);
      return true;
    },
  );
  await assert.rejects(install(directory, installOptions(["Client"])), { code: "ROLE_NOT_SELECTABLE" });
  await assert.rejects(install(directory, installOptions(["server/job"])), {
    code: "ROLE_UNKNOWN",
    hint: "Names are case-sensitive: did you mean Server/Job?",
  });
  await assert.rejects(install(directory, installOptions(["../x"])), { code: "USAGE" });
  assert.equal(existsSync(directory), false);
});

test("an update changes, adds and removes exactly what differs; foreign files stay", async (t) => {
  const { hub, root, installOptions, options } = await makeWorld(t);
  hub.publish(release);
  const directory = join(root, "server");
  await install(directory, installOptions(["Server/Job"]));
  put(directory, "lib/local.txt", "mine");
  put(directory, "own/notes", "mine");
  const before = statSync(join(directory, "lib/same.js"), { bigint: true });
  hub.publish({
    "bin/run": { content: "run 2", mode: 0o755, targets: ["role:Server/Job"] },
    "lib/same.js": { content: "same", targets: ["role:Server"] },
    "new/deep/file": { content: "new", targets: ["role:Server"] },
    "admin/tool": { content: "tool 2", targets: ["role:Client"] },
  });
  assert.equal((await check(directory, options())).kind, "behind");
  const result = await update(directory, options());
  assert.ok(result.kind === "updated");
  const { add, replace, remove, equal } = result.sums;
  assert.deepEqual({ add, replace, remove, equal }, { add: 1, replace: 1, remove: 1, equal: 1 });
  assert.deepEqual(treeOf(directory), {
    "bin/run": "run 2",
    "lib/local.txt": "mine",
    "lib/same.js": "same",
    "new/deep/file": "new",
    "own/notes": "mine",
  });
  const after = statSync(join(directory, "lib/same.js"), { bigint: true });
  assert.deepEqual([after.ino, after.ctimeNs], [before.ino, before.ctimeNs], "an equal file was touched");
  assert.equal(revisionOf(directory), 2);
});

test("folders that the product leaves empty go, others stay", async (t) => {
  const { hub, root, installOptions, options } = await makeWorld(t);
  const targets = ["role:A"];
  hub.publish({
    "x/y/file": { content: "1", targets },
    "z/file": { content: "2", targets },
    keep: { content: "3", targets },
  });
  const directory = join(root, "a");
  await install(directory, installOptions(["A"]));
  put(directory, "z/mine", "mine");
  hub.publish({ keep: { content: "3", targets } });
  await update(directory, options());
  assert.deepEqual(
    readdirSync(directory).filter((name) => !name.includes(".") && name !== "update"),
    ["keep", "z"],
  );
});

test("equal revisions: one request, and nothing in the directory is written or opened", async (t) => {
  const { hub, root, installOptions, options } = await makeWorld(t);
  hub.publish(release);
  const directory = join(root, "server");
  await install(directory, installOptions(["Server/Job"]));
  const look = () =>
    readdirSync(directory, { recursive: true, encoding: "utf8" })
      .sort()
      .map((path) => {
        const { ino, mtimeNs, ctimeNs, size } = statSync(join(directory, path), { bigint: true });
        return `${path} ${ino} ${mtimeNs} ${ctimeNs} ${size}`;
      });
  const before = look();
  hub.requests.length = 0;
  assert.equal((await check(directory, options())).kind, "in-step");
  assert.deepEqual(hub.requests, ["GET /v1/revision"]);
  assert.deepEqual(await update(directory, options()), { kind: "already-in-step", revision: 1 });
  assert.deepEqual(hub.requests, ["GET /v1/revision", "GET /v1/revision"]);
  assert.deepEqual(look(), before);
});

test("a missing or damaged revision file counts as out of date and is written anew", async (t) => {
  const { hub, root, installOptions, options } = await makeWorld(t);
  hub.publish(release);
  const directory = join(root, "server");
  await install(directory, installOptions(["Server"]));
  for (const damage of [
    () => rmSync(join(directory, ".softwarerevision.viv")),
    () => {
      rmSync(join(directory, ".softwarerevision.viv"));
      writeFileSync(join(directory, ".softwarerevision.viv"), "??");
    },
  ]) {
    damage();
    const found = await check(directory, options());
    assert.ok(found.kind === "behind" && found.installed === null);
    await update(directory, options());
    assert.equal(revisionOf(directory), 1);
  }
});

test("a revision that does not concern the installation is recorded without touching a file", async (t) => {
  const { hub, root, installOptions, options } = await makeWorld(t);
  hub.publish(release);
  const directory = join(root, "server");
  await install(directory, installOptions(["Server"]));
  const state = readFileSync(join(directory, "InstallState.config"), "utf8");
  hub.publish({ ...release, "admin/tool": { content: "tool 2", targets: ["role:Client"] } });
  hub.requests.length = 0;
  await update(directory, options());
  assert.equal(revisionOf(directory), 2);
  assert.equal(readFileSync(join(directory, "InstallState.config"), "utf8"), state);
  assert.deepEqual(
    hub.requests.filter((line) => /files|bundle|manifests/.test(line)),
    [],
  );
});

test("the recorded time is the start of the run, not its end", async (t) => {
  const { hub, root, installOptions } = await makeWorld(t);
  hub.publish(release);
  let now = Date.UTC(2026, 0, 1);
  const clock = { now: () => now++, monotonic: () => performance.now(), sleep: async () => {} };
  const directory = join(root, "server");
  await install(directory, installOptions(["Server"], { clock }));
  const startedAt = Date.parse(
    readFileSync(join(directory, ".softwarerevision.viv"), "utf8").split("\n")[1] ?? "",
  );
  const records = await readLog(directory);
  const times = records.map((record) => Date.parse(record.time));
  assert.ok(
    times.length > 2 && times.every((time) => time > startedAt),
    "an action before the recorded start",
  );
});

test("edited files are replaced with a copy kept, or stay, as the policy says", async (t) => {
  const { hub, root, installOptions, options } = await makeWorld(t);
  const targets = ["role:A"];
  const first = {
    config: { content: "v1", targets },
    other: { content: "o1", targets },
    gone: { content: "g", targets },
  };
  hub.publish(first);
  const directories = ["replace", "keep", "keep-and-report"] as const;
  for (const edits of directories) {
    await install(join(root, edits), installOptions(["A"], { edits }));
    put(join(root, edits), "config", "edited!");
    put(join(root, edits), "gone", "edited too");
  }
  hub.publish({ config: { content: "v2", targets }, other: { content: "o2", targets } });
  for (const edits of directories) {
    const result = await update(join(root, edits), options());
    assert.ok(result.kind === "updated");
    const kept = result.kept.map(({ path, reason }) => `${path} ${reason}`);
    assert.deepEqual(kept, edits === "replace" ? [] : ["config edited", "gone dropped"]);
    assert.deepEqual(
      treeOf(join(root, edits)),
      edits === "replace"
        ? { config: "v2", other: "o2" }
        : { config: "edited!", gone: "edited too", other: "o2" },
    );
  }
  assert.equal(readFileSync(join(root, "replace/.lockstep/backup/1/config"), "utf8"), "edited!");
  assert.equal(readFileSync(join(root, "replace/.lockstep/backup/1/gone"), "utf8"), "edited too");
  const problems = [...hub.reports.values()].map((report) => [report.directory, report.problem] as const);
  const problemOf = (name: string) => problems.find(([directory]) => directory.endsWith(`/${name}`))?.[1];
  assert.match(problemOf("keep-and-report") ?? "", /config/);
  assert.equal(problemOf("keep"), null);
});

test("a file that is marked for it leaves a copy of each version that is replaced", async (t) => {
  const { hub, root, installOptions, options } = await makeWorld(t);
  const publish = (content: string) =>
    hub.publish({ "conf/a": { content, backup: true, targets: ["role:A"] } });
  publish("1");
  const directory = join(root, "a");
  await install(directory, installOptions(["A"]));
  for (const content of ["2", "3", "4", "5", "6", "7", "8"]) {
    publish(content);
    await update(directory, options());
  }
  const backup = join(directory, ".lockstep/backup");
  assert.deepEqual(readdirSync(backup).sort(), ["3", "4", "5", "6", "7"]);
  assert.equal(readFileSync(join(backup, "7/conf/a"), "utf8"), "7");
});

test("installing over files that are there takes them over without fetching them", async (t) => {
  const { hub, root, installOptions } = await makeWorld(t);
  hub.publish(release);
  const directory = join(root, "server");
  put(directory, "lib/a.js", "a");
  put(directory, "lib/same.js", "same");
  put(directory, "mine", "mine");
  const result = await install(directory, installOptions(["Server"]));
  assert.ok(result.kind === "updated" && result.sums.adopt === 2 && result.sums.fetchFiles === 0);
  assert.deepEqual(
    hub.requests.filter((line) => /files|bundle/.test(line)),
    [],
  );
  assert.equal(treeOf(directory).mine, "mine");
});

test("a directory that is an installation already is refused, unless it is the same one", async (t) => {
  const { hub, root, installOptions } = await makeWorld(t);
  hub.publish(release);
  const directory = join(root, "server");
  await install(directory, installOptions(["Server"]));
  await assert.rejects(
    install(directory, installOptions(["Client"])),
    (error: { code: string; found: string }) => {
      assert.equal(error.code, "INSTALLATION_EXISTS");
      assert.match(error.found, /roles Server/);
      return true;
    },
  );
  assert.deepEqual(await install(directory, installOptions(["Server"])), {
    kind: "already-in-step",
    revision: 1,
  });
});

test("a plan says what would happen and why, and changes nothing", async (t) => {
  const { hub, root, installOptions, options } = await makeWorld(t);
  hub.publish(release);
  const directory = join(root, "server");
  await install(directory, installOptions(["Server/Job"]));
  put(directory, "lib/a.js", "A");
  hub.publish({
    "bin/run": { content: "run 22", mode: 0o755, targets: ["role:Server/Job"] },
    "lib/a.js": { content: "b", targets: ["role:Server"] },
    "lib/copy.js": { content: "same", targets: ["role:Server"] },
  });
  const before = treeOf(directory);
  const document = await plan(directory, options());
  assert.deepEqual(
    document.operations.map((o) => [
      o.kind,
      o.path,
      o.reason,
      "local" in o ? o.local : "",
      "source" in o ? o.source.kind : "",
    ]),
    [
      ["replace", "bin/run", "size", "ours", "hub"],
      ["replace", "lib/a.js", "hash", "edited", "hub"],
      ["add", "lib/copy.js", "new", "", "local"],
      ["remove", "lib/same.js", "dropped", "ours", ""],
    ],
  );
  assert.deepEqual([document.from, document.to, document.sums.fetchFiles], [1, 2, 2]);
  assert.deepEqual(treeOf(directory), before);
  assert.deepEqual(JSON.parse(JSON.stringify(document)), document);
});

test("files of a role that is not wanted any more go with it; a vanished role alone empties nothing", async (t) => {
  const { hub, root, installOptions, options } = await makeWorld(t);
  hub.publish({ a: { content: "a", targets: ["role:A"] }, b: { content: "b", targets: ["role:B"] } });
  const both = join(root, "both");
  const onlyA = join(root, "a");
  await install(both, installOptions(["A", "B"]));
  await install(onlyA, installOptions(["A"]));
  hub.publish({ b: { content: "b", targets: ["role:B"] } });
  const result = await update(both, options());
  assert.ok(result.kind === "updated");
  assert.match(result.notices.join(), /no files for A/);
  assert.deepEqual(treeOf(both), { b: "b" });
  await assert.rejects(update(onlyA, options()), { code: "ROLE_UNKNOWN" });
  assert.deepEqual(treeOf(onlyA), { a: "a" });
});

test("the off switches stop automatic runs, and a manual one says that it goes on", async (t) => {
  const { hub, root, installOptions, options, events } = await makeWorld(t);
  hub.publish(release);
  const directory = join(root, "server");
  await install(directory, installOptions(["Server"]));
  hub.publish({ ...release, "lib/a.js": { content: "a2", targets: ["role:Server"] } });
  hub.autoUpdate = false;
  assert.deepEqual(await update(directory, { ...options(), trigger: "agent" }), {
    kind: "disabled",
    by: "hub",
    from: 1,
    to: 2,
  });
  hub.autoUpdate = true;
  await configure(directory, { autoUpdate: false }, options());
  const local = await update(directory, { ...options(), trigger: "launch" });
  assert.deepEqual(local, { kind: "disabled", by: "installation", from: 1, to: 2 });
  assert.equal((await update(directory, options())).kind, "updated");
  assert.ok(
    events.some(
      (event) => event.kind === "notice" && /switched off in this installation/.test(event.message),
    ),
  );
});

test("a symbolic link in a file's place is replaced and never followed; one in a folder's place is refused", async (t) => {
  const { hub, root, installOptions, options } = await makeWorld(t);
  hub.publish(release);
  const directory = join(root, "server");
  await install(directory, installOptions(["Server/Job"]));
  const outside = join(root, "outside");
  mkdirSync(outside);
  writeFileSync(join(outside, "victim"), "victim");
  rmSync(join(directory, "lib/a.js"));
  symlinkSync(join(outside, "victim"), join(directory, "lib/a.js"));
  hub.publish({ ...release, "lib/a.js": { content: "a2", targets: ["role:Server"] } });
  await update(directory, options());
  assert.equal(treeOf(directory)["lib/a.js"], "a2");
  assert.equal(readFileSync(join(outside, "victim"), "utf8"), "victim");

  rmSync(join(directory, "lib"), { recursive: true });
  symlinkSync(outside, join(directory, "lib"));
  hub.publish(release);
  await assert.rejects(update(directory, options()), (error: { code: string; found: string }) => {
    assert.equal(error.code, "INSTALLATION_CONFLICT");
    assert.match(error.found, /symbolic link/);
    return true;
  });
  assert.deepEqual(readdirSync(outside), ["victim"]);
  assert.equal(revisionOf(directory), 2);
});

test("a file may become a folder and a folder a file; what is foreign in it is never lost", async (t) => {
  const { hub, root, installOptions, options } = await makeWorld(t);
  const targets = ["role:A"];
  hub.publish({ thing: { content: "file", targets }, "box/a": { content: "a", targets } });
  const directory = join(root, "a");
  await install(directory, installOptions(["A"]));
  hub.publish({ "thing/inner": { content: "inner", targets }, box: { content: "file now", targets } });
  await update(directory, options());
  assert.deepEqual(treeOf(directory), { box: "file now", "thing/inner": "inner" });
  put(directory, "thing/mine", "mine");
  hub.publish({ thing: { content: "file", targets }, "box/a": { content: "a", targets } });
  await assert.rejects(update(directory, options()), { code: "INSTALLATION_CONFLICT" });
  assert.deepEqual(treeOf(directory), { box: "file now", "thing/inner": "inner", "thing/mine": "mine" });
});

test("an update asks for everything once, and a hub that does not tell all at once is asked one by one", async (t) => {
  const world = await makeWorld(t);
  const release = (text: string) => ({ file: { content: text, targets: ["role:A"] } });
  world.hub.publish(release("1"));
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  const asked = async () => {
    world.hub.publish(release(`${world.hub.revision + 1}`));
    world.hub.requests.length = 0;
    // What was announced some seconds ago would be asked for again.
    const clock = { ...systemClock, monotonic: () => 0 };
    await update(directory, world.options({ clock }));
    return world.hub.requests
      .filter((line) => line.startsWith("GET"))
      .map((line) => line.slice(8).replace(/^orders\/.*/, "orders"));
  };
  assert.deepEqual(await asked(), ["revision", "trust/changes", "orders", "manifests/delta"]);
  world.hub.changes = false;
  assert.deepEqual(await asked(), [
    "revision",
    ...["changes", "2.root.json", "timestamp.json", "3.snapshot.json", "3.targets.json", "log/1"].map(
      (name) => `trust/${name}`,
    ),
    "orders",
    "manifests/delta",
  ]);
});

test("whether there is an order is asked where the signed timestamp does not say that there is none", async (t) => {
  const world = await makeWorld(t);
  const { hub } = world;
  const release = () => hub.publish({ file: { content: `${hub.revision + 1}`, targets: ["role:A"] } });
  release();
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  const { id } = stateOf(directory);
  const minutes = 60_000;
  const asks = async (ordered: typeof hub.signing.ordered) => {
    hub.signing.ordered = ordered;
    release();
    hub.requests.length = 0;
    await update(directory, world.options());
    assert.equal(treeOf(directory).file, `${hub.revision}`);
    return hub.requests.some((line) => line.includes("/v1/orders/"));
  };
  assert.equal(await asks((now) => describeOrdered([], now)), false);
  assert.equal(await asks((now) => describeOrdered(["another"], now)), false);
  assert.equal(await asks((now) => describeOrdered(["another", id], now)), true);
  assert.equal(await asks(() => ({})), true, "a hub of an older version");
  assert.equal(
    await asks((now) => describeOrdered([], now - 61 * minutes)),
    true,
    "of more than an hour ago",
  );
  assert.equal(await asks((now) => describeOrdered([], now + 6 * minutes)), true, "of a clock that is ahead");
  assert.equal(await asks((now) => ({ lockstep: { format: 2, createdAt: now, orders: [] } })), true);
});

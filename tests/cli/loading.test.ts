import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  appendFileSync,
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { startTestHub, type TestHub } from "./hub.ts";
import {
  documentOf,
  type Ended,
  type ErrorDocument,
  ended,
  lockstep,
  PROGRAM,
  start,
  temporaryDirectory,
} from "./lockstep.ts";

interface LoadDocument {
  readonly loaded: boolean;
  readonly load: number | null;
  readonly revision: number | null;
  readonly revisionBefore: number | null;
  readonly changes: boolean;
  readonly statuses: Readonly<Record<"unknown" | "never-loaded" | "changed" | "equal", number>>;
  readonly removed: readonly string[];
  readonly undistributed: number;
  readonly notices: readonly string[];
  readonly files?: readonly { readonly path: string; readonly status: string }[];
}

const directory = mkdtempSync(join(tmpdir(), "lockstep-cli-test-"));
let hub: TestHub;

before(async () => {
  hub = await startTestHub(directory);
});

after(async () => {
  const { status } = await hub.stop();
  rmSync(directory, { recursive: true, force: true, maxRetries: 3 });
  assert.equal(status, 0, "a hub that is told to stop ends with 0");
});

function run(...args: string[]): Promise<Ended> {
  return lockstep(args, { env: hub.env });
}

async function load(source: string, ...args: string[]): Promise<LoadDocument> {
  const end = await run("load", source, "--json", "--yes", ...args);
  assert.equal(end.status, 0, end.stderr);
  return documentOf<LoadDocument>(end);
}

async function refused(...args: string[]): Promise<ErrorDocument["error"]> {
  const end = await run(...args, "--json");
  assert.equal(end.status, 3, end.stderr);
  return documentOf<ErrorDocument>(end).error;
}

/** Each test loads a module of its own, with files below a folder of its own: they share the hub. */
function makeSource(name: string, files: Readonly<Record<string, string>>): string {
  const source = join(directory, `source-${name}`);
  rmSync(source, { recursive: true, force: true });
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(source, name, path)), { recursive: true });
    writeFileSync(join(source, name, path), content);
  }
  return source;
}

async function listed(
  match: string,
): Promise<Map<string, { targets: string[]; sha256: string | null; mode: number }>> {
  const end = await run("files", "list", match, "--json");
  const { files } = documentOf<{
    files: { path: string; targets: string[]; sha256: string | null; mode: number }[];
  }>(end);
  return new Map(files.map((file) => [file.path, file]));
}

test("the first line of a hub is `ready URL`, and it is the only one", () => {
  assert.match(hub.url, /^http:\/\/127\.0\.0\.1:\d+$/);
});

test("a load shows states, moves the software revision and prints it; loading it again moves nothing", async () => {
  const source = makeSource("first", { "a.txt": "a", "sub/b.txt": "b" });
  const args = ["--module", "FIRST", "--version", "1", "--assign", "**=Server"];
  const dry = await run("load", source, ...args, "--dry-run", "--json", "--verbose");
  assert.equal(dry.status, 0);
  const shown = documentOf<LoadDocument>(dry);
  assert.deepEqual([shown.loaded, shown.revision, shown.statuses.unknown], [false, null, 2]);
  assert.deepEqual(shown.files, [
    { path: "first/a.txt", size: 1, status: "unknown" },
    { path: "first/sub/b.txt", size: 1, status: "unknown" },
  ]);
  assert.equal((await listed("first/**")).size, 0, "a dry run changes nothing");

  const first = await load(source, ...args);
  assert.equal(first.loaded, true);
  assert.ok((first.revision ?? 0) > (first.revisionBefore ?? 0));
  const again = await load(source, ...args);
  assert.deepEqual([again.changes, again.revision, again.statuses.equal], [false, first.revision, 2]);

  writeFileSync(join(source, "first/a.txt"), "A");
  const plain = await run("load", source, ...args, "--yes");
  assert.equal(plain.stdout, `software revision ${(first.revision ?? 0) + 1}\n`);
  assert.match(plain.stderr, /^ {2}changed +1 files/m);
  const { sha256 } = (await listed("first/a.txt")).get("first/a.txt") ?? {};
  assert.equal(sha256, createHash("sha256").update("A").digest("hex"));
});

test("without a terminal and without --yes a changing load is refused, and nothing changes", async () => {
  const source = makeSource("unasked", { x: "x" });
  const error = await refused("load", source, "--module", "UNASKED", "--version", "1");
  assert.equal(error.code, "CONFIRMATION_REQUIRED");
  assert.match(error.hint ?? "", /--yes/);
  assert.equal((await listed("unasked/**")).size, 0);
});

/** Runs a command on a terminal (made by `script`) and types an answer when it asks. */
async function onTerminal(answer: string, ...args: string[]): Promise<Ended> {
  const words = [process.execPath, PROGRAM, ...args].map((word) => `'${word}'`).join(" ");
  const child = spawn(
    "script",
    ["--quiet", "--return", "--command", `stty cols 90; exec ${words}`, "/dev/null"],
    {
      env: { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "", TERM: "xterm", ...hub.env },
      stdio: ["pipe", "pipe", "pipe"],
    },
  );
  const end = ended(child);
  let typed = false;
  child.stdout?.on("data", (text: string) => {
    if (!typed && text.includes("[y/N]")) {
      typed = true;
      child.stdin?.write(answer);
    }
  });
  return await end.finally(() => child.stdin?.destroy());
}

test("on a terminal the loader shows colours and a bar, asks, and obeys the answer", async () => {
  const source = makeSource("asked", { x: "x" });
  const args = ["load", source, "--module", "ASKED", "--version", "1"];
  const no = await onTerminal("n\r", ...args);
  assert.equal(no.status, 4, no.stdout);
  assert.match(no.stdout, /error CANCELLED/);
  const stopped = await onTerminal("\u0003", ...args);
  assert.equal(stopped.status, 1, stopped.stdout);
  assert.match(stopped.stdout, /error INTERRUPTED/);
  assert.equal((await listed("asked/*")).size, 0);
  const yes = await onTerminal("y\r", ...args);
  assert.equal(yes.status, 0, yes.stdout);
  assert.ok(yes.stdout.includes("\u001b[1mASKED 1 (version)"), "colours");
  assert.match(yes.stdout, /\[[#-]+\] +\d+% loading/);
  assert.equal((await listed("asked/*")).size, 1);
});

test("--no-wait ends at once with the number of the load", async () => {
  const source = makeSource("hasty", { x: "x" });
  const end = await run("load", source, "--module", "HASTY", "--version", "1", "--yes", "--no-wait");
  assert.equal(end.status, 0);
  assert.match(end.stdout, /^load \d+ \(the software revision was \d+\)\n$/);
});

test("a version removes what it lacks, a service pack does not, a hotfix refuses what is unknown", async () => {
  const source = makeSource("kinds", { one: "1", two: "2" });
  const module = ["--module", "KINDS", "--assign", "**=Server"];
  await load(source, ...module, "--version", "1");
  rmSync(join(source, "kinds/two"));
  writeFileSync(join(source, "kinds/three"), "3");

  const hotfix = await refused("load", source, ...module, "--version", "1.0.1", "--kind", "hotfix", "--yes");
  assert.equal(hotfix.code, "LOAD_REFUSED");
  assert.deepEqual(
    hotfix.faults?.map((fault) => fault.where),
    ["kinds/three"],
  );

  await load(source, ...module, "--version", "1.1", "--kind", "service-pack");
  assert.deepEqual([...(await listed("kinds/*")).keys()].sort(), ["kinds/one", "kinds/three", "kinds/two"]);
  const version = await load(source, ...module, "--version", "2");
  assert.deepEqual(version.removed, ["kinds/two"]);
  assert.deepEqual([...(await listed("kinds/*")).keys()].sort(), ["kinds/one", "kinds/three"]);
});

test("a lower version needs --yes; a path of another module is refused in every kind", async () => {
  const source = makeSource("owned", { x: "x" });
  await load(source, "--module", "OWNER", "--version", "2", "--assign", "**=Server");
  const lower = await refused("load", source, "--module", "OWNER", "--version", "1");
  assert.match(lower.code, /^LOAD_REFUSED$|^DOWNGRADE_REFUSED$/);
  assert.equal((await load(source, "--module", "OWNER", "--version", "1")).loaded, true);
  for (const kind of ["version", "service-pack", "hotfix"]) {
    const foreign = await refused(
      "load",
      source,
      "--module",
      "THIEF",
      "--version",
      "1",
      "--kind",
      kind,
      "--yes",
    );
    assert.equal(foreign.code, "LOAD_REFUSED", kind);
    assert.ok(
      foreign.faults?.some((fault) => fault.where === "owned/x"),
      kind,
    );
  }
});

test("the last matching --assign wins, * stays within a folder, and what has no role is said", async () => {
  const source = makeSource("assigned", {
    "a.js": "1",
    "lib/b.js": "2",
    "lib/deep/c.js": "3",
    "doc/d.md": "4",
  });
  const assign = ["**=Server", "assigned/lib/*=Server/Web", "assigned/doc/**="].flatMap((rule) => [
    "--assign",
    rule,
  ]);
  const loaded = await load(source, "--module", "ASSIGNED", "--version", "1", ...assign);
  assert.equal(loaded.undistributed, 1);
  const files = await listed("assigned/**");
  const targets = [...files]
    .map(([path, file]) => [path.slice("assigned/".length), file.targets.join()])
    .sort();
  assert.deepEqual(targets, [
    ["a.js", "role:Server"],
    ["doc/d.md", ""],
    ["lib/b.js", "role:Server/Web"],
    ["lib/deep/c.js", "role:Server"],
  ]);
});

test("a path that was assigned before it was loaded is `never loaded`, then belongs where it should", async () => {
  const assign = await run("files", "assign", "custom/new.txt=Server/Web");
  assert.equal(assign.status, 0, assign.stderr);
  assert.equal(assign.stdout, "custom/new.txt\n");
  const source = makeSource("custom", { "new.txt": "new" });
  const shown = documentOf<LoadDocument>(
    await run("load", source, "--kind", "custom", "--dry-run", "--json"),
  );
  assert.equal(shown.statuses["never-loaded"], 1);
  await load(source, "--kind", "custom");
  assert.deepEqual((await listed("custom/*")).get("custom/new.txt")?.targets, ["role:Server/Web"]);
});

test("set-user-id bits are dropped and said, excluded and empty folders too", async () => {
  const source = makeSource("bits", { tool: "x", "skip/me": "x" });
  chmodSync(join(source, "bits/tool"), 0o4755);
  mkdirSync(join(source, "bits/empty"));
  const args = ["--module", "BITS", "--version", "1", "--yes", "--exclude", "bits/skip"];
  const end = await run("load", source, ...args);
  assert.equal(end.status, 0, end.stderr);
  assert.match(end.stderr, /dropped from bits\/tool/);
  assert.match(end.stderr, /left out by --exclude: bits\/skip\//);
  assert.match(end.stderr, /empty folders are not loaded: bits\/empty\//);
  const files = await listed("bits/**");
  assert.deepEqual([...files.keys()], ["bits/tool"]);
  assert.equal(files.get("bits/tool")?.mode, 0o755);
});

test("a base directory one level too high is warned of", async (context) => {
  const files = Object.fromEntries(Array.from({ length: 10 }, (_, index) => [`f${index}`, String(index)]));
  const source = makeSource("base", files);
  await load(source, "--module", "BASE", "--version", "1");
  const parent = temporaryDirectory(context);
  cpSync(source, join(parent, "out"), { recursive: true });
  const end = await run("load", parent, "--module", "BASE", "--version", "2", "--dry-run");
  assert.equal(end.status, 0);
  assert.match(end.stderr, /warning: the directory looks too high: 10 files .* below out\//);
});

test("a load of many files and a large one arrives byte for byte, and equal contents travel once", async () => {
  const files: Record<string, string> = {};
  for (let i = 0; i < 700; i++) files[`d${i % 17}/f${i}`] = `file ${i % 350}\n`.repeat(i % 40);
  const source = makeSource("many", files);
  const large = Buffer.alloc(9 * 1024 * 1024, "compressible text, ");
  writeFileSync(join(source, "many/large.txt"), large);
  const noise = Buffer.from(
    Array.from({ length: 160 * 1024 }, (_, i) => createHash("sha256").update(String(i)).digest("hex")).join(
      "",
    ),
    "hex",
  );
  writeFileSync(join(source, "many/noise.bin"), noise);
  await load(source, "--module", "MANY", "--version", "1", "--assign", "**=Server/Many");
  const target = join(directory, "exported");
  const end = await run("files", "export", target, "--role", "Server/Many", "--match", "many/**");
  assert.equal(end.status, 0, end.stderr);
  const names = readdirSync(join(source, "many"), { recursive: true, encoding: "utf8" });
  for (const name of names) {
    const from = join(source, "many", name);
    if (statSync(from).isDirectory()) continue;
    assert.ok(readFileSync(from).equals(readFileSync(join(target, "many", name))), name);
  }
  assert.deepEqual(readdirSync(join(target, "many"), { recursive: true }).length, names.length);
});

test("a file that changes while it is loaded ends the load, and nothing of it is left", async () => {
  const source = makeSource("changing", { quiet: "x" });
  // Large enough to be still on its way when it changes; a sparse file costs nothing to make.
  const target = join(source, "changing/large");
  writeFileSync(target, "");
  for (let i = 0; i < 64; i++) appendFileSync(target, Buffer.alloc(1024 * 1024, i + 1));
  const child = start(["load", source, "--module", "CHANGING", "--version", "1", "--yes", "--json"], {
    env: hub.env,
  });
  const end = ended(child);
  const timer = setInterval(() => {
    appendFileSync(target, "changed");
    utimesSync(target, new Date(), new Date());
  }, 5);
  const result = await end.finally(() => clearInterval(timer));
  assert.equal(result.status, 1, result.stderr);
  assert.equal(documentOf<ErrorDocument>(result).error.code, "LOAD_SOURCE_CHANGED");
  assert.equal((await listed("changing/**")).size, 0);
});

test("a load that is interrupted leaves nothing behind", async () => {
  const source = makeSource("stopped", {});
  mkdirSync(join(source, "stopped"), { recursive: true });
  for (let i = 0; i < 40; i++) {
    const noise = Buffer.alloc(1024 * 1024);
    for (let at = 0; at < noise.length; at += 32)
      createHash("sha256").update(`${i} ${at}`).digest().copy(noise, at);
    writeFileSync(join(source, `stopped/f${i}`), noise);
  }
  const args = ["load", source, "--module", "STOPPED", "--version", "1", "--yes"];
  const child = start(args, { env: hub.env });
  const end = ended(child);
  // As soon as it says what it compares, the sending begins.
  await new Promise<void>((resolve) => {
    child.stderr?.on("data", (text: string) => {
      if (text.includes("STOPPED 1")) resolve();
    });
  });
  child.kill("SIGINT");
  const result = await end;
  if (result.status !== 0) {
    assert.equal(result.status, 1, result.stderr);
    assert.match(result.stderr, /^error INTERRUPTED: /m);
    assert.equal((await listed("stopped/**")).size, 0);
  }
  assert.equal((await load(source, ...args.slice(2, -1))).loaded, true);
});

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
    assert.equal(documentOf<ErrorDocument>(end).error.code, "REVISION_TIMEOUT");
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

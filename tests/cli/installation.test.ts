import assert from "node:assert/strict";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { startTestHub, type TestHub } from "./hub.ts";
import { documentOf, type Ended, type ErrorDocument, ended, lockstep, start } from "./lockstep.ts";

interface PlanDocument {
  readonly from: number | null;
  readonly to: number;
  readonly operations: readonly { readonly kind: string; readonly path: string; readonly reason: string }[];
  readonly sums: Readonly<Record<string, number>>;
}

const directory = mkdtempSync(join(tmpdir(), "lockstep-cli-installation-"));
const source = join(directory, "source");
let hub: TestHub;

before(async () => {
  // Without --dev: credentials are asked for.
  hub = await startTestHub(directory, ["--listen", "127.0.0.1:0"]);
  write({ "app/server.js": "one", "app/common.js": "one", "client/tool.js": "one" });
  await release("1");
});

after(async () => {
  await hub.stop();
  rmSync(directory, { recursive: true, force: true, maxRetries: 3 });
});

function write(files: Readonly<Record<string, string>>): void {
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(source, path)), { recursive: true });
    writeFileSync(join(source, path), content);
  }
}

async function release(version: string): Promise<void> {
  const assign = ["app/**=Server/JobServer", "app/common.js=Server", "client/**=Client"];
  const args = [
    "load",
    source,
    "--module",
    "APP",
    "--version",
    version,
    ...assign.flatMap((rule) => ["--assign", rule]),
  ];
  const end = await asAdministrator(...args, "--yes");
  assert.equal(end.status, 0, end.stderr);
}

const token = () => readFileSync(join(directory, "hub/token"), "utf8").trim();

/** With hub and token in the environment, as an administrator has them. */
function asAdministrator(...args: string[]): Promise<Ended> {
  return lockstep(args, { env: { LOCKSTEP_HUB: hub.url, LOCKSTEP_TOKEN: token() } });
}

/** With the token alone: the hub is the one of the installation. */
function onMachine(...args: string[]): Promise<Ended> {
  return lockstep(args, { env: { LOCKSTEP_TOKEN: token() } });
}

async function installed(name: string, ...args: string[]): Promise<string> {
  const target = join(directory, name);
  const end = await asAdministrator("install", target, "--role", "Server/JobServer", "--quiet", ...args);
  assert.equal(end.status, 0, end.stderr);
  return target;
}

test("a hub without --dev asks for its token: in the environment, in a file, and not without", async () => {
  const without = await lockstep(["roles", "--json"], { env: { LOCKSTEP_HUB: hub.url } });
  assert.equal(without.status, 3);
  assert.equal(documentOf<ErrorDocument>(without).error.code, "AUTHENTICATION_REQUIRED");
  const wrong = await lockstep(["roles"], { env: { LOCKSTEP_HUB: hub.url, LOCKSTEP_TOKEN: "wrong" } });
  assert.equal(wrong.status, 3);
  assert.match(wrong.stderr, /^error AUTHENTICATION_FAILED: /);
  const file = join(directory, "hub/token");
  assert.equal(statSync(file).mode & 0o777, 0o600);
  const byFile = await lockstep(["roles", "--hub", hub.url, "--token-file", file]);
  assert.equal(byFile.status, 0, byFile.stderr);
  assert.equal((await asAdministrator("roles")).status, 0);
});

test("install builds an installation of the roles and their parents from the hub alone", async () => {
  const target = join(directory, "fresh");
  const end = await asAdministrator("install", target, "--role", "Server/JobServer", "--json");
  assert.equal(end.status, 0, end.stderr);
  const { kind, to } = documentOf<{ kind: string; to: number }>(end);
  assert.equal(kind, "updated");
  assert.deepEqual(readdirSync(join(target, "app")).sort(), ["common.js", "server.js"]);
  assert.equal(existsSync(join(target, "client")), false);
  assert.match(
    readFileSync(join(target, ".softwarerevision.viv"), "utf8"),
    new RegExp(`^${to}\n\\d{4}-\\d\\d-\\d\\dT`),
  );
  const other = await asAdministrator("install", target, "--role", "Client");
  assert.equal(other.status, 3);
  assert.match(other.stderr, /^error INSTALLATION_EXISTS: /);
});

test("install refuses what does not exist, and makes no directory", async () => {
  const target = join(directory, "refused");
  const unknown = await asAdministrator("install", target, "--role", "Server/Nothing", "--json");
  assert.equal(unknown.status, 3);
  assert.equal(documentOf<ErrorDocument>(unknown).error.code, "ROLE_UNKNOWN");
  for (const args of [[], ["--role", "no//role"]]) {
    const end = await asAdministrator("install", target, ...args);
    assert.equal(end.status, 2, end.stderr);
  }
  const noHub = await lockstep(["install", target, "--role", "Server"]);
  assert.equal(noHub.status, 2);
  assert.equal(existsSync(target), false);
});

test("check says 0 or 10, plan says what and why, update brings it in step", async () => {
  const target = await installed("follow");
  const inStep = await onMachine("check", target, "--json");
  assert.equal(inStep.status, 0, inStep.stderr);
  const { current } = documentOf<{ current: number }>(inStep);
  assert.deepEqual(documentOf(inStep), { directory: target, inStep: true, installed: current, current });
  const relative = { env: { LOCKSTEP_TOKEN: token() }, cwd: directory };
  for (const command of ["check", "update", "plan", "verify", "configure"]) {
    const end = await lockstep([command, "follow", "--json"], relative);
    assert.equal(documentOf<{ directory: string }>(end).directory, target, command);
  }
  const nothing = await onMachine("plan", target, "--json");
  assert.equal(nothing.status, 0);

  write({ "app/server.js": "two!", "app/new.js": "two" });
  await release("2");
  const behind = await onMachine("check", target);
  assert.equal(behind.status, 10);
  assert.equal(behind.stdout, `behind: software revision ${current}, the hub has ${current + 1}\n`);
  assert.equal(behind.stderr, "");
  const plan = await onMachine("plan", target, "--json");
  assert.equal(plan.status, 10);
  const { from, to, operations } = documentOf<PlanDocument>(plan);
  assert.deepEqual([from, to], [current, current + 1]);
  assert.deepEqual(
    operations.map(({ kind, path, reason }) => [kind, path, reason]),
    [
      ["add", "app/new.js", "new"],
      ["replace", "app/server.js", "size"],
    ],
  );
  const shown = await onMachine("plan", target);
  assert.equal(shown.stdout, "+ app/new.js  (new, 3 B)\n~ app/server.js  (size 3 to 4)\n");

  const update = await onMachine("update", target);
  assert.equal(update.status, 0, update.stderr);
  assert.equal(update.stdout, `software revision ${current + 1} (before: ${current})\n`);
  assert.equal(readFileSync(join(target, "app/server.js"), "utf8"), "two!");
  const again = await onMachine("update", target);
  assert.equal(again.stdout, `in step: software revision ${current + 1}\n`);
  assert.equal((await onMachine("check", target)).status, 0);
});

test("outside of its window an update is postponed with 4, and --now fetches it", async () => {
  const target = await installed("window");
  const hour = String((new Date().getHours() + 12) % 24).padStart(2, "0");
  const window = `${hour}:00-${hour}:01`;
  assert.equal((await onMachine("configure", target, "--window", window)).status, 0);
  await asAdministrator("settings", "set", "Common/Transfer/WindowFromBytes=0");
  write({ "app/server.js": "later" });
  await release("2.1");
  const put = await onMachine("update", target, "--json");
  assert.deepEqual([put.status, documentOf<ErrorDocument>(put).error.code], [4, "UPDATE_POSTPONED"]);
  const now = await onMachine("update", target, "--now");
  assert.equal(now.status, 0, now.stderr);
  assert.equal(readFileSync(join(target, "app/server.js"), "utf8"), "later");
});

test("what is no installation, and a hub that is away, are operating errors", async () => {
  for (const command of ["check", "plan", "update", "verify", "repair", "rollback", "configure"]) {
    const end = await onMachine(command, join(directory, "nowhere"), "--json");
    assert.equal(end.status, 1, command);
    assert.equal(documentOf<ErrorDocument>(end).error.code, "INSTALLATION_NOT_FOUND", command);
  }
  const target = await installed("away");
  const end = await onMachine("check", target, "--hub", "http://127.0.0.1:1", "--json");
  assert.equal(end.status, 1);
  assert.equal(documentOf<ErrorDocument>(end).error.code, "HUB_UNREACHABLE");
});

test("verify finds damage, --repair and repair mend it", async () => {
  const target = await installed("damaged");
  assert.equal((await onMachine("verify", target)).status, 0);
  appendFileSync(join(target, "app/common.js"), "rot");
  const found = await onMachine("verify", target, "--json");
  assert.equal(found.status, 1);
  const { damages } = documentOf<{ damages: { path: string; problem: string }[] }>(found);
  assert.deepEqual(
    damages.map(({ path, problem }) => [path, problem]),
    [["app/common.js", "size"]],
  );
  assert.match(found.stderr, /^error INSTALLATION_DAMAGED: /m);
  const mended = await onMachine("verify", target, "--repair", "--json");
  assert.equal(mended.status, 0, mended.stderr);
  assert.equal((await onMachine("verify", target)).status, 0);
  await onMachine("configure", target, "--edits", "keep");
  appendFileSync(join(target, "app/common.js"), "mine");
  const kept = await onMachine("verify", target);
  assert.match(kept.stderr, /leaves what was edited.*with --edits replace it brings everything back/);
  assert.match((await onMachine("verify", target, "--repair")).stdout, /but for 1 edited file that stays\n$/);
  assert.equal((await onMachine("verify", target, "--repair", "--edits", "replace")).status, 0);
  assert.equal((await onMachine("verify", target)).status, 0);
  await onMachine("configure", target, "--edits", "replace");
  rmSync(join(target, "app/common.js"));
  const repair = await onMachine("repair", target);
  assert.equal(repair.status, 0, repair.stderr);
  assert.match(repair.stdout, /^software revision \d+: 1 mended\n$/);
});

test("where something stands in the way of a repair, the advice is to move it first, and then it works", async () => {
  const target = await installed("linked");
  const folder = join(target, "app");
  renameSync(folder, join(directory, "linked-elsewhere"));
  symlinkSync(join(directory, "linked-elsewhere"), folder);
  const found = await onMachine("verify", target);
  assert.equal(found.status, 1);
  const way = `its folder app is a symbolic link\\). Move that out of the installation first; then lockstep verify ${target} --repair`;
  assert.match(found.stderr, new RegExp(`hint: A repair would be refused: .*\\(${way} mends it`));
  const doctor = await onMachine("doctor", target);
  assert.match(doctor.stdout, new RegExp(`\\d+ files are not as installed, .*\\n.*\\(${way}`));
  const refused = await onMachine("verify", target, "--repair");
  assert.match(refused.stderr, /error INSTALLATION_CONFLICT/, "or the advice is older than what repairs do");
  rmSync(folder);
  assert.equal((await onMachine("verify", target, "--repair")).status, 0);
  rmSync(join(target, "app/common.js"));
  assert.match((await onMachine("doctor", target)).stdout, /: 1 file is not as installed: app\/common\.js\n/);
});

test("rollback takes the last update back and keeps the installation there", async () => {
  const target = await installed("backwards");
  write({ "app/server.js": `three ${Date.now()}` });
  await release("3");
  const former = readFileSync(join(target, "app/server.js"), "utf8");
  await onMachine("update", target);
  assert.notEqual(readFileSync(join(target, "app/server.js"), "utf8"), former);
  const back = await onMachine("rollback", target, "--json");
  assert.equal(back.status, 0, back.stderr);
  const { from, to } = documentOf<{ from: number; to: number }>(back);
  assert.equal(from, to + 1);
  assert.equal(readFileSync(join(target, "app/server.js"), "utf8"), former);
  const { settings } = documentOf<{ settings: { autoUpdate: boolean } }>(
    await onMachine("configure", target, "--json"),
  );
  assert.equal(settings.autoUpdate, false);
});

test("the log gives one record a line, for people and as documents", async () => {
  const target = await installed("logged");
  const end = await onMachine("log", target, "--json");
  assert.equal(end.status, 0);
  const records = end.stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as { action: string; path: string | null });
  assert.equal(records[0]?.action, "begin");
  assert.equal(records.at(-1)?.action, "end");
  assert.ok(records.some((record) => record.action === "add" && record.path === "app/server.js"));
  const plain = await onMachine("log", target, "--last", "1");
  assert.equal(plain.stdout.split("\n").length, 2);
});

test("an altered update.log ends log and verify with a code of its own, and doctor is not healthy", async () => {
  const target = await installed("forged");
  const path = join(target, "update.log");
  const whole = readFileSync(path, "utf8");
  const [first = "", ...rest] = whole.split("\n");
  const link = /"chain":"([0-9a-f]{64})"/.exec(first)?.[1] ?? "none";
  writeFileSync(path, [first.replace('"result":"ok"', '"result":"failed"'), ...rest].join("\n"));
  const log = await onMachine("log", target, "--last", "1", "--json");
  assert.equal(log.status, 3);
  assert.match(log.stderr, /^error UPDATE_LOG_ALTERED: .*update\.log, line 1$/m);
  const [record, failure] = log.stdout
    .trimEnd()
    .split("\n")
    .map(
      (line) =>
        JSON.parse(line) as { chain?: string; error?: { code: string; expected: string; found: string } },
    );
  assert.match(String(record?.chain), /^[0-9a-f]{64}$/);
  assert.deepEqual([failure?.error?.code, failure?.error?.found], ["UPDATE_LOG_ALTERED", `the link ${link}`]);
  assert.match(String(failure?.error?.expected), /^the link [0-9a-f]{64}$/);
  const verify = await onMachine("verify", target, "--json");
  assert.equal(verify.status, 3);
  assert.equal(documentOf<{ logBreak: { line: number } }>(verify).logBreak.line, 1);
  const doctor = await onMachine("doctor", target, "--json");
  assert.equal(doctor.status, 1);
  const { checks } = documentOf<{ checks: { state: string; detail: string }[] }>(doctor);
  assert.ok(checks.some(({ state, detail }) => state === "failed" && detail.includes(link)));
  // The control: as it was written, all three are content.
  writeFileSync(path, whole);
  for (const command of ["log", "verify", "doctor"])
    assert.equal((await onMachine(command, target)).status, 0, command);
});

test("trust check looks now; another content under the installed number ends it and check with status 3", async () => {
  const target = await installed("looked-at");
  const fine = await onMachine("trust", "check", target);
  assert.equal(fine.status, 0, fine.stderr);
  for (const role of ["root", "targets", "snapshot", "timestamp"])
    assert.match(fine.stdout, new RegExp(`^${role}\\t\\d+\\t2\\d{3}-[^\\t]+\\t1 of 1\\t[0-9a-f]{12}$`, "m"));
  assert.match(fine.stdout, /^what is signed is as it must be$/m);
  assert.equal((await onMachine("check", target)).status, 0);
  // As if what is installed had been signed as something else.
  const record = join(target, ".lockstep/trust/installed");
  const { revision } = JSON.parse(readFileSync(record, "utf8")) as { revision: number };
  writeFileSync(record, JSON.stringify({ revision, digest: "ab".repeat(32) }));
  for (const command of [["check"], ["update"], ["trust", "check"]]) {
    const { status, stderr } = await onMachine(...command, target);
    assert.equal(status, 3, command.join(" "));
    assert.match(stderr, /^error TRUST_REVISION_DIFFERS: /m);
  }
  const { problem, installed: here } = documentOf<{
    problem: { code: string };
    installed: { digest: string };
  }>(await onMachine("trust", "check", target, "--json"));
  assert.deepEqual([problem.code, here.digest], ["TRUST_REVISION_DIFFERS", "ab".repeat(32)]);
});

test("configure shows and changes the settings of an installation", async () => {
  const target = await installed("configured", "--auto-update", "off", "--edits", "keep");
  const shown = documentOf<{ hub: { url: string }; settings: unknown; roles: string[] }>(
    await onMachine("configure", target, "--json"),
  );
  assert.deepEqual(
    [shown.hub.url, shown.settings, shown.roles],
    [hub.url, { autoUpdate: false, edits: "keep" }, ["Server/JobServer"]],
  );
  const changed = await onMachine("configure", target, "--auto-update", "on", "--json");
  assert.deepEqual(documentOf<{ settings: unknown }>(changed).settings, { autoUpdate: true, edits: "keep" });
  assert.equal((await onMachine("configure", target, "--edits", "nonsense")).status, 2);
});

test("configure changes the machine roles, says what that changes, and changes nothing with --dry-run", async () => {
  const target = await installed("other-roles");
  const tools = () => existsSync(join(target, "client/tool.js"));
  const dry = await onMachine("configure", target, "--role", "Client", "--dry-run");
  assert.equal(dry.status, 10, dry.stderr);
  assert.match(dry.stdout, /^(?:- app\/.*\n)+\+ client\/tool\.js .*\n$/);
  assert.match(dry.stderr, /^machine roles: Server\/JobServer -> Client$/m);
  assert.equal(tools(), false);
  const both = await onMachine("configure", target, "--role", "Server/JobServer,Client", "--json");
  assert.equal(both.status, 0, both.stderr);
  const document = documentOf<{ after: { roles: string[] }; run: { to: number } | null }>(both);
  assert.deepEqual(document.after.roles, ["Client", "Server/JobServer"]);
  assert.ok(tools() && existsSync(join(target, "app/server.js")));
  const again = await onMachine("configure", target, "--role", "Client", "--role", "Server/JobServer");
  assert.match(again.stdout, /^nothing to change: software revision \d+\n$/);
  const client = await onMachine("configure", target, "--role", "Client");
  assert.match(client.stdout, /^software revision \d+: Client\n$/);
  assert.match(client.stderr, /^- app\/server\.js /m);
  assert.equal(existsSync(join(target, "app/server.js")), false);
  assert.equal((await onMachine("verify", target)).status, 0);
  assert.equal((await onMachine("configure", target, "--role", "Client", "--edits", "keep")).status, 2);
  assert.equal((await onMachine("configure", target, "--role", "none")).status, 2);
  assert.equal((await onMachine("configure", target, "--dry-run")).status, 2);
  const refused = await asAdministrator("install", target, "--role", "Server/JobServer");
  assert.match(refused.stderr, /lockstep configure DIR --role Server\/JobServer/);
});

test("launch starts the program with its own arguments, output and exit status", async () => {
  const target = await installed("launched");
  const end = await onMachine(
    "launch",
    target,
    "--",
    "/bin/sh",
    "-c",
    'echo "$1 $LOCKSTEP_TOKEN"; exit 7',
    "x",
    "--json",
  );
  assert.deepEqual([end.status, end.stdout], [7, "--json \n"], end.stderr);
  const without = await onMachine("launch", target, "--");
  assert.equal(without.status, 2);
  const missing = await onMachine("launch", target, "--", "/no/such/program");
  assert.equal(missing.status, 1);
  assert.match(missing.stderr, /^error PROGRAM_NOT_STARTED: /m);
});

test("an agent follows, tells each event as a document, and ends with 0 when it is told to", async () => {
  const target = await installed("agent");
  const child = start(["agent", target, "--json"], { env: { LOCKSTEP_TOKEN: token() } });
  const end = ended(child);
  const saw = (kind: string) =>
    new Promise<void>((resolve) => {
      child.stdout?.on("data", (text: string) => {
        if (text.includes(`"kind":"${kind}"`)) resolve();
      });
    });
  await Promise.race([saw("in-step"), saw("updated"), end]);
  const updated = saw("updated");
  write({ "app/server.js": `four ${Date.now()}` });
  await release("4");
  await Promise.race([updated, end]);
  child.kill("SIGTERM");
  const { status, stdout, stderr } = await end;
  assert.equal(status, 0, stderr);
  const kinds = stdout
    .trimEnd()
    .split("\n")
    .map((line) => (JSON.parse(line) as { kind: string }).kind);
  assert.equal(kinds[0], "watching");
  assert.ok(kinds.includes("updated"));
  assert.equal(kinds.at(-1), "stopped");
  assert.equal(
    readFileSync(join(target, "app/server.js"), "utf8"),
    readFileSync(join(source, "app/server.js"), "utf8"),
  );
});

test("an agent that looks once ends with 1 when a look failed", async () => {
  const target = await installed("once");
  assert.equal((await onMachine("agent", target, "--once")).status, 0);
  assert.equal((await onMachine("agent", target, "--once", "--hub", "http://127.0.0.1:1")).status, 1);
});

test("the fleet shows each installation as it last reported itself", async () => {
  const target = await installed("reported");
  const fleet = documentOf<{
    revision: number;
    installations: { directory: string; revision: number; outcome: string }[];
  }>(await asAdministrator("fleet", "list", "--json"));
  const one = fleet.installations.find((each) => each.directory === target);
  assert.deepEqual([one?.revision, one?.outcome], [fleet.revision, "updated"]);
});

test("the doctor finds a sound world sound, and names what is not", async () => {
  interface Diagnosis {
    readonly healthy: boolean;
    readonly checks: readonly { readonly id: string; readonly state: string; readonly hint: string | null }[];
  }
  const target = await installed("patient");
  const sound = await asAdministrator("doctor", target, "--json");
  assert.equal(sound.status, 0, sound.stdout);
  assert.ok(documentOf<Diagnosis>(sound).healthy);
  appendFileSync(join(target, "app/common.js"), "rot");
  await asAdministrator("dbqueue", "stop");
  const sick = await asAdministrator("doctor", target, "--json").finally(() =>
    asAdministrator("dbqueue", "start"),
  );
  assert.equal(sick.status, 1);
  const failed = documentOf<Diagnosis>(sick).checks.filter((check) => check.state === "failed");
  assert.deepEqual(failed.map((check) => check.id).sort(), [target, "DBQueue"].sort());
  assert.ok(failed.every((check) => check.hint !== null));
  const away = await onMachine("doctor", "--hub", "http://127.0.0.1:1");
  assert.equal(away.status, 1);
  assert.match(away.stdout, /^failed .*HUB_UNREACHABLE/m);
});

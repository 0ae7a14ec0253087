import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { chmod, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { systemClock } from "@lockstep/platform";
import {
  createSystemLog,
  formatLaunchdPlist,
  formatUnit,
  formatWindowsCommands,
  NODE_UNIT_MARK,
  nodeUnit,
  registerService,
  registerUnit,
  type ServiceProgram,
  unregisterService,
} from "../../packages/service/src/index.ts";
import { temporaryDirectory } from "../cli/lockstep.ts";

const hasAnalyze = spawnSync("systemd-analyze", ["--version"]).status === 0;
const skip = hasAnalyze ? false : "systemd-analyze is not on this machine";

/** The exposure that the issue of the service allows. */
const EXPOSURE_MAX = 2.5;

async function program(t: TestContext, changes: Partial<ServiceProgram> = {}): Promise<ServiceProgram> {
  const directory = join(temporaryDirectory(t), "my app %n$HOME");
  await mkdir(directory);
  return {
    name: "lockstep-try",
    command: [process.execPath, join(directory, "lock step.mjs")],
    configFile: join(directory, "Job Service.toml"),
    directory,
    writable: ["/var/log/not there"],
    user: "daemon",
    drainMs: 60_000,
    queues: ["\\\\S1%i", "two\nlines"],
    ...changes,
  };
}

async function writeUnit(t: TestContext, text: string): Promise<string> {
  const path = join(temporaryDirectory(t), "lockstep-try.service");
  await writeFile(path, text);
  return path;
}

test("systemd accepts the unit, also with odd paths, and calls its exposure low", { skip }, async (t) => {
  const homes = await program(t, {
    writable: ["/home/somebody/log dir"],
    command: [process.execPath, "/home/x/lockstep.mjs"],
  });
  for (const each of [await program(t), homes]) {
    const path = await writeUnit(t, formatUnit(each));
    const verified = spawnSync("systemd-analyze", ["verify", path], { encoding: "utf8" });
    assert.equal(
      verified.stderr
        .split("\n")
        .filter((line) => line.includes("lockstep-try"))
        .join("\n"),
      "",
    );
    assert.equal(verified.status, 0);
    const security = execFileSync("systemd-analyze", ["security", "--offline=true", "--no-pager", path], {
      encoding: "utf8",
    });
    const exposure = Number(/Overall exposure level for \S+: ([\d.]+)/.exec(security)?.[1]);
    assert.ok(exposure <= EXPOSURE_MAX, `exposure ${exposure}`);
  }
});

test("the unit starts exactly this program, whatever its paths are called", async (t) => {
  const each = await program(t);
  const unit = formatUnit(each);
  const start = /^ExecStart=(.*)$/m.exec(unit)?.[1] ?? "";
  // As systemd.service(5) reads it: words in quotes, %% and $$ undone.
  const words = [...start.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map((match) =>
    (match[1] ?? match[2] ?? "").replaceAll(/\\(.)/g, "$1").replaceAll("%%", "%").replaceAll("$$", "$"),
  );
  assert.deepEqual(words, [...each.command, "service", "run", "--config", each.configFile]);
  assert.equal(unit.split("\n").filter((line) => line.startsWith("Description=")).length, 1);
  assert.match(unit, /^Description=.*two lines\)$/m);
  for (const line of [
    "Type=notify",
    "WatchdogSec=60",
    "Restart=always",
    "TimeoutStopSec=90",
    "NotifyAccess=all",
  ])
    assert.ok(unit.includes(`\n${line}\n`), line);
  assert.throws(() => formatUnit({ ...each, directory: "/a\nExecStartPre=/bin/false" }), {
    code: "SERVICE_INSTALL_FAILED",
  });
});

test("systemd accepts the unit of a node's daemon, which ends the daemon alone", { skip }, async (t) => {
  const directory = join(temporaryDirectory(t), "my app %n$HOME");
  await mkdir(directory);
  const configFile = join(directory, "no de.toml");
  const { text, mark } = nodeUnit({
    name: "lockstep-try",
    command: [process.execPath, join(directory, "lock step.mjs")],
    configFile,
  });
  const path = await writeUnit(t, text);
  const verified = spawnSync("systemd-analyze", ["verify", path], { encoding: "utf8" });
  const told = verified.stderr.split("\n").filter((line) => line.includes("lockstep-try"));
  assert.deepEqual([verified.status, told], [0, []]);
  // Guards end what the daemon had; what it mounts must be seen by the whole machine.
  for (const line of ["Type=notify", "WatchdogSec=30", "KillMode=process", "Restart=always", mark])
    assert.ok(text.includes(`${line}\n`), line);
  assert.doesNotMatch(text, /^(ProtectSystem|Private\w+|ProtectHome|ReadWritePaths|BindPaths)=/m);
});

test("a node's unit is registered, and only its own command takes it out again", async (t) => {
  const world = await standIn(t);
  const unit = nodeUnit({ name: "lockstep-try", command: ["/usr/bin/node"], configFile: "/etc/node.toml" });
  const path = await registerUnit(unit, world.options);
  assert.equal(await readFile(path, "utf8"), unit.text);
  await assert.rejects(unregisterService(unit.name, world.options), { code: "SERVICE_INSTALL_FAILED" });
  await unregisterService(unit.name, world.options, NODE_UNIT_MARK);
  assert.deepEqual(await readdir(world.units), []);
});

/** Stands in for systemctl: remembers what it was asked, and fails where it is told to. */
async function standIn(t: TestContext, failing = "") {
  const directory = temporaryDirectory(t);
  const systemctl = join(directory, "systemctl");
  const asked = join(directory, "asked");
  await writeFile(asked, "");
  await writeFile(
    systemctl,
    `#!/bin/sh\necho "$@" >> '${asked}'\n[ "$1" != '${failing}' ] || { echo refused >&2; exit 1; }\n`,
  );
  await chmod(systemctl, 0o755);
  const units = join(directory, "units");
  await mkdir(units);
  return {
    units,
    options: { unitDirectory: units, now: true, systemctl },
    asked: async () => (await readFile(asked, "utf8")).trim().split("\n"),
  };
}

test("a service is written, enabled and started; again with other values; and taken out again", async (t) => {
  const world = await standIn(t);
  const each = await program(t);
  const path = await registerService(each, world.options);
  assert.equal(await readFile(path, "utf8"), formatUnit(each));
  await registerService({ ...each, user: "nobody" }, { ...world.options, now: false });
  assert.match(await readFile(path, "utf8"), /^User=nobody$/m);
  await unregisterService(each.name, world.options);
  assert.deepEqual(await readdir(world.units), []);
  assert.deepEqual(await world.asked(), [
    "daemon-reload",
    "enable lockstep-try.service",
    "restart lockstep-try.service",
    "daemon-reload",
    "enable lockstep-try.service",
    "disable --now lockstep-try.service",
    "daemon-reload",
  ]);
  await assert.rejects(unregisterService(each.name, world.options), { code: "SERVICE_INSTALL_FAILED" });
});

test("a unit of somebody else is left alone, and a name that leads elsewhere is refused", async (t) => {
  const world = await standIn(t);
  const each = await program(t);
  await writeFile(join(world.units, "lockstep-try.service"), "[Service]\nExecStart=/bin/true\n");
  await assert.rejects(registerService(each, world.options), { code: "SERVICE_INSTALL_FAILED" });
  await assert.rejects(unregisterService(each.name, world.options), { code: "SERVICE_INSTALL_FAILED" });
  assert.match(await readFile(join(world.units, "lockstep-try.service"), "utf8"), /bin\/true/);
  for (const name of ["../x", "a/b", "", "-rf"])
    await assert.rejects(registerService({ ...each, name }, world.options), { code: "USAGE" }, name);
  assert.deepEqual(await world.asked(), [""]);
});

test("an account that no system can have is refused before anything is written", async (t) => {
  const world = await standIn(t);
  const each = await program(t);
  for (const user of ["no body", "", "a\nExecStart=/bin/sh", "-x", "a%n", "x".repeat(40)])
    await assert.rejects(
      async () => registerService({ ...each, user }, world.options),
      { code: "USAGE" },
      user,
    );
  for (const user of ["jobs", "Jobs_1.x-y", "machine$", "1000"]) formatUnit({ ...each, user });
  assert.deepEqual(await world.asked(), [""]);
});

test("what systemd refuses is told with its own words", async (t) => {
  const world = await standIn(t, "enable");
  await assert.rejects(
    registerService(await program(t), world.options),
    (error: { code: string; found: string }) => {
      assert.deepEqual([error.code, error.found], ["SERVICE_INSTALL_FAILED", "refused"]);
      return true;
    },
  );
});

test("the texts for other systems name the program and say that they are untested", async (t) => {
  const each = await program(t, { directory: "/opt/a & b", configFile: "/opt/a & b/x.toml" });
  const plist = formatLaunchdPlist(each);
  assert.match(plist, /UNTESTED/);
  assert.match(plist, /<string>\/opt\/a &amp; b\/x\.toml<\/string>/);
  const commands = formatWindowsCommands(each);
  assert.match(commands, /^rem UNTESTED/);
  assert.match(commands, /sc\.exe failureflag lockstep-try 1/);
});

async function until<T>(read: () => Promise<T>, isThere: (value: T) => boolean): Promise<T> {
  for (;;) {
    const value = await read();
    if (isThere(value)) return value;
    await systemClock.sleep(5);
  }
}

test("the system log is the journal, else logger, else standard error", async (t) => {
  const directory = temporaryDirectory(t);
  const heard: string[] = [];
  const stderr = { write: (text: string) => heard.push(text) };
  createSystemLog({ environment: { JOURNAL_STREAM: "8:1" }, stderr }).warning("a\nb");
  assert.deepEqual(heard.splice(0), ["<4>a\\u000ab\n"]);

  const asked = join(directory, "asked");
  await writeFile(asked, "");
  const logger = join(directory, "logger");
  await writeFile(logger, `#!/bin/sh\nprintf '%s|' "$@" > '${asked}'\n`);
  await chmod(logger, 0o755);
  createSystemLog({ environment: {}, stderr, socket: directory, logger }).notice("--well");
  const text = await until(
    () => readFile(asked, "utf8"),
    (each) => each.endsWith("|"),
  );
  assert.equal(text, "-t|lockstep-service|-p|daemon.notice|--|--well|");
  assert.deepEqual(heard, []);

  createSystemLog({ environment: {}, stderr, socket: join(directory, "none") }).warning("c");
  assert.deepEqual(heard.splice(0), ["lockstep-service: c\n"]);
  createSystemLog({ environment: {}, stderr, socket: directory, logger: join(directory, "gone") }).warning(
    "d",
  );
  await until(
    async () => heard,
    ({ length }) => length > 0,
  );
  assert.deepEqual(heard, ["lockstep-service: d\n"]);
});

import assert from "node:assert/strict";
import test from "node:test";
import { isLockstepError } from "@lockstep/protocol";
import { Prng, SimDisk, type SimDiskOptions } from "@lockstep/testing";
import {
  type ApplyContext,
  beginStaging,
  type CommitRequest,
  type CommitResult,
  commit,
  discardStaging,
  type Operation,
  previousRevision,
  readRevisionFile,
  recover,
  rollbackPrevious,
  writeRevisionFile,
} from "./index.ts";

const ROOT = "/app";
const bytes = (text: string) => new TextEncoder().encode(text);

/** An installation on a simulated disk: `path: content`, or `path: -> target` for a link. Everything is durable. */
function install(files: Record<string, string>, options: Partial<SimDiskOptions> = {}) {
  const disk = new SimDisk(options);
  const warnings: string[] = [];
  const ctx: ApplyContext = {
    disk,
    root: ROOT,
    clock: { now: () => 1000, monotonic: () => 0 },
    log: { info: () => {}, warn: (message) => warnings.push(message) },
  };
  disk.makeDirectory(ROOT, 0o755);
  disk.makeDirectory("/etc", 0o755);
  for (const [path, content] of Object.entries(files)) {
    const names = path.split("/").slice(0, -1);
    names.forEach((_, at) => {
      const directory = `${ROOT}/${names.slice(0, at + 1).join("/")}`;
      if (disk.lstat(directory) === null) disk.makeDirectory(directory, 0o755);
    });
    if (content.startsWith("-> ")) disk.symlink(content.slice(3), `${ROOT}/${path}`);
    else disk.writeFile(`${ROOT}/${path}`, bytes(content), 0o644);
  }
  disk.settle();
  disk.plan();
  return { disk, ctx, warnings };
}

type Change = Record<string, string | null>;

/** Stages and commits: a text is put at its path, null removes. */
async function apply(
  ctx: ApplyContext,
  change: Change,
  more: Partial<CommitRequest> = {},
): Promise<CommitResult> {
  const staging = await beginStaging(ctx);
  const operations = Object.entries(change).map(([path, content], n): Operation => {
    if (content === null) return { n, kind: "remove", path };
    ctx.disk.writeFile(staging.pathFor(n), bytes(content), 0o600);
    return { n, kind: "put", path, mode: 0o640 };
  });
  return commit(ctx, {
    staging,
    operations,
    state: bytes("state 2"),
    from: 1,
    to: 2,
    startedAt: 2000,
    ...more,
  });
}

/** What stands in the installation, without its private directory and directories that only hold files. */
function listing(disk: SimDisk): Record<string, string> {
  return Object.fromEntries(
    [...disk.tree(ROOT)]
      .filter(([path, what]) => !path.startsWith(".lockstep") && !what.startsWith("directory"))
      .map(([path, what]): [string, string] => [
        path,
        what.replace(/^file \d+ /, "").replace(/^link /, "-> "),
      ])
      .sort(),
  );
}

const codeIs = (code: string) => (error: unknown) => isLockstepError(error) && error.code === code;
const INSTALLED = {
  "InstallState.config": "state 1",
  ".softwarerevision.viv": "1\n1970-01-01T00:00:01.000Z\n",
};
const UPDATED = {
  "InstallState.config": "state 2",
  ".softwarerevision.viv": "2\n1970-01-01T00:00:02.000Z\n",
};

test("an update puts, removes, tidies up and says what it did", async () => {
  const { disk, ctx } = install({ ...INSTALLED, "a/x": "1", "b/y": "1", mine: "m" });
  const result = await apply(ctx, { "a/x": "2", "b/y": null, "c/z": "2" });
  assert.deepEqual(result, { kind: "applied", switchMs: 0, put: 2, removed: 1 });
  assert.deepEqual(listing(disk), { ...UPDATED, "a/x": "2", "c/z": "2", mine: "m" });
  assert.equal(disk.lstat(`${ROOT}/b`), null);
  assert.equal(disk.lstat(`${ROOT}/a/x`)?.mode, 0o640);
  assert.equal(disk.lstat(`${ROOT}/.softwarerevision.viv`)?.mode, 0o444);
  assert.equal(disk.lstat(`${ROOT}/.lockstep`)?.mode, 0o700);
});

test("a recovery with nothing to do looks at one path", async () => {
  const { disk, ctx } = install(INSTALLED);
  assert.deepEqual(await recover(ctx), { kind: "nothing" });
  assert.equal(disk.calls, 1);
});

test("no link leads a write out of the installation, wherever it was planted", async () => {
  for (const [planted, change] of [
    [{ lib: "-> /etc" }, { "lib/passwd": "evil" }],
    [{ "a/lib": "-> /etc" }, { "a/lib/x/y": "evil" }],
    [{ ".lockstep": "-> /etc" }, { passwd: "evil" }],
  ] as const) {
    const { disk, ctx } = install({ ...INSTALLED, ...planted });
    await assert.rejects(apply(ctx, change), codeIs("INSTALLATION_CONFLICT"));
    assert.deepEqual(disk.readDirectory("/etc"), []);
    assert.deepEqual(disk.readDirectory(`${ROOT}`).includes("passwd"), false);
  }
});

test("a link that is planted after everything was looked at is found before the switch", async () => {
  const { disk, ctx } = install({ ...INSTALLED, "lib/x": "1" });
  const swap = () => {
    disk.rename(`${ROOT}/lib`, `${ROOT}/lib.away`);
    disk.symlink("/etc", `${ROOT}/lib`);
  };
  // Neither forward nor back goes through it: the record stays until the link is gone.
  await assert.rejects(
    apply(ctx, { "lib/x": "2" }, { hooks: { stop: swap } }),
    codeIs("INSTALLATION_CONFLICT"),
  );
  assert.deepEqual(disk.readDirectory("/etc"), []);
  disk.unlink(`${ROOT}/lib`);
  disk.rename(`${ROOT}/lib.away`, `${ROOT}/lib`);
  assert.equal((await recover(ctx)).kind, "rolled-back");
  assert.deepEqual(listing(disk), { ...INSTALLED, "lib/x": "1" });
});

test("a removal does not reach through a link, and a file that became a link is replaced as a link", async () => {
  const { disk, ctx } = install({ ...INSTALLED, lib: "-> /etc", conf: "-> /etc/passwd" });
  disk.writeFile("/etc/passwd", bytes("root"), 0o644);
  await apply(ctx, { "lib/passwd": null, conf: "2" });
  assert.equal(Buffer.from(disk.readFile("/etc/passwd")).toString(), "root");
  assert.deepEqual(listing(disk), { ...UPDATED, lib: "-> /etc", conf: "2" });
  await rollbackPrevious(ctx, { startedAt: 3000 });
  assert.equal(listing(disk).conf, "-> /etc/passwd");
});

test("a file that became a link and then a directory is put back as the link", async () => {
  const { disk, ctx } = install({ ...INSTALLED, a: "-> /etc" });
  disk.writeFile("/etc/passwd", bytes("root"), 0o644);
  const change = { "a/passwd": "2", a: null };
  const refused = await apply(ctx, change, { hooks: { afterSwitch: () => false } });
  assert.equal(refused.kind, "rolled-back");
  assert.deepEqual(listing(disk), { ...INSTALLED, a: "-> /etc" });
  assert.equal((await apply(ctx, change)).kind, "applied");
  assert.deepEqual(listing(disk), { ...UPDATED, "a/passwd": "2" });
  assert.equal(Buffer.from(disk.readFile("/etc/passwd")).toString(), "root");
});

test("paths that mean something else elsewhere are refused again, whoever let them through", async () => {
  for (const path of [
    "../x",
    "/etc/x",
    "C:x",
    "a\\b",
    "NUL.txt",
    "a.",
    "a:b",
    ".lockstep/x",
    "update.lock",
  ]) {
    const { disk, ctx } = install(INSTALLED);
    await assert.rejects(apply(ctx, { [path]: "evil" }), codeIs("PATH_REFUSED"), path);
    assert.deepEqual(listing(disk), INSTALLED);
  }
});

test("a directory without permission is found before anything happens", async () => {
  const { disk, ctx } = install({ ...INSTALLED, "a/x": "1", "b/y": "1" });
  disk.changeMode(`${ROOT}/b`, 0o555);
  await assert.rejects(apply(ctx, { "a/x": "2", "b/y": "2" }), codeIs("INSTALLATION_NOT_WRITABLE"));
  assert.deepEqual(listing(disk), { ...INSTALLED, "a/x": "1", "b/y": "1" });
  assert.deepEqual(disk.readDirectory(`${ROOT}/.lockstep/staging`), []);
});

test("files that are held open are all named before anything happens", async () => {
  const { disk, ctx } = install({ ...INSTALLED, a: "1", b: "1", c: "1" });
  disk.held.add(`${ROOT}/a`).add(`${ROOT}/c`);
  await assert.rejects(apply(ctx, { a: "2", b: "2", c: null }), (error) => {
    assert.ok(isLockstepError(error, "INSTALLATION_FILE_IN_USE"));
    assert.deepEqual(
      error.faults.map(({ where }) => where),
      ["a", "c"],
    );
    return true;
  });
  assert.deepEqual(listing(disk), { ...INSTALLED, a: "1", b: "1", c: "1" });
});

test("a foreign file in the way is a conflict that names it", async () => {
  const { disk, ctx } = install({ ...INSTALLED, "a/mine": "m", b: "mine" });
  for (const change of [{ a: "2" }, { "b/x": "2" }])
    await assert.rejects(apply(ctx, change), codeIs("INSTALLATION_CONFLICT"));
  assert.deepEqual(listing(disk), { ...INSTALLED, "a/mine": "m", b: "mine" });
});

test("where files can have no second name they are copied, with their modes", async () => {
  const { disk, ctx } = install({ ...INSTALLED, a: "1", b: "1", c: "-> /etc" }, { linkError: "ENOTSUP" });
  disk.changeMode(`${ROOT}/a`, 0o751);
  const result = await apply(ctx, { a: "2", b: null, c: "2" }, { hooks: { afterSwitch: () => false } });
  assert.equal(result.kind, "rolled-back");
  assert.deepEqual(listing(disk), { ...INSTALLED, a: "1", b: "1", c: "-> /etc" });
  assert.equal(disk.lstat(`${ROOT}/a`)?.mode, 0o751);
});

test("stop comes when everything is staged and nothing has happened; its error is the caller's own", async () => {
  const { disk, ctx } = install({ ...INSTALLED, a: "1" });
  const stop = () => {
    assert.equal(listing(disk).a, "1");
    assert.equal(disk.lstat(`${ROOT}/.lockstep/commit.json`), null);
    throw new RangeError("the service does not stop");
  };
  await assert.rejects(apply(ctx, { a: "2" }, { hooks: { stop } }), RangeError);
  assert.deepEqual(listing(disk), { ...INSTALLED, a: "1" });
  assert.deepEqual(disk.readDirectory(`${ROOT}/.lockstep/staging`), []);
});

test("afterSwitch sees the new files and the old revision; its no and its error take everything back", async () => {
  for (const verdict of ["no", "error"]) {
    const { disk, ctx } = install({ ...INSTALLED, a: "1" });
    const afterSwitch = () => {
      assert.deepEqual(listing(disk), { ...INSTALLED, "InstallState.config": "state 2", a: "2", b: "2" });
      if (verdict === "error") throw new Error("it does not start");
      return false;
    };
    const result = await apply(ctx, { a: "2", b: "2" }, { hooks: { afterSwitch } });
    assert.equal(result.kind === "rolled-back" && result.stage, "after-switch");
    assert.equal(
      result.kind === "rolled-back" && result.error?.code,
      verdict === "error" ? "PLUGIN_FAILED" : undefined,
    );
    assert.deepEqual(listing(disk), { ...INSTALLED, a: "1" });
  }
});

test("what a program wrote between switch and way back stays, and is set aside where it is in the way", async () => {
  const { disk, ctx, warnings } = install({ ...INSTALLED, a: "1" });
  const afterSwitch = () => {
    disk.writeFile(`${ROOT}/made/log`, bytes("written"), 0o644);
    disk.writeFile(`${ROOT}/a/log`, bytes("written too"), 0o644);
    return false;
  };
  await apply(ctx, { "made/x": "2", a: null, "a/b": "2" }, { hooks: { afterSwitch } });
  assert.deepEqual(listing(disk), {
    ...INSTALLED,
    a: "1",
    "made/log": "written",
    "a.kept-1/log": "written too",
  });
  assert.equal(warnings.length, 1);
});

test("an update that was killed is finished by whoever comes next, who asks after it again", async () => {
  const { disk, ctx } = install({ ...INSTALLED, a: "1", b: "1" });
  disk.plan({ call: await callOf(ctx, disk, { a: "2", b: "2" }, "b"), dies: true });
  await assert.rejects(apply(ctx, { a: "2", b: "2" }));
  disk.kill();
  assert.notEqual(listing(disk).a, listing(disk).b);
  await assert.rejects(beginStaging(ctx), codeIs("INSTALLATION_DAMAGED"));
  await discardStaging(ctx);
  let asked = 0;
  const result = await recover(ctx, { afterSwitch: () => ++asked > 0, index: () => bytes("index") });
  assert.deepEqual(result, { kind: "finished", from: 1, to: 2, startedAt: 2000 });
  assert.equal(asked, 1);
  assert.deepEqual(listing(disk), { ...UPDATED, a: "2", b: "2" });
  assert.equal(Buffer.from(disk.readFile(`${ROOT}/.lockstep/index`)).toString(), "index");
});

/** The number of the call that moves the new file to a path, found by trying them all. */
async function callOf(ctx: ApplyContext, disk: SimDisk, change: Change, path: string): Promise<number> {
  for (let call = 1; ; call++) {
    const trial = disk.clone();
    trial.plan({ call, dies: true });
    await apply({ ...ctx, disk: trial }, change).catch(() => null);
    if (!trial.dead) assert.fail("no call moves it");
    trial.kill();
    if (listing(trial)[path] === change[path]) return call - 1;
  }
}

test("a file that appears where one was removed, between crash and recovery, stays", async () => {
  const { disk, ctx } = install({ ...INSTALLED, a: "1", gone: "1" });
  const change = { a: "2", gone: null };
  disk.plan({ call: await callOf(ctx, disk, change, "a"), dies: true });
  await assert.rejects(apply(ctx, change));
  disk.kill();
  disk.writeFile(`${ROOT}/gone`, bytes("somebody's"), 0o644);
  await recover(ctx);
  assert.deepEqual(listing(disk), { ...UPDATED, a: "2", gone: "somebody's" });
});

test("an update that cannot be carried out any more is taken back by the recovery", async () => {
  const { disk, ctx } = install({ ...INSTALLED, a: "1", "d/x": "1" });
  const change = { a: "2", d: "2", "d/x": null };
  disk.plan({ call: await callOf(ctx, disk, change, "a"), dies: true });
  await assert.rejects(apply(ctx, change));
  disk.kill();
  if (disk.lstat(`${ROOT}/d`) === null) disk.makeDirectory(`${ROOT}/d`, 0o755);
  disk.writeFile(`${ROOT}/d/new`, bytes("somebody's"), 0o644);
  const result = await recover(ctx);
  assert.equal(result.kind === "rolled-back" && result.error?.code, "INSTALLATION_CONFLICT");
  assert.deepEqual(listing(disk), { ...INSTALLED, a: "1", "d/x": "1", "d/new": "somebody's" });
});

test("a damaged record is named and nothing is touched, whichever byte it is", async () => {
  const { disk, ctx } = install({ ...INSTALLED, a: "1", b: "1" });
  disk.plan({ call: await callOf(ctx, disk, { a: "2", b: "2" }, "b"), dies: true });
  await assert.rejects(apply(ctx, { a: "2", b: "2" }));
  disk.kill();
  const head = `${ROOT}/.lockstep/commit.json`;
  const [id = ""] = disk.readDirectory(`${ROOT}/.lockstep/staging`);
  for (const path of [head, `${ROOT}/.lockstep/staging/${id}/body.json`]) {
    const whole = disk.readFile(path);
    for (let at = 0; at < whole.length; at++) {
      const hurt = disk.clone();
      hurt.unlink(path);
      hurt.writeFile(
        path,
        Uint8Array.from(whole, (byte, each) => (each === at ? byte ^ 1 : byte)),
        0o600,
      );
      const before = listing(hurt);
      await assert.rejects(
        recover({ ...ctx, disk: hurt }),
        codeIs("INSTALLATION_DAMAGED"),
        `${path} at ${at}`,
      );
      assert.deepEqual(listing(hurt), before);
    }
  }
  disk.unlink(head);
  disk.symlink("/etc/passwd", head);
  await assert.rejects(recover(ctx), codeIs("INSTALLATION_DAMAGED"));
});

test("a rollback brings back what was, and a second one what came", async () => {
  const { disk, ctx } = install({ ...INSTALLED, "a/x": "1", gone: "1" });
  await apply(ctx, { "a/x": "2", gone: null, "new/y": "2" });
  assert.equal(previousRevision(ctx), 1);
  const back = await rollbackPrevious(ctx, { startedAt: 3000 });
  assert.deepEqual(back, { kind: "applied", switchMs: 0, put: 2, removed: 1, from: 2, to: 1 });
  const viv = "1\n1970-01-01T00:00:03.000Z\n";
  assert.deepEqual(listing(disk), { ...INSTALLED, ".softwarerevision.viv": viv, "a/x": "1", gone: "1" });
  await rollbackPrevious(ctx, { startedAt: 4000 });
  assert.deepEqual(listing(disk), {
    "InstallState.config": "state 2",
    ".softwarerevision.viv": "2\n1970-01-01T00:00:04.000Z\n",
    "a/x": "2",
    "new/y": "2",
  });
});

test("a software revision that changed no file here is skipped on the way back", async () => {
  const { disk, ctx } = install({ ...INSTALLED, a: "1" });
  await apply(ctx, { a: "2" });
  await writeRevisionFile(ctx, { revision: 3, startedAt: 2500 });
  const { from, to } = await rollbackPrevious(ctx, { startedAt: 3000 });
  assert.deepEqual({ from, to }, { from: 3, to: 1 });
  assert.equal(listing(disk).a, "1");
});

test("a rollback is refused where it would not lead back", async () => {
  const refused = codeIs("ROLLBACK_UNAVAILABLE");
  const first = install({});
  await assert.rejects(rollbackPrevious(first.ctx, { startedAt: 3000 }), refused);
  assert.equal(previousRevision(first.ctx), null);
  await apply(first.ctx, { a: "1" }, { from: null });
  await assert.rejects(rollbackPrevious(first.ctx, { startedAt: 3000 }), refused, "nothing was before");

  const lost = install({ ...INSTALLED, a: "1" });
  await apply(lost.ctx, { a: "2" });
  lost.disk.unlink(`${ROOT}/.lockstep/previous/old/0`);
  await assert.rejects(rollbackPrevious(lost.ctx, { startedAt: 3000 }), refused, "a kept file is missing");
  assert.deepEqual(listing(lost.disk), { ...UPDATED, a: "2" });
  assert.deepEqual(lost.disk.readDirectory(`${ROOT}/.lockstep/staging`), []);
});

test("the stat cache is made from the files as they stand after the switch, and may fail", async () => {
  const { disk, ctx, warnings } = install({ ...INSTALLED, a: "1" });
  await apply(
    ctx,
    { a: "22", b: null },
    { index: (stats) => bytes([...stats].map(([path, { size }]) => `${path} ${size}`).join()) },
  );
  assert.equal(Buffer.from(disk.readFile(`${ROOT}/.lockstep/index`)).toString(), "a 2");
  const failing = () => {
    throw new Error("no");
  };
  assert.equal((await apply(ctx, { a: "3" }, { index: failing, from: 2, to: 3 })).kind, "applied");
  assert.equal(warnings.length, 1);
});

test("what is staged must be there and plain", async () => {
  const { disk, ctx } = install({ ...INSTALLED });
  for (const meddle of [() => {}, (path: string) => disk.symlink("/etc/passwd", path)]) {
    const staging = await beginStaging(ctx);
    meddle(staging.pathFor(0));
    const operations: Operation[] = [{ n: 0, kind: "put", path: "a", mode: 0o644 }];
    const request = { staging, operations, state: bytes("s"), from: 1, to: 2, startedAt: 0 };
    await assert.rejects(commit(ctx, request), codeIs("INSTALLATION_IO_FAILED"));
    assert.deepEqual(listing(disk), INSTALLED);
  }
});

test("a revision file that is missing, damaged, too long or a link reads as none", async () => {
  const { disk, ctx } = install({});
  const path = `${ROOT}/.softwarerevision.viv`;
  assert.equal(readRevisionFile(ctx), null);
  await writeRevisionFile(ctx, { revision: 41, startedAt: 1_700_000_000_123 });
  assert.deepEqual(readRevisionFile(ctx), { revision: 41, startedAt: 1_700_000_000_123 });
  disk.cutPower(new Prng(1));
  assert.deepEqual(readRevisionFile(ctx), { revision: 41, startedAt: 1_700_000_000_123 }, "it was durable");
  for (const text of [
    "",
    "41\n",
    "41",
    "x\n2026-01-01T00:00:00.000Z\n",
    "41\nyesterday\n",
    "041\n2026-01-01T00:00:00.000Z\n",
    "9".repeat(300),
  ]) {
    disk.unlink(path);
    disk.writeFile(path, bytes(text), 0o644);
    assert.equal(readRevisionFile(ctx), null, JSON.stringify(text));
  }
  disk.writeFile("/etc/viv", bytes("41\n2026-01-01T00:00:00.000Z\n"), 0o644);
  disk.unlink(path);
  disk.symlink("/etc/viv", path);
  assert.equal(readRevisionFile(ctx), null);
});

test("on a disk that ignores case, a file changes the spelling of its name and back", async () => {
  const { disk, ctx } = install({ ...INSTALLED, Readme: "1" }, { ignoresCase: true });
  const refused = await apply(ctx, { README: "2", Readme: null }, { hooks: { afterSwitch: () => false } });
  assert.equal(refused.kind, "rolled-back");
  assert.deepEqual(listing(disk), { ...INSTALLED, Readme: "1" });
  assert.deepEqual(await apply(ctx, { README: "2", Readme: null }), {
    kind: "applied",
    switchMs: 0,
    put: 1,
    removed: 1,
  });
  assert.deepEqual(listing(disk), { ...UPDATED, README: "2" });
});

test("a state file that is no file is a conflict, and nothing happens", async () => {
  const { disk, ctx } = install({ a: "1" });
  disk.makeDirectory(`${ROOT}/InstallState.config`, 0o755);
  await assert.rejects(apply(ctx, { a: "2" }), codeIs("INSTALLATION_CONFLICT"));
  assert.deepEqual(listing(disk), { a: "1" });
});

test("a revision file that cannot be written leaves the former one, and says so", async () => {
  const { disk, ctx } = install(INSTALLED);
  for (let call = 1; call <= 6; call++) {
    disk.plan({ call, code: "EROFS" });
    await assert.rejects(
      writeRevisionFile(ctx, { revision: 9, startedAt: 1 }),
      codeIs("INSTALLATION_NOT_WRITABLE"),
    );
    disk.plan();
    assert.deepEqual(readRevisionFile(ctx), { revision: 1, startedAt: 1000 });
  }
});

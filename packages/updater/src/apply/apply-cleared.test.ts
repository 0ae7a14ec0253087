import assert from "node:assert/strict";
import test from "node:test";
import { isLockstepError } from "@lockstep/protocol";
import { SimDisk } from "@lockstep/testing";
import {
  type ApplyContext,
  beginStaging,
  type CommitResult,
  commit,
  discardStaging,
  type Operation,
  recover,
} from "./index.ts";
import type { ApplyHooks } from "./types.ts";

/** What was kept or staged is cleared away by somebody while an update is under way. */
const ROOT = "/app";
const FILES = {
  "InstallState.config": "state 1",
  ".softwarerevision.viv": "viv 1",
  a: "a 1",
  b: "b 1",
  c: "c 1",
};
const bytes = (text: string) => new TextEncoder().encode(text);

function install() {
  const disk = new SimDisk();
  disk.makeDirectory(ROOT, 0o755);
  for (const [path, text] of Object.entries(FILES)) disk.writeFile(`${ROOT}/${path}`, bytes(text), 0o644);
  disk.settle();
  const ctx: ApplyContext = {
    disk,
    root: ROOT,
    clock: { now: () => 1000, monotonic: () => 0 },
    log: { info: () => {}, warn: () => {} },
  };
  return { disk, ctx };
}

async function update(ctx: ApplyContext, hooks: ApplyHooks): Promise<CommitResult> {
  const staging = await beginStaging(ctx);
  const operations: Operation[] = [
    { n: 0, kind: "put", path: "a", mode: 0o644 },
    { n: 1, kind: "put", path: "b", mode: 0o644 },
    { n: 2, kind: "remove", path: "c" },
  ];
  for (const n of [0, 1]) ctx.disk.writeFile(staging.pathFor(n), bytes("new"), 0o644);
  return commit(ctx, {
    staging,
    operations,
    state: bytes("state 2"),
    from: 1,
    to: 2,
    startedAt: 2000,
    hooks,
  });
}

function listing(disk: SimDisk): Record<string, string> {
  const files = [...disk.tree(ROOT)].filter(([path]) => !path.startsWith(".lockstep"));
  return Object.fromEntries(files.map(([path, what]) => [path, what.replace(/^file \d+ /, "")]));
}

function remove(disk: SimDisk, path: string): void {
  if (disk.lstat(path)?.kind === "directory") {
    for (const name of disk.readDirectory(path)) remove(disk, `${path}/${name}`);
    disk.removeDirectory(path);
  } else disk.unlink(path);
}

const stagingOf = (disk: SimDisk) =>
  `${ROOT}/.lockstep/staging/${disk.readDirectory(`${ROOT}/.lockstep/staging`)[0]}`;

test("an update whose kept files were cleared away does not say that it was taken back", async () => {
  const { disk, ctx } = install();
  const afterSwitch = () => {
    remove(disk, stagingOf(disk));
    return false;
  };
  await assert.rejects(update(ctx, { afterSwitch }), (error) => {
    assert.ok(isLockstepError(error, "INSTALLATION_DAMAGED"), String(error));
    assert.match(error.hint ?? "", /Move .*commit\.json elsewhere, then run "lockstep repair"/);
    return true;
  });
  // Whoever comes next is told the same, until the record is moved away; then everything is as for any other mix.
  await assert.rejects(recover(ctx), (error) => isLockstepError(error, "INSTALLATION_DAMAGED"));
  disk.unlink(`${ROOT}/.lockstep/commit.json`);
  await discardStaging(ctx);
  assert.equal((await update(ctx, {})).kind, "applied");
});

test("one kept file that is gone is named, and everything else is restored", async () => {
  const { disk, ctx } = install();
  const afterSwitch = () => {
    disk.unlink(`${stagingOf(disk)}/old/1`);
    return false;
  };
  for (const run of [() => update(ctx, { afterSwitch }), () => recover(ctx)])
    await assert.rejects(run, (error) => {
      assert.ok(isLockstepError(error, "INSTALLATION_DAMAGED"), String(error));
      assert.deepEqual(
        error.faults.map(({ where }) => where),
        ["b"],
      );
      return true;
    });
  assert.deepEqual(listing(disk), { ...FILES, b: "new" });
  assert.notEqual(disk.lstat(`${ROOT}/.lockstep/commit.json`), null, "nothing may be started from a mix");
});

test("what is cleared away before the record is in force ends the update with nothing changed", async () => {
  for (const name of ["head.forward.json", "."]) {
    const { disk, ctx } = install();
    const stop = () => remove(disk, name === "." ? stagingOf(disk) : `${stagingOf(disk)}/${name}`);
    await assert.rejects(update(ctx, { stop }), (error) => isLockstepError(error));
    assert.deepEqual(listing(disk), FILES);
    assert.equal(disk.lstat(`${ROOT}/.lockstep/commit.json`), null);
  }
});

test("a new file that is gone before its turn takes the update back", async () => {
  const { disk, ctx } = install();
  const result = await update(ctx, { stop: () => disk.unlink(`${stagingOf(disk)}/new/1`) });
  assert.equal(result.kind === "rolled-back" && result.error?.code, "INSTALLATION_DAMAGED");
  assert.deepEqual(listing(disk), FILES);
});

test("a revision file that is gone before its turn is told, since the installation is not at that revision", async () => {
  const { disk, ctx } = install();
  const afterSwitch = () => {
    disk.unlink(`${stagingOf(disk)}/revision`);
    return true;
  };
  await assert.rejects(update(ctx, { afterSwitch }), (error) =>
    isLockstepError(error, "INSTALLATION_DAMAGED"),
  );
  assert.equal(listing(disk)[".softwarerevision.viv"], "viv 1");
});

test("the last replaced files may be cleared away at the very end: the update holds all the same", async () => {
  const { disk, ctx } = install();
  const meddled = new Proxy(disk, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name);
      if (typeof value !== "function") return value;
      return (...parameters: unknown[]) => {
        const result: unknown = Reflect.apply(value, target, parameters);
        if (name === "rename" && String(parameters[1]).endsWith("/previous"))
          remove(target, `${ROOT}/.lockstep/previous`);
        return result;
      };
    },
  });
  assert.equal((await update({ ...ctx, disk: meddled }, {})).kind, "applied");
  assert.equal((await recover(ctx)).kind, "nothing");
});

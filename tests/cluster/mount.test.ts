import assert from "node:assert/strict";
import { execFile, execFileSync, spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { suite, test } from "node:test";
import { promisify } from "node:util";
import { openMount } from "../../packages/cluster/src/resources/mount.ts";
import { loopDevicesOf } from "../../packages/cluster/src/resources/mount-loop.ts";
import { mountAt, readMountTable } from "../../packages/cluster/src/resources/mount-table.ts";
import { VolumeReach } from "../../packages/cluster/src/settings/volume-reach.ts";
import { bringOnline, isRoot, resourceContext, resourceDirectory } from "./resource-bench.ts";

const run = promisify(execFile);
const busy = () => {};

/** Takes out what a failed test left mounted below its directory, the latest first. */
function unmountAll(directory: string): void {
  for (const entry of readMountTable().reverse())
    if (entry.directory.startsWith(`${directory}/`)) unmount(entry.directory);
}

function unmount(directory: string): void {
  spawnSync("/usr/bin/umount", ["-l", "-i", "-n", "-c", "--", directory], {
    timeout: 60_000,
    killSignal: "SIGKILL",
  });
}

/**
 * Shared, so that what is unmounted here goes from mount namespaces too that somebody has made meanwhile, as every host of
 * a lab is one: what is mounted there stays mounted, and keeps its device.
 */
async function world() {
  const directory = await resourceDirectory();
  execFileSync("/usr/bin/mount", ["--bind", directory.path, directory.path]);
  execFileSync("/usr/bin/mount", ["--make-shared", directory.path]);
  return {
    path: directory.path,
    [Symbol.asyncDispose]: async () => {
      unmountAll(directory.path);
      unmount(directory.path);
      await directory[Symbol.asyncDispose]();
    },
  };
}

/** Runs the undo as the guard does. */
async function undo(resource: { readonly undo: readonly (readonly [string, ...string[]])[] }): Promise<void> {
  for (const [program, ...args] of resource.undo)
    await run(program, args, { timeout: 60_000 }).catch(() => {});
}

const isMounted = (directory: string) => mountAt(readMountTable(), directory) !== null;

const suiteOptions = { skip: !isRoot && "only root can mount" };

suite("a mount of a virtual server", suiteOptions, () => {
  test("a tmpfs comes online, is tested, and goes offline", async () => {
    await using at = await world();
    const directory = join(at.path, "some where");
    const { context, notes } = resourceContext(
      "mount",
      { device: "lockstep-test", directory, type: "tmpfs", options: "size=1m" },
      { directory: at.path },
    );
    const mount = openMount(context);
    assert.match((await mount.check(false)) ?? "", /not mounted/);
    await bringOnline(mount);
    assert.equal(mountAt(readMountTable(), directory)?.source, "lockstep-test");
    assert.equal(await mount.check(false), null);
    assert.equal(await mount.check(true), null);
    assert.deepEqual(readdirSync(directory), [], "the test file is gone again");
    await bringOnline(mount);
    assert.match(notes.join(), /found mounted/);
    await mount.offline(busy);
    assert.equal(isMounted(directory), false);
    await mount.offline(busy);
    await mount.terminate();
    await undo(mount);
  });

  test("a full file system fails the thorough check and not the quick one", async () => {
    await using at = await world();
    const directory = join(at.path, "full");
    const settings = { device: "lockstep-test", directory, type: "tmpfs", options: "size=64k" };
    const mount = openMount(resourceContext("mount", settings, { directory: at.path }).context);
    await bringOnline(mount);
    spawnSync("/usr/bin/dd", ["if=/dev/zero", `of=${directory}/all`, "bs=4k"]);
    assert.equal(await mount.check(false), null);
    assert.match((await mount.check(true)) ?? "", /No space left/);
    await mount.terminate();
    assert.equal(isMounted(directory), false);
  });

  test("an image on a loop device: one mount only, and its loop device goes with it", async () => {
    await using at = await world();
    const image = join(at.path, "disk.img");
    await run("truncate", ["-s", "16M", image]);
    await run("mkfs.ext4", ["-q", image]);
    const settings = { device: image, type: "ext4", options: ["loop"] };
    const [first, second] = ["one", "two"].map((name) => {
      const made = resourceContext(
        "mount",
        { ...settings, directory: join(at.path, name) },
        { directory: at.path, name },
      );
      return { ...made, mount: openMount(made.context) };
    });
    assert.ok(first !== undefined && second !== undefined);
    await bringOnline(first.mount);
    assert.equal(loopDevicesOf(image).length, 1);
    writeFileSync(join(at.path, "one", "kept"), "yes");
    assert.match(first.notes.join(), /no multi-mount protection/);
    await assert.rejects(bringOnline(second.mount), /mounted elsewhere already/);
    assert.equal(isMounted(join(at.path, "two")), false);
    await first.mount.offline(busy);
    await bringOnline(second.mount);
    assert.equal(readFileSync(join(at.path, "two", "kept"), "utf8"), "yes");
    await second.mount.offline(busy);
    // The kernel is done with it a moment later.
    while (loopDevicesOf(image).length > 0) await new Promise((resolve) => setTimeout(resolve, 10));
  });

  test("a bind mount is known by where it leads", async () => {
    await using at = await world();
    const [source, other, directory] = ["source", "other", "bound"].map((name) => join(at.path, name)) as [
      string,
      string,
      string,
    ];
    for (const each of [source, other, directory]) mkdirSync(each);
    const bind = (device: string, name: string) =>
      openMount(
        resourceContext("mount", { device, directory, type: "bind" }, { directory: at.path, name }).context,
      );
    const mount = bind(source, "a");
    await bringOnline(mount);
    writeFileSync(join(directory, "seen"), "");
    assert.ok(existsSync(join(source, "seen")));
    await assert.rejects(bringOnline(bind(other, "b")), /mounted at .* already/);
    // Of the one that was refused nothing may go that is the other's.
    await bind(other, "b").terminate();
    await undo(bind(other, "b"));
    assert.equal(isMounted(directory), true);
    await mount.offline(busy);
    assert.equal(isMounted(directory), false);
  });

  test("what somebody else mounted there stays, whatever is undone", async () => {
    await using at = await world();
    const directory = join(at.path, "theirs");
    mkdirSync(directory);
    await run("/usr/bin/mount", ["-t", "tmpfs", "somebody-else", directory]);
    const settings = { device: "lockstep-test", directory, type: "tmpfs" };
    const mount = openMount(resourceContext("mount", settings, { directory: at.path }).context);
    await assert.rejects(bringOnline(mount), /somebody-else at .* is mounted at/);
    await undo(mount);
    await mount.terminate();
    assert.equal(mountAt(readMountTable(), directory)?.source, "somebody-else");
  });

  test("who holds it is named, and it goes all the same", async () => {
    await using at = await world();
    const directory = join(at.path, "held");
    const settings = { device: "lockstep-test", directory, type: "tmpfs", unmountMs: 1_000 };
    const { context, notes } = resourceContext("mount", settings, { directory: at.path });
    const mount = openMount(context);
    await bringOnline(mount);
    const holder = spawn("sleep", ["600"], { cwd: directory, stdio: "ignore" });
    try {
      await mount.offline(busy);
      assert.equal(isMounted(directory), false);
      assert.match(notes.join("\n"), new RegExp(`lazily: .*process ${holder.pid} \\(sleep\\) works there`));
    } finally {
      holder.kill("SIGKILL");
    }
  });

  test("a file system that turned read-only is found by the quick look", async () => {
    await using at = await world();
    const directory = join(at.path, "turned");
    const settings = { device: "lockstep-test", directory, type: "tmpfs" };
    const mount = openMount(resourceContext("mount", settings, { directory: at.path }).context);
    await bringOnline(mount);
    await run("/usr/bin/mount", ["-o", "remount,ro", directory]);
    assert.match((await mount.check(false)) ?? "", /read-only/);
    await mount.offline(busy);
  });

  test("the undo alone takes it away, and a former life's is ended without having been online", async () => {
    await using at = await world();
    const directory = join(at.path, "left");
    const settings = { device: "lockstep-test", directory, type: "tmpfs" };
    const open = () => openMount(resourceContext("mount", settings, { directory: at.path }).context);
    await bringOnline(open());
    await undo(open());
    assert.equal(isMounted(directory), false);
    await bringOnline(open());
    await open().terminate();
    assert.equal(isMounted(directory), false);
  });

  test("a mount that cannot be made says why", async () => {
    await using at = await world();
    const settings = { device: "/dev/lockstep-is-not-there", directory: join(at.path, "no"), type: "ext4" };
    const mount = openMount(resourceContext("mount", settings, { directory: at.path }).context);
    await assert.rejects(
      bringOnline(mount),
      /RESOURCE_FAILED|status 32.*(does not exist|not a block device)/,
    );
  });
});

const FUSE = "/dev/fuse";

/** A file system whose server never answers, as that of a machine that was switched off. Ends when it is disposed. */
function mountSilentServer(directory: string): Disposable {
  const server = openSync(FUSE, "r+");
  execFileSync(
    "/usr/bin/mount",
    ["-i", "-t", "fuse", "-o", "fd=3,rootmode=40000,user_id=0,group_id=0", "lockstep-silent", directory],
    { stdio: ["ignore", "ignore", "inherit", server] },
  );
  return { [Symbol.dispose]: () => closeSync(server) };
}

suite("a mount whose server is silent", {
  skip: suiteOptions.skip || (!existsSync(FUSE) && "there is no FUSE here"),
}, () => {
  test("hangs neither check nor offline nor terminate nor the loop of whoever asks", async () => {
    await using at = await world();
    const directory = join(at.path, "silent");
    mkdirSync(directory);
    const settings = {
      device: "lockstep-silent",
      directory,
      type: "fuse",
      checkMs: 500,
      unmountMs: 700,
    };
    const { context, notes } = resourceContext("mount", settings, { directory: at.path });
    const mount = openMount(context);
    using _server = mountSilentServer(directory);
    let turns = 0;
    const turning = setInterval(() => turns++, 20);
    try {
      await assert.rejects(bringOnline(mount), /the test of .* did not come back within 500 ms/);
      assert.equal(await mount.check(false), null);
      assert.match((await mount.check(true)) ?? "", /did not come back/);
      assert.ok(turns > 3, `the loop turned ${turns} times`);
      await mount.offline(busy);
      assert.equal(isMounted(directory), false, notes.join("\n"));
    } finally {
      clearInterval(turning);
    }
    using _second = mountSilentServer(directory);
    await bringOnline(mount).catch(() => {});
    await undo(mount);
    assert.equal(isMounted(directory), false);
    using _third = mountSilentServer(directory);
    await bringOnline(mount).catch(() => {});
    await mount.terminate();
    assert.equal(isMounted(directory), false);
  });

  test("is found before the settings on it are looked at", async () => {
    await using at = await world();
    const directory = join(at.path, "silent");
    const settings = join(directory, "app", "settings");
    mkdirSync(directory);
    const reach = new VolumeReach({ limitMs: 500 });
    {
      using _server = mountSilentServer(directory);
      assert.deepEqual(await reach.findHanging([at.path, settings]), {
        path: settings,
        on: "lockstep-silent (fuse)",
      });
    }
    unmountAll(at.path);
    assert.equal(await reach.findHanging([at.path, settings]), null);
  });
});

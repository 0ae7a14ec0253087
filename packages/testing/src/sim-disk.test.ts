import assert from "node:assert/strict";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { type Disk, realDisk, systemErrorCode } from "@lockstep/platform";
import { Prng } from "./prng.ts";
import { SimCrash, SimDisk, type SimDiskOptions } from "./sim-disk.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const DRAWS = 300;

/** Everything that a power cut may leave of what `act` did, as one text for each state. */
async function outcomesOf(
  act: (disk: SimDisk) => void | Promise<void>,
  options: Partial<SimDiskOptions> = {},
  before: (disk: SimDisk) => void = () => {},
): Promise<Set<string>> {
  const base = new SimDisk(options);
  before(base);
  base.settle();
  await act(base);
  const outcomes = new Set<string>();
  for (let seed = 0; seed < DRAWS; seed++) {
    const disk = base.clone();
    disk.cutPower(new Prng(seed));
    outcomes.add(
      [...disk.tree("/")]
        .map(([path, what]) => `${path}=${what}`)
        .sort()
        .join(" "),
    );
  }
  return outcomes;
}

test("a new file is lost, empty, torn or whole, unless file and directory are synced", async () => {
  const write = (disk: SimDisk) => disk.writeFile("/a", bytes("xy"), 0o644);
  const unsynced = await outcomesOf(write);
  assert.ok(unsynced.has(""));
  for (const content of ["", "x", "xy", "x\0", "\0\0"])
    assert.ok(unsynced.has(`a=file 644 ${content}`), content);
  const named = await outcomesOf(async (disk) => {
    write(disk);
    await disk.syncDirectories(["/"]);
  });
  assert.ok(!named.has("") && named.size > 1);
  const filled = await outcomesOf(async (disk) => {
    write(disk);
    await disk.syncFiles(["/a"]);
  });
  assert.deepEqual([...filled].sort(), ["", "a=file 644 xy"]);
  const durable = await outcomesOf(async (disk) => {
    write(disk);
    await disk.syncFiles(["/a"]);
    await disk.syncDirectories(["/"]);
  });
  assert.deepEqual([...durable], ["a=file 644 xy"]);
});

test("changes of directories are lost in any subset, a file with the directory that holds it", async () => {
  const act = async (disk: SimDisk) => {
    disk.makeDirectory("/d", 0o755);
    disk.writeFile("/d/x", bytes("1"), 0o644);
    await disk.syncFiles(["/d/x"]);
    await disk.syncDirectories(["/d"]);
  };
  assert.deepEqual([...(await outcomesOf(act))].sort(), ["", "d/x=file 644 1 d=directory 755"]);
  const ordered = await outcomesOf(act, { model: "ordered-journal" });
  assert.deepEqual(
    [...ordered],
    ["d/x=file 644 1 d=directory 755"],
    "a sync of anything is a moment of the journal",
  );
});

test("an ordered journal keeps changes in their order", async () => {
  const two = (disk: SimDisk) => {
    disk.makeDirectory("/a", 0o755);
    disk.makeDirectory("/b", 0o755);
  };
  const later = "b=directory 755";
  assert.ok((await outcomesOf(two)).has(later));
  assert.ok(!(await outcomesOf(two, { model: "ordered-journal" })).has(later));
});

test("a rename is atomic, doubtful until both directories are synced, and may leave both names only where asked", async () => {
  const before = (disk: SimDisk) => {
    disk.makeDirectory("/s", 0o755);
    disk.makeDirectory("/t", 0o755);
    disk.writeFile("/s/a", bytes("new"), 0o644);
    disk.writeFile("/t/b", bytes("old"), 0o644);
  };
  const move = (disk: SimDisk) => disk.rename("/s/a", "/t/b");
  const files = (outcomes: Set<string>) =>
    [...outcomes].map((each) => each.replaceAll(/\b[st]=directory 755 ?/g, "").trim()).sort();
  const old = "s/a=file 644 new t/b=file 644 old";
  const done = "t/b=file 644 new";
  assert.deepEqual(files(await outcomesOf(move, {}, before)), [old, done].sort());
  const half = async (disk: SimDisk) => {
    move(disk);
    await disk.syncDirectories(["/t"]);
  };
  assert.equal(files(await outcomesOf(half, {}, before)).length, 2);
  const whole = async (disk: SimDisk) => {
    move(disk);
    await disk.syncDirectories(["/t", "/s"]);
  };
  assert.deepEqual(files(await outcomesOf(whole, {}, before)), [done]);
  const torn = files(await outcomesOf(move, { tornRenames: true }, before));
  assert.ok(torn.includes("s/a=file 644 new t/b=file 644 new"));
});

test("content is worthless after a sync that failed, also when the next one succeeds", async () => {
  const outcomes = await outcomesOf(async (disk) => {
    disk.writeFile("/a", bytes("xy"), 0o644);
    await disk.syncDirectories(["/"]);
    disk.plan({ call: 1, code: "EIO" });
    await assert.rejects(disk.syncFiles(["/a"]));
    await disk.syncFiles(["/a"]);
  });
  assert.ok(outcomes.has("a=file 600 "));
});

test("a killed program leaves everything that was seen; a dead one can do nothing more", () => {
  const disk = new SimDisk();
  disk.plan({ call: 2, dies: true });
  disk.makeDirectory("/a", 0o755);
  for (let tried = 0; tried < 2; tried++) assert.throws(() => disk.makeDirectory("/b", 0o755), SimCrash);
  assert.ok(disk.dead);
  disk.kill();
  assert.deepEqual([...disk.tree("/").keys()], ["a"]);
});

test("a full disk refuses what does not fit, leaves a file cut short, and has room again after a removal", () => {
  const disk = new SimDisk({ capacityBytes: 4000 });
  const thrown = (act: () => void) => {
    try {
      act();
      return null;
    } catch (error) {
      return systemErrorCode(error);
    }
  };
  assert.equal(
    thrown(() => disk.writeFile("/a", new Uint8Array(9000), 0o644)),
    "ENOSPC",
  );
  assert.ok((disk.lstat("/a")?.size ?? 0) < 9000);
  assert.equal(
    thrown(() => disk.makeDirectory("/b", 0o755)),
    "ENOSPC",
  );
  disk.unlink("/a");
  assert.equal(
    thrown(() => disk.makeDirectory("/b", 0o755)),
    null,
  );
});

/** Random calls on random paths, as closures over the disk that they are to be made on. */
function drawCall(prng: Prng): { name: string; run: (disk: Disk, root: string) => unknown } {
  const name = () => prng.pick(["a", "b", "c"]);
  const path = () => Array.from({ length: 1 + prng.below(3) }, name).join("/");
  const [p, q, text] = [path(), path(), prng.hex(3)];
  const target = prng.pick(["a", "../b", "c/a"]);
  const calls: Record<string, (disk: Disk, root: string) => unknown> = {
    makeDirectory: (disk, root) => disk.makeDirectory(`${root}/${p}`, 0o755),
    removeDirectory: (disk, root) => disk.removeDirectory(`${root}/${p}`),
    writeFile: (disk, root) => disk.writeFile(`${root}/${p}`, bytes(text), 0o640),
    copyFile: (disk, root) => disk.copyFile(`${root}/${p}`, `${root}/${q}`, 0o600),
    link: (disk, root) => disk.link(`${root}/${p}`, `${root}/${q}`),
    symlink: (disk, root) => disk.symlink(target, `${root}/${p}`),
    rename: (disk, root) => disk.rename(`${root}/${p}`, `${root}/${q}`),
    unlink: (disk, root) => disk.unlink(`${root}/${p}`),
    lstat: (disk, root) => {
      const stat = disk.lstat(`${root}/${p}`);
      // Sizes and modes of links and directories are the file system's own affair.
      return stat?.kind === "file" ? `file ${stat.size} ${stat.mode}` : stat?.kind;
    },
    readFile: (disk, root) => Buffer.from(disk.readFile(`${root}/${p}`)).toString(),
    readDirectory: (disk, root) => disk.readDirectory(`${root}/${p}`).sort(),
    readLink: (disk, root) => disk.readLink(`${root}/${p}`),
  };
  const chosen = prng.pick(Object.keys(calls)) ?? "";
  return { name: `${chosen} ${p} ${q}`, run: calls[chosen] ?? assert.fail() };
}

test("the simulated disk answers as the real one does, errors included, over random calls", (t) => {
  const directory = fs.mkdtempSync(join(tmpdir(), "lockstep-disk-"));
  t.after(() => fs.rmSync(directory, { recursive: true, force: true }));
  for (let seed = 1; seed <= 40; seed++) {
    const prng = new Prng(seed);
    const sim = new SimDisk();
    const root = `${directory}/${seed}`;
    realDisk.makeDirectory(root, 0o755);
    sim.makeDirectory("/r", 0o755);
    const attempt = (act: () => unknown) => {
      try {
        return JSON.stringify(act());
      } catch (error) {
        return systemErrorCode(error);
      }
    };
    for (let step = 0; step < 120; step++) {
      const call = drawCall(prng);
      const found = attempt(() => call.run(realDisk, root));
      const simulated = attempt(() => call.run(sim, "/r"));
      assert.equal(simulated, found, `seed ${seed}, step ${step}: ${call.name}`);
    }
  }
});

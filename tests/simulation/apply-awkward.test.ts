import assert from "node:assert/strict";
import test from "node:test";
import type { Disk } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol";
import { SimDisk } from "@lockstep/testing";
import { passOn } from "./apply-mutants.ts";
import { update } from "./apply-run.ts";
import { productTree, ROOT, type WantedFiles } from "./apply-scenario.ts";

/** Moments that only a disk which is meddled with can show. */
const WANTED: WantedFiles = new Map([["a", { content: "2", mode: 0o644 }]]);

function installed(): SimDisk {
  const disk = new SimDisk();
  for (const path of ["/srv", ROOT]) disk.makeDirectory(path, 0o755);
  disk.writeFile(`${ROOT}/a`, new TextEncoder().encode("1"), 0o644);
  disk.settle();
  return disk;
}

/** The kind of the result, or the code of the error. */
async function outcomeOf(disk: Disk, from: number | null): Promise<string> {
  try {
    return (await update(disk, [{ kind: "put", path: "a" }], WANTED, from, 2, 0, "holds")).kind;
  } catch (error) {
    if (isLockstepError(error)) return error.code;
    throw error;
  }
}

test("a file that disappears while the update is prepared is told, and nothing happens", async () => {
  const disk = installed();
  const meddled = passOn(disk, {
    // Looked at, asked whether it is in use, and gone before it gets its second name.
    isInUse: (path) => {
      disk.unlink(path);
      return false;
    },
  });
  assert.equal(await outcomeOf(meddled, 1), "INSTALLATION_FILE_IN_USE");
  assert.deepEqual([...productTree(disk)], []);
});

test("a new installation is made also where the directory that holds it cannot be read, but not on a broken disk", async () => {
  for (const [code, outcome] of [
    ["EACCES", "applied"],
    ["EPERM", "applied"],
    ["EIO", "INSTALLATION_IO_FAILED"],
  ] as const) {
    const disk = installed();
    const meddled = passOn(disk, {
      syncDirectories: async (paths) => {
        if (paths.includes("/srv")) throw Object.assign(new Error(code), { code });
        await disk.syncDirectories(paths);
      },
    });
    assert.equal(await outcomeOf(meddled, null), outcome, code);
  }
});

test("a second name that is not seen to be the same file does not decide later what may be removed", async () => {
  const disk = installed();
  let number = 1000n;
  // As on file systems where a file's number depends on its name: every look gives another one.
  const meddled = passOn(disk, {
    lstat: (path) => {
      const stat = disk.lstat(path);
      return stat === null ? null : { ...stat, ino: number++ };
    },
  });
  const result = await update(meddled, [{ kind: "remove", path: "a" }], new Map(), 1, 2, 0, "holds");
  assert.equal(result.kind, "applied");
  assert.equal(disk.lstat(`${ROOT}/a`), null);
});

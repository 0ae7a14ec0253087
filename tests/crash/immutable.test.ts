import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { realDisk, silentLogger, systemClock } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol";
import {
  type ApplyContext,
  beginStaging,
  type CommitResult,
  commit,
  type Operation,
  recover,
} from "../../packages/updater/src/apply/index.ts";

/**
 * A real file that nobody may replace. `immutable` can be asked about beforehand; of `append-only` the system says
 * nothing until the switch meets it.
 */
const MARKS = [
  ["immutable", "i"],
  ["append-only", "a"],
] as const;

function mark(path: string, flag: string): boolean {
  return spawnSync("chattr", [flag, path]).status === 0;
}

function canMark(): boolean {
  const directory = fs.mkdtempSync(join(tmpdir(), "lockstep-mark-"));
  const path = join(directory, "x");
  fs.writeFileSync(path, "x");
  const able = mark(path, "+i") && mark(path, "-i");
  fs.rmSync(directory, { recursive: true });
  return able;
}

const skip = canMark() ? false : "this user or file system knows no chattr";

const FILES = ["InstallState.config", "a", "b", "c", "d/e"];
const CHANGE: Record<string, string | null> = {
  a: "new a",
  b: "new b",
  c: null,
  "d/f": "new f",
  "d/e": null,
};

async function update(ctx: ApplyContext): Promise<CommitResult> {
  const staging = await beginStaging(ctx);
  const operations = Object.entries(CHANGE).map(([path, content], n): Operation => {
    if (content === null) return { n, kind: "remove", path };
    fs.writeFileSync(staging.pathFor(n), content);
    return { n, kind: "put", path, mode: 0o644 };
  });
  const state = Buffer.from("state 2");
  return commit(ctx, { staging, operations, state, from: 1, to: 2, startedAt: 0 });
}

/** Path, number and content of everything that is the product's: a copy in a file's place would be seen. */
function look(root: string): string[] {
  return (fs.readdirSync(root, { recursive: true }) as string[])
    .filter((path) => !path.startsWith(".lockstep") && fs.lstatSync(join(root, path)).isFile())
    .map(
      (path) => `${path} ${fs.lstatSync(join(root, path)).ino} ${fs.readFileSync(join(root, path), "utf8")}`,
    )
    .sort();
}

for (const [name, letter] of MARKS)
  for (const marked of ["a", "b", "c", "d/e", "InstallState.config"])
    test(`an update that meets the ${name} file ${marked} leaves everything untouched`, {
      skip,
    }, async (t) => {
      const root = fs.mkdtempSync(join(tmpdir(), "lockstep-immutable-"));
      t.after(() => fs.rmSync(root, { recursive: true, force: true }));
      fs.mkdirSync(join(root, "d"));
      for (const path of FILES) fs.writeFileSync(join(root, path), `old ${path}`);
      const ctx: ApplyContext = { disk: realDisk, root, clock: systemClock, log: silentLogger };
      const before = look(root);
      const path = join(root, marked);
      assert.ok(mark(path, `+${letter}`));
      try {
        const outcome = await update(ctx).catch((error: unknown) => error);
        if (letter === "i") {
          assert.ok(isLockstepError(outcome, "INSTALLATION_NOT_WRITABLE"), String(outcome));
          assert.match(outcome.message, new RegExp(marked));
        } else {
          assert.equal((outcome as CommitResult).kind, "rolled-back", String(outcome));
          assert.match((outcome as { reason: string }).reason, new RegExp(marked));
        }
        assert.deepEqual(look(root), before);
        assert.equal((await recover(ctx)).kind, "nothing");
        assert.deepEqual(fs.readdirSync(join(root, ".lockstep/staging")), []);
      } finally {
        mark(path, `-${letter}`);
      }
      assert.equal((await update(ctx)).kind, "applied");
    });

test("an immutable revision file is met before anything happens, not when nothing can be taken back", {
  skip,
}, async (t) => {
  const root = fs.mkdtempSync(join(tmpdir(), "lockstep-immutable-"));
  t.after(() => fs.rmSync(root, { recursive: true, force: true }));
  fs.mkdirSync(join(root, "d"));
  for (const path of [...FILES, ".softwarerevision.viv"]) fs.writeFileSync(join(root, path), `old ${path}`);
  const ctx: ApplyContext = { disk: realDisk, root, clock: systemClock, log: silentLogger };
  const before = look(root);
  const path = join(root, ".softwarerevision.viv");
  assert.ok(mark(path, "+i"));
  try {
    await assert.rejects(update(ctx), (error) => isLockstepError(error, "INSTALLATION_NOT_WRITABLE"));
    assert.deepEqual(look(root), before);
  } finally {
    mark(path, "-i");
  }
});

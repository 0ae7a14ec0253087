import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { bundle } from "../../scripts/bundle.mjs";
import { UPDATER_ENTRY } from "../../scripts/bundle-updater.mjs";

const root = join(import.meta.dirname, "..", "..");
const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

test("the updater's bundle is one file that says nothing of time, place or zone", async () => {
  assert.ok(existsSync(join(root, UPDATER_ENTRY)));
  const here = await bundle(UPDATER_ENTRY);
  const elsewhere = spawnSync(
    process.execPath,
    [
      "--input-type=module",
      "-e",
      `const { bundleUpdater } = await import(${JSON.stringify(join(root, "scripts", "bundle-updater.mjs"))});
       process.stdout.write(await bundleUpdater());`,
    ],
    { cwd: tmpdir(), env: { ...process.env, TZ: "Asia/Tokyo", LANG: "tr_TR.UTF-8" }, maxBuffer: 2 ** 26 },
  );
  assert.equal(sha256(String(elsewhere.stdout)), sha256(here));
  assert.ok(!here.includes(root), "a path of this machine is in the bundle");
  // Everything but Node's own modules is inside.
  const imports = [...here.matchAll(/^import [^"]*"([^"]+)";$/gm)].map((match) => match[1] ?? "");
  assert.deepEqual(
    imports.filter((specifier) => !specifier.startsWith("node:")),
    [],
  );
});

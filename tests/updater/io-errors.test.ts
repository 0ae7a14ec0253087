import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { install, rollback, update } from "@lockstep/updater";
import { makeArchive } from "./archives.ts";
import { makeWorld, put, revisionOf, treeOf } from "./world.ts";

// What these plug-ins do they write beside the installation, where walls would keep them from it
// (tests/hostile/plugin-confinement.test.ts has those).
process.env.LOCKSTEP_PLUGINS = "unconfined";

/** What fails when an update has already happened is told beside its success; what fails before has a name. */
const targets = ["role:A"];

test("an update that holds is one, also when nothing can be written into update.log any more", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ file: { content: "one", targets } });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  const log = JSON.stringify(join(directory, "update.log"));
  const plugin = `import { mkdirSync, rmSync } from "node:fs";
export function afterSwitch() { rmSync(${log}, { force: true }); mkdirSync(${log}); }`;
  const archive = await makeArchive({ plugins: { "x.update.mjs": plugin } });
  world.hub.publish({ file: { content: "two", targets } }, { archive });
  const result = await update(directory, world.options());
  assert.equal(result.kind, "updated");
  assert.ok(
    result.kind === "updated" && result.notices.some((notice) => /update\.log is not complete/.test(notice)),
  );
  assert.deepEqual(revisionOf(directory), 2);
  assert.equal(treeOf(directory).file, "two");
  assert.ok(statSync(join(directory, "update.log")).isDirectory());
});

test("a rollback is one, also when automatic updates cannot be switched off after it", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ file: { content: "one", targets } });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  world.hub.publish({ file: { content: "two", targets } });
  await update(directory, world.options());
  // What the rollback puts in place and nobody can read, nor change a setting in.
  writeFileSync(join(directory, ".lockstep/previous/state.former"), "damaged");
  const { to } = await rollback(directory, world.options());
  assert.equal(to, 1);
  assert.equal(treeOf(directory).file, "one");
  const notices = world.events.flatMap((event) => (event.kind === "notice" ? [event.message] : []));
  assert.match(notices.at(-1) ?? "", /could not be switched off here.*configure DIR --auto-update off/);
});

test("a content that cannot be moved into place is told by its path", async (t) => {
  const world = await makeWorld(t);
  const content = Buffer.from(
    Uint8Array.from({ length: 1_200_000 }, (_, at) => Math.imul(at, 2_654_435_761) >>> 13),
  ).toString("latin1");
  world.hub.publish({ file: { content: "one", targets } });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  put(directory, "keep", "mine");
  world.hub.publish({ file: { content, targets } });
  // The name under which the content travels is taken by what cannot be written to.
  const partial = join(directory, ".lockstep/partial");
  const { createHash } = await import("node:crypto");
  const sha256 = createHash("sha256").update(content).digest("hex");
  for (const encoding of ["zstd", "identity"])
    mkdirSync(join(partial, `${sha256}.${encoding}`, "x"), { recursive: true });
  await assert.rejects(update(directory, world.options()), {
    code: "INSTALLATION_IO_FAILED",
    message: new RegExp(sha256),
  });
  assert.equal(revisionOf(directory), 1);
});

test("an updater that cannot be started because too many files are open is told as that", () => {
  const module = pathToFileURL(join(import.meta.dirname, "../../packages/updater/src/hand-over.ts")).href;
  const script = `
import { openSync } from "node:fs";
import { runIn } from ${JSON.stringify(module)};
try { while (true) openSync("/dev/null", "r"); } catch {}
const copy = { directory: "/tmp", program: "/tmp/updater.mjs", version: "0", sha256: "0" };
try { await runIn(copy, {}, { access: { environment: {} }, lock: { token: "" }, progress: () => {} }); }
catch (error) { console.log(error.code, error.hint); }
`;
  const { stdout, stderr } = spawnSync(
    "/bin/sh",
    ["-c", 'ulimit -n 64; exec "$@"', "sh", process.execPath, "--input-type=module", "--eval", script],
    { encoding: "utf8" },
  );
  assert.match(stdout, /^INSTALLATION_IO_FAILED .*ulimit -n/, stderr);
});

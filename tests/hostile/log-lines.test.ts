import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { byPath } from "@lockstep/core";
import { findLogBreak, install, update } from "@lockstep/updater";
import { makeWorld } from "../updater/world.ts";

/** B9: names that would write lines, colours or another reading direction into a log. */
const NAMES = [
  'x\n{"time":"2026-01-01T00:00:00Z","action":"end","result":"ok"}',
  "x\r\nforged",
  "x\u001b[2J\u001b[31mred",
  "x\u202etxt.exe",
  "x\u2028forged\u2029",
  "x\u0000y",
  "x\u009b31m",
  "x\u0007\b\u007f",
];

test("B9: each line of update.log is one record, whatever the names in it", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ harmless: { content: "1", targets: ["role:A"] } });
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  for (const name of NAMES) {
    const number = world.hub.publish({ harmless: { content: "1", targets: ["role:A"] } });
    const sha256 = world.hub.add(Buffer.from("x"));
    const entries = ["harmless", name]
      .map((path) => ({ path, size: 1, sha256, mode: 0o644, backup: false }))
      .sort(byPath);
    const manifests = world.hub.document(number).manifests as unknown[];
    manifests.splice(0, 1, world.hub.addManifest({ target: { kind: "role", name: "A" }, entries }));
    await assert.rejects(update(directory, world.options()), { code: "PATH_REFUSED" });
  }
  const text = readFileSync(join(directory, "update.log"), "utf8");
  const lines = text.trimEnd().split("\n");
  const records = lines.map((line) => JSON.parse(line) as { action: string; reason?: string });
  const refusals = records.filter(
    ({ action, reason }) => action === "end" && /PATH_REFUSED/.test(String(reason)),
  );
  assert.equal(refusals.length, NAMES.length);
  assert.doesNotMatch(text.replaceAll("\n", ""), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
  assert.equal(await findLogBreak(directory), null);
  // The control: written as they are, they would be more lines than records.
  assert.ok(NAMES.join("\n").split(/[\n\r\u2028]/).length > NAMES.length);
});

import assert from "node:assert/strict";
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "@lockstep/platform";
import { findLogBreak, install, logAltered, readLog, update, verify } from "@lockstep/updater";
import { installationPaths } from "../../packages/updater/src/layout.ts";
import { UpdateLog } from "../../packages/updater/src/update-log.ts";
import { makeWorld, type World } from "../updater/world.ts";
import { outcome } from "./client-world.ts";

/** The attacks on a whole installation, each named after its row of the attack table, each with its control. */
const targets = ["role:A"];
const release = (text: string) => ({ program: { content: text, targets } });

async function installed(t: Parameters<typeof makeWorld>[0]): Promise<{ world: World; directory: string }> {
  const world = await makeWorld(t);
  world.hub.publish(release("1"));
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  return { world, directory };
}

const content = (directory: string) => readFileSync(join(directory, "program"), "utf8");

test("A5: with expired signatures nothing new is taken, and installation and hub are told", async (t) => {
  const { world, directory } = await installed(t);
  world.hub.publish(release("2"));
  const late = { ...systemClock, now: () => Date.now() + 2 * world.hub.signing.timestampMs };
  assert.equal(await outcome(() => update(directory, world.options({ clock: late }))), "TRUST_EXPIRED");
  assert.equal(content(directory), "1");
  const alarm = (await readLog(directory)).find(({ action }) => action === "trust");
  assert.match(String(alarm?.reason), /TRUST_EXPIRED/);
  const [report] = [...world.hub.reports.values()];
  assert.match(String(report?.problem), /TRUST_EXPIRED/);
  // The control: in time the same is taken.
  await update(directory, world.options());
  assert.equal(content(directory), "2");
});

test("A10: the files of one machine role are not taken for another, however well both are signed", async (t) => {
  const swapped = async (swap: boolean) => {
    const { world, directory } = await installed(t);
    world.hub.publish({ ...release("2"), other: { content: "b", targets: ["role:B"] } });
    const { manifests } = world.hub.document(2);
    const [a, b] = manifests;
    assert.ok(a !== undefined && b !== undefined);
    if (swap)
      Object.assign(world.hub.document(2), {
        manifests: [
          { ...b, target: a.target },
          { ...a, target: b.target },
        ],
      });
    const said = await outcome(() => update(directory, world.options()));
    return [said, content(directory)];
  };
  assert.deepEqual(await swapped(true), ["MANIFEST_INVALID", "1"]);
  assert.deepEqual(await swapped(false), ["accepted", "2"]);
});

test("A23: another history than the one that was seen is an alarm at the next look", async (t) => {
  const { world, directory } = await installed(t);
  world.hub.publish(release("2"));
  await update(directory, world.options());
  // A site apart: the same keys signed another second release for it, and went on from there.
  const split = await makeWorld(t);
  split.hub.signing.signer = world.hub.signing.signer;
  split.hub.publish(release("1"));
  split.hub.publish(release("for your eyes only"));
  split.hub.publish(release("3"));
  for (const [name, bytes] of world.hub.signing.documents)
    if (name.endsWith("root.json")) split.hub.signing.documents.set(name, bytes);
  const there = split.options({ access: { environment: {}, url: split.hub.url } });
  assert.equal(await outcome(() => update(directory, there)), "TRUST_HISTORY_DIFFERS");
  assert.equal(content(directory), "2");
  // The control: one that remembers no history takes it.
  rmSync(join(directory, ".lockstep/trust/history"));
  await update(directory, there);
  assert.equal(content(directory), "3");
});

test("A25: what the database says of a revision counts for nothing beside what was signed", async (t) => {
  const { world, directory } = await installed(t);
  world.hub.publish(release("2"));
  await world.hub.signing.sign([world.hub.document(1), world.hub.document(2)]);
  // After the signature: other manifests, another archive, other packages in the rows.
  const foreign = await makeWorld(t);
  foreign.hub.publish(release("foreign"));
  foreign.hub.publish(release("foreign"));
  Object.assign(world.hub.document(2), {
    manifests: foreign.hub.document(2).manifests,
    updateArchive: { sha256: "ab".repeat(32), size: 5 },
    packageClosure: { "X/Y": ["Z/Z"] },
    selectableRoles: [],
  });
  await update(directory, world.options());
  assert.equal(content(directory), "2");
});

test("A25: a semaphore that was moved by hand leads to nothing", async (t) => {
  const { world, directory } = await installed(t);
  world.hub.announced = 99;
  assert.equal(await outcome(() => update(directory, world.options())), "TRUST_UNAVAILABLE");
  assert.equal(content(directory), "1");
  world.hub.announced = null;
  assert.equal(await outcome(() => update(directory, world.options())), "accepted");
});

test("A1: contents and manifests that others put in their place are refused by their digests", async (t) => {
  const { world, directory } = await installed(t);
  world.hub.publish(release("2"));
  world.hub.faults.corrupt = (_sha256, bytes) => Buffer.concat([bytes.subarray(1), Buffer.from("!")]);
  assert.equal(await outcome(() => update(directory, world.options())), "CONTENT_MISMATCH");
  assert.equal(content(directory), "1");
  delete world.hub.faults.corrupt;
  await update(directory, world.options());
  assert.equal(content(directory), "2");
});

test("D13: a record of update.log that is changed, taken out, put in or moved is found", async (t) => {
  const { world, directory } = await installed(t);
  world.hub.publish(release("2"));
  await update(directory, world.options());
  const path = join(directory, "update.log");
  const whole = readFileSync(path, "utf8");
  const lines = whole.split("\n").filter((line) => line !== "");
  assert.ok(lines.length >= 4);
  assert.equal(await findLogBreak(directory), null);
  const begin = (await readLog(directory)).findLast(({ action }) => action === "begin");
  assert.match(String(begin?.signedBy), /^[0-9a-f]{12}$/);
  for (const [at, line] of lines.entries()) {
    const last = at === lines.length - 1;
    const altered = [
      lines.with(at, line.replace('"result":"ok"', '"result":"failed"')),
      lines.with(at, line.replace(/,"chain":"[0-9a-f]+"/, "")),
      lines.toSpliced(at, 0, line),
      // That the end is missing shows only against what was kept elsewhere.
      ...(last ? [] : [lines.toSpliced(at, 1), lines.toSpliced(at, 2, lines[at + 1] ?? "", line)]),
    ];
    for (const [way, text] of altered.entries()) {
      writeFileSync(path, `${text.join("\n")}\n`);
      assert.notEqual(await findLogBreak(directory), null, `line ${at}, way ${way}`);
    }
  }
});

test("D13: an altered update.log names the record with both links, at verify, and to the hub with the next report", async (t) => {
  const { world, directory } = await installed(t);
  world.hub.publish(release("2"));
  await update(directory, world.options());
  const path = join(directory, "update.log");
  const [first = "", second = "", ...rest] = readFileSync(path, "utf8").split("\n");
  const link = /"chain":"([0-9a-f]{64})"/.exec(second)?.[1];
  // The control: as long as nobody altered it, nobody says so.
  assert.equal((await verify(directory, world.options())).logBreak, null);
  assert.equal([...world.hub.reports.values()][0]?.logAltered, undefined);
  writeFileSync(path, [first, second.replace('"result":"ok"', '"result":"failed"'), ...rest].join("\n"));
  const { logBreak, damages } = await verify(directory, world.options());
  assert.deepEqual(damages, []);
  assert.ok(logBreak !== null);
  const { file, line, expected, found } = logBreak;
  assert.deepEqual([file, line, found], ["update.log", 2, link]);
  assert.match(String(expected), /^[0-9a-f]{64}$/);
  const said = await logAltered(directory, logBreak);
  assert.deepEqual(
    [said.code, said.expected, said.found, said.faults[0]?.where],
    ["UPDATE_LOG_ALTERED", `the link ${expected}`, `the link ${link}`, "update.log, line 2"],
  );
  // Updates go on: what the log says decides nothing.
  world.hub.publish(release("3"));
  await update(directory, world.options());
  assert.equal(content(directory), "3");
  assert.deepEqual([...world.hub.reports.values()][0]?.logAltered, { file, line, expected, found });
});

test("D13: what a power cut leaves of the last records of update.log is no attack", async (t) => {
  const { world, directory } = await installed(t);
  const path = join(directory, "update.log");
  const bytes = readFileSync(path);
  const lastLine = bytes.lastIndexOf("\n", bytes.length - 2) + 1;
  let number = 1;
  const goesOn = async (left: Buffer, why: string) => {
    writeFileSync(path, left);
    assert.equal(await findLogBreak(directory), null, `${why}, as it lies there`);
    world.hub.publish(release(`${++number}`));
    await update(directory, world.options());
    assert.equal(await findLogBreak(directory), null, `${why}, with records after it`);
    // And the chain still holds: what was altered before it shows.
    const altered = readFileSync(path, "utf8").replace('"result":"ok"', '"result":"failed"');
    writeFileSync(path, altered);
    assert.equal((await findLogBreak(directory))?.line, 1, why);
  };
  // Cut anywhere in the last record: before its link, in it, at a brace of a name, at the end of its line.
  for (const at of [lastLine + 1, lastLine + 30, bytes.length - 40, bytes.length - 2, bytes.length - 1])
    await goesOn(bytes.subarray(0, at), `cut ${bytes.length - at} before its end`);
  const named = Buffer.from('{"time":"2026-01-01T00:00:00.000Z","run":"r","action":"add","path":"a}');
  await goesOn(Buffer.concat([bytes, named]), "a name with a brace");
  await goesOn(Buffer.concat([bytes, Buffer.alloc(5000)]), "blocks that were never written");
});

test("D13: a log goes on over its rotated files, and one of them that is missing shows", async (t) => {
  const { directory } = await installed(t);
  const path = join(directory, "update.log");
  const paths = installationPaths(directory);
  for (let run = 0; run < 9; run++) {
    const log = new UpdateLog(paths, systemClock, `r${run}`, 400);
    log.note("begin", null, "ok", "x".repeat(100));
    log.note("end", null, "ok", null);
    assert.equal(log.flush(), null);
  }
  assert.ok(existsSync(`${path}.5`));
  assert.equal(await findLogBreak(directory), null);
  // The oldest file is taken away to make room, also by a power cut in the middle of that.
  renameSync(`${path}.5`, `${path}.gone`);
  assert.equal(await findLogBreak(directory), null);
  renameSync(`${path}.gone`, `${path}.5`);
  for (const missing of [1, 2, 3, 4]) {
    renameSync(`${path}.${missing}`, `${path}.gone`);
    const found = await findLogBreak(directory);
    assert.equal(found?.file, missing === 1 ? "update.log" : `update.log.${missing - 1}`);
    assert.equal(found?.line, 1);
    renameSync(`${path}.gone`, `${path}.${missing}`);
  }
  // Everything but the newest file: the chain does not begin there.
  for (const number of [1, 2, 3, 4, 5]) rmSync(`${path}.${number}`);
  assert.equal((await findLogBreak(directory))?.line, 1);
  // As evidence elsewhere, all of it: a new one begins.
  rmSync(path);
  const log = new UpdateLog(paths, systemClock);
  log.note("begin", null, "ok", null);
  assert.equal(log.flush(), null);
  assert.equal(await findLogBreak(directory), null);
});

import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "@lockstep/platform";
import { type ClusterOrigin, readClusterOrigin } from "@lockstep/protocol/wire";
import { type LogFiles, type LogHandle, realLogFiles } from "./files.ts";
import { formatLine, parseLine } from "./line.ts";
import { LogFile } from "./log-file.ts";
import { LogOwner } from "./log-owner.ts";
import { readLog } from "./tail.ts";

const ALPHA: ClusterOrigin = { node: "alpha", term: 5 };
const BETA: ClusterOrigin = { node: "beta", term: 6 };

async function world(sizeBytesMax = 10_000) {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-owner-"));
  const path = join(directory, "log");
  const logs: LogFile[] = [];
  return {
    path,
    directory,
    open(origin: ClusterOrigin, files: LogFiles = realLogFiles, ownMax = sizeBytesMax) {
      const told: string[] = [];
      const log = new LogFile({
        files,
        clock: systemClock,
        place: { path, sizeBytesMax: ownMax, historySize: 100 },
        owner: new LogOwner(files, origin),
        onProblem: (problem) => told.push(problem === null ? "well" : problem.problem),
      });
      logs.push(log);
      const write = async (...lines: string[]) => {
        for (const line of lines) log.append(`${origin.node} ${line}\n`);
        await log.flush();
      };
      return { log, told, write };
    },
    /** The log with its backups, oldest first; each file ends with a whole line. */
    async lines(): Promise<string[]> {
      const names = (await readdir(directory)).filter((name) => /^log(\.\d+)?$/.test(name));
      const age = (name: string) => Number(name.split(".")[1] ?? 0);
      const texts = await Promise.all(
        names.sort((a, b) => age(b) - age(a)).map((name) => readFile(join(directory, name), "utf8")),
      );
      return texts.flatMap((text) => {
        assert.ok(text === "" || text.endsWith("\n"), `a file ends within a line: ${text}`);
        return text.split("\n").slice(0, -1);
      });
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all(logs.map((log) => log.close()));
      await rm(directory, { recursive: true, force: true });
    },
  };
}

test("the log goes on in the same file after a failover, and the former owner is told once", async () => {
  await using at = await world();
  const alpha = at.open(ALPHA);
  await alpha.write("1", "2");
  const beta = at.open(BETA);
  await beta.write("3");
  await alpha.write("4", "5");
  await alpha.write("6");
  await beta.write("7");
  assert.deepEqual(await at.lines(), ["alpha 1", "alpha 2", "beta 3", "beta 7"]);
  assert.equal(alpha.told.length, 1);
  assert.match(alpha.told[0] ?? "", /no longer written here: beta has taken the log over under term 6/);
  assert.equal(alpha.log.lost, 3);
  assert.deepEqual(beta.told, []);
  await Promise.all([alpha.log.close(), beta.log.close()]);
  alpha.log.writeNow();
  assert.deepEqual(await at.lines(), ["alpha 1", "alpha 2", "beta 3", "beta 7"]);
  assert.deepEqual((await readdir(at.directory)).sort(), ["log", "log.owner-0000000000000006-beta"]);
});

test("who comes with a lower token, or with the same from elsewhere, writes nothing", async () => {
  await using at = await world();
  const beta = at.open(BETA);
  await beta.write("1");
  for (const origin of [ALPHA, { node: "gamma", term: 6 }]) {
    const late = at.open(origin);
    await late.write("x");
    await late.log.close();
    assert.equal(late.told.length, 1, origin.node);
  }
  await beta.write("2");
  await beta.log.close();
  assert.deepEqual(await at.lines(), ["beta 1", "beta 2"]);
});

test("a service that is restarted in place under its term goes on", async () => {
  await using at = await world();
  for (const number of ["1", "2", "3"]) {
    const beta = at.open(BETA);
    await beta.write(number);
    await beta.log.close();
    assert.deepEqual(beta.told, []);
  }
  assert.deepEqual(await at.lines(), ["beta 1", "beta 2", "beta 3"]);
});

test("where there is no room for a copy the log becomes a backup", async () => {
  await using at = await world();
  const alpha = at.open(ALPHA);
  await alpha.write("1");
  const full: LogFiles = {
    ...realLogFiles,
    copy: () => Promise.reject(Object.assign(new Error("ENOSPC: no space left"), { code: "ENOSPC" })),
  };
  const beta = at.open(BETA, full);
  await beta.write("2");
  await alpha.write("3");
  await beta.log.close();
  await alpha.log.close();
  assert.deepEqual(await at.lines(), ["alpha 1", "beta 2"]);
  assert.equal(await readFile(`${at.path}.1`, "utf8"), "alpha 1\n");
});

/** Stands still before its n-th act on the disk until it is told to go on. */
function pausing(count: number) {
  let left = count;
  const reached = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  const step = async <T>(work: () => Promise<T>): Promise<T> => {
    if (left-- === 0) {
      reached.resolve();
      await goOn.promise;
    }
    return await work();
  };
  const wrap = (handle: LogHandle): LogHandle => ({
    ...handle,
    write: (bytes) => step(() => handle.write(bytes)),
    links: () => step(() => handle.links()),
    copyTo: (path) => step(() => handle.copyTo(path)),
  });
  const files: LogFiles = {
    open: async (path) => wrap(await step(() => realLogFiles.open(path))),
    identify: (path) => step(() => realLogFiles.identify(path)),
    link: (from, to) => step(() => realLogFiles.link(from, to)),
    rename: (from, to) => step(() => realLogFiles.rename(from, to)),
    unlink: (path) => step(() => realLogFiles.unlink(path)),
    list: (directory) => step(() => realLogFiles.list(directory)),
    create: (path) => step(() => realLogFiles.create(path)),
    copy: (from, to) => step(() => realLogFiles.copy(from, to)),
  };
  return { files, reached: reached.promise, goOn: goOn.resolve };
}

for (const sizeBytesMax of [10_000, 40])
  test(`a former owner that stands still anywhere harms no line of the next (${sizeBytesMax} bytes a file)`, async () => {
    let pauses = 0;
    for (let count = 0; ; count++) {
      await using at = await world(sizeBytesMax);
      const before = at.open({ node: "zero", term: 1 });
      await before.write("1", "2", "3");
      await before.log.close();
      const { files, reached, goOn } = pausing(count);
      const alpha = at.open(ALPHA, files);
      const writing = (async () => {
        for (const number of ["1", "2", "3", "4", "5", "6"]) await alpha.write(number);
      })();
      const isPaused = await Promise.race([reached.then(() => true), writing.then(() => false)]);
      if (isPaused) pauses++;
      const beta = at.open(BETA, realLogFiles, 10_000);
      await beta.write("1", "2", "3");
      goOn();
      await writing;
      await alpha.write("late");
      for (const number of ["4", "5", "6"]) await beta.write(number);
      await Promise.all([alpha.log.close(), beta.log.close()]);
      const lines = await at.lines();
      const where = `paused before act ${count}: ${lines.join(", ")}`;
      const of = (node: string) => lines.filter((line) => line.startsWith(`${node} `));
      assert.deepEqual(of("zero"), ["zero 1", "zero 2", "zero 3"], where);
      assert.deepEqual(
        of("beta"),
        ["1", "2", "3", "4", "5", "6"].map((number) => `beta ${number}`),
        where,
      );
      assert.deepEqual(lines.slice(lines.indexOf("beta 1")), of("beta"), where);
      assert.deepEqual(
        of("alpha"),
        of("alpha").map((_, index) => `alpha ${index + 1}`),
        where,
      );
      assert.equal(lines.length, of("zero").length + of("alpha").length + of("beta").length, where);
      assert.equal(alpha.told.length, 1, where);
      if (!isPaused) break;
    }
    assert.ok(pauses > 15, `${pauses} places to pause`);
  });

test("a reader that follows reads on in the copy, every line once", async () => {
  await using at = await world();
  const alpha = at.open(ALPHA);
  await alpha.write("0", "1");
  const reading = new AbortController();
  const read: string[] = [];
  const done = (async () => {
    const options = { last: 10, follow: true, signal: reading.signal, clock: systemClock };
    for await (const line of readLog(at.path, options)) {
      read.push(line);
      if (line === "gamma 4") reading.abort();
      if (line === "alpha 1") await at.open(BETA).write("2", "3");
      if (line === "beta 3") await at.open({ node: "gamma", term: 7 }).write("4");
    }
  })();
  await done;
  assert.deepEqual(read, ["alpha 0", "alpha 1", "beta 2", "beta 3", "gamma 4"]);
  await alpha.log.close();
});

test("a record names node, term and count, and is read back with and without them", () => {
  const record = { timeMs: 1_700_000_000_000, severity: "Warning" as const, text: "a b/7.1 Info c" };
  const origin = { ...BETA, count: 17 };
  assert.equal(
    formatLine({ ...record, origin }),
    "2023-11-14T22:13:20.000Z beta/6.17 Warning a b/7.1 Info c\n",
  );
  assert.deepEqual(parseLine(formatLine({ ...record, origin })), { ...record, origin });
  assert.deepEqual(parseLine(formatLine(record)), record);
});

test("the environment of a service names its node and its term, or none", () => {
  assert.deepEqual(readClusterOrigin({ LOCKSTEP_NODE: "alpha", LOCKSTEP_TERM: "42" }), {
    node: "alpha",
    term: 42,
  });
  for (const [LOCKSTEP_NODE, LOCKSTEP_TERM] of [
    ["", "1"],
    ["alpha", ""],
    ["alpha", "-1"],
    ["alpha", "1e3"],
    ["../alpha", "1"],
    ["alpha", "99999999999999999"],
  ])
    assert.equal(
      readClusterOrigin({ LOCKSTEP_NODE, LOCKSTEP_TERM }),
      null,
      `${LOCKSTEP_NODE} ${LOCKSTEP_TERM}`,
    );
});

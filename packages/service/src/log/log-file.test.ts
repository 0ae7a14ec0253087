import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "@lockstep/platform";
import { type LogFiles, type LogHandle, realLogFiles } from "./files.ts";
import { LogFile, type LogPlace } from "./log-file.ts";
import { rotate } from "./rotation.ts";

async function temporaryDirectory() {
  const path = await mkdtemp(join(tmpdir(), "lockstep-log-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

const silent = () => {};

/** For a close that is to have written everything, however slow the disk is. */
const WHOLE_MS = 600_000;

function openLog(
  place: LogPlace,
  files: LogFiles = realLogFiles,
  onProblem: LogFile["append"] | null = null,
) {
  return new LogFile({
    files,
    place,
    clock: systemClock,
    onProblem: (problem) => (onProblem ?? silent)(problem === null ? "well" : problem.problem),
  });
}

/** All lines of a log and its backups, oldest first; of a file that a crash left under two names once. */
async function allLines(path: string): Promise<string[]> {
  const directory = join(path, "..");
  const numberOf = (name: string) => Number(name.split(".")[1] ?? 0);
  const names = (await readdir(directory)).sort((a, b) => numberOf(a) - numberOf(b));
  const seen = new Set<string | null>();
  const texts: string[] = [];
  for (const name of names) {
    const identity = await realLogFiles.identify(join(directory, name));
    if (seen.has(identity)) continue;
    seen.add(identity);
    texts.unshift(await readFile(join(directory, name), "utf8"));
  }
  return texts.flatMap((text) => {
    assert.ok(text === "" || text.endsWith("\n"), "a file ends within a line");
    return text.split("\n").slice(0, -1);
  });
}

const line = (number: number) => `line ${String(number).padStart(4, "0")}`;

test("rotation keeps every file below its size, all lines in order, and so many backups", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "log");
  const log = openLog({ path, sizeBytesMax: 100, historySize: 1000 });
  const lines = Array.from({ length: 200 }, (_, number) => line(number));
  for (const each of lines) log.append(`${each}\n`);
  await log.close(WHOLE_MS);
  assert.deepEqual(await allLines(path), lines);
  for (const name of await readdir(directory.path))
    assert.ok((await readFile(join(directory.path, name))).length <= 100, name);
  const short = openLog({ path, sizeBytesMax: 100, historySize: 2 });
  for (const each of lines.slice(0, 30)) short.append(`${each}\n`);
  await short.close(WHOLE_MS);
  assert.deepEqual((await readdir(directory.path)).sort(), ["log", "log.1", "log.2"]);
  assert.deepEqual((await allLines(path)).at(-1), line(29));
});

test("a history of nothing leaves the log alone", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "log");
  const log = openLog({ path, sizeBytesMax: 30, historySize: 0 });
  for (let number = 0; number < 10; number++) log.append(`${line(number)}\n`);
  await log.close(WHOLE_MS);
  assert.deepEqual(await readdir(directory.path), ["log"]);
  assert.deepEqual(await allLines(path), [line(9)]);
});

/** Passes so many calls on, then dies before or after the next one: that one and all later ones never come back. */
function dying(calls: number, when: "before" | "after") {
  let left = calls;
  let dead = false;
  const never = () => new Promise<never>(() => {});
  const step = async <T>(work: () => Promise<T>): Promise<T> => {
    if (dead) return never();
    if (left-- > 0) return await work();
    dead = true;
    if (when === "after") await work();
    died.resolve();
    return never();
  };
  const died = Promise.withResolvers<void>();
  const handles: LogHandle[] = [];
  const files: LogFiles = {
    ...realLogFiles,
    identify: (path) => step(() => realLogFiles.identify(path)),
    link: (from, to) => step(() => realLogFiles.link(from, to)),
    rename: (from, to) => step(() => realLogFiles.rename(from, to)),
    unlink: (path) => step(() => realLogFiles.unlink(path)),
    open: (path) =>
      step(async (): Promise<LogHandle> => {
        const handle = await realLogFiles.open(path);
        handles.push(handle);
        return { ...handle, write: (bytes) => step(() => handle.write(bytes)) };
      }),
  };
  // The system closes what a dead process had open.
  const bury = () => Promise.all(handles.map((handle) => handle.close()));
  return { files, died: died.promise, bury };
}

test("a crash before or after any step of a rotation loses no line that was written", async () => {
  const lines = Array.from({ length: 8 }, (_, number) => line(number));
  let crashes = 0;
  for (let calls = 0; ; calls++) {
    let finished = false;
    for (const when of ["before", "after"] as const) {
      await using directory = await temporaryDirectory();
      const path = join(directory.path, "log");
      const { files, died, bury } = dying(calls, when);
      const first = openLog({ path, sizeBytesMax: 22, historySize: 20 }, files);
      for (const each of lines) first.append(`${each}\n`);
      finished = await Promise.race([died.then(() => false), first.flush().then(() => true)]);
      if (!finished) crashes++;
      await bury();
      const before = (await readdir(directory.path)).length === 0 ? [] : await allLines(path);
      const second = openLog({ path, sizeBytesMax: 22, historySize: 20 });
      for (let number = 100; number < 105; number++) second.append(`${line(number)}\n`);
      await second.close(WHOLE_MS);
      const after = await allLines(path);
      // What had reached the disk is there once, in order, and so is what came later.
      assert.deepEqual(
        after,
        [...before, ...Array.from({ length: 5 }, (_, each) => line(100 + each))],
        `${calls} ${when}`,
      );
      assert.deepEqual(before, lines.slice(0, before.length));
    }
    if (finished) break;
  }
  assert.ok(crashes > 40, `only ${crashes} crashes`);
});

test("two writers of one log do not write over each other's backups", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "log");
  const place = { path, sizeBytesMax: 60, historySize: 500 };
  const logs = [openLog(place), openLog(place)];
  for (let number = 0; number < 100; number++)
    for (const [index, log] of logs.entries()) log.append(`${index} ${line(number)}\n`);
  await Promise.all(logs.map((log) => log.close(WHOLE_MS)));
  const all = await allLines(path);
  for (const index of [0, 1])
    assert.deepEqual(
      all
        .filter((each) => each.startsWith(`${index} `))
        .map((each) => each.slice(2))
        .sort(),
      Array.from({ length: 100 }, (_, number) => line(number)),
    );
});

test("a missing directory is told once, lines wait, and they are written when it is there", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "later", "log");
  const told: string[] = [];
  const well = Promise.withResolvers<void>();
  const log = openLog({ path, sizeBytesMax: 1000, historySize: 2 }, realLogFiles, (text) => {
    told.push(text);
    if (text === "well") well.resolve();
  });
  for (let number = 0; number < 3; number++) log.append(`${line(number)}\n`);
  await log.flush();
  assert.equal(told.length, 1);
  assert.match(told[0] ?? "", /later\/log cannot be written: ENOENT/);
  await mkdir(join(directory.path, "later"));
  await well.promise;
  await log.close(WHOLE_MS);
  assert.deepEqual(await allLines(path), [line(0), line(1), line(2)]);
  assert.deepEqual(told.slice(1), ["well"]);
});

test("a full disk in the middle of a line, then EIO: the line is finished where it stopped, nothing comes twice", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "log");
  const failures = [
    Object.assign(new Error("ENOSPC: no space left"), { code: "ENOSPC" }),
    Object.assign(new Error("EIO: i/o error"), { code: "EIO" }),
  ];
  let writes = 0;
  const files: LogFiles = {
    ...realLogFiles,
    open: async (name) => {
      const handle = await realLogFiles.open(name);
      return {
        ...handle,
        write: async (bytes) => {
          writes++;
          if (writes === 1) return await handle.write(bytes.subarray(0, 4));
          const failure = failures.shift();
          if (failure !== undefined) throw failure;
          return await handle.write(bytes);
        },
      };
    },
  };
  const told: string[] = [];
  const well = Promise.withResolvers<void>();
  const log = openLog({ path, sizeBytesMax: 1000, historySize: 2 }, files, (text) => {
    told.push(text);
    if (text === "well") well.resolve();
  });
  log.append(`${line(0)}\n`);
  log.append(`${line(1)}\n`);
  await well.promise;
  await log.close(WHOLE_MS);
  assert.deepEqual(await allLines(path), [line(0), line(1)]);
  assert.equal(told.length, 2);
  assert.match(told[0] ?? "", /ENOSPC/);
});

test("a log that somebody moves away or deletes goes on under its name", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "log");
  const log = openLog({ path, sizeBytesMax: 1000, historySize: 2 });
  log.append("one\n");
  await log.flush();
  await realLogFiles.rename(path, `${path}.1`);
  log.append("two\n");
  await log.flush();
  await rm(path);
  log.append("three\n");
  await log.close(WHOLE_MS);
  assert.deepEqual(await allLines(path), ["one", "three"]);
});

test("a line torn by a crash of the machine is ended before the next begins", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "log");
  await writeFile(path, "whole\ntor");
  const log = openLog({ path, sizeBytesMax: 1000, historySize: 2 });
  log.append("next\n");
  await log.close(WHOLE_MS);
  assert.deepEqual(await allLines(path), ["whole", "tor", "next"]);
});

test("a log that cannot be rotated grows, and says so", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "log");
  const refuse = () =>
    Promise.reject(Object.assign(new Error("EACCES: permission denied"), { code: "EACCES" }));
  const told: string[] = [];
  const log = openLog(
    { path, sizeBytesMax: 30, historySize: 2 },
    { ...realLogFiles, link: refuse, rename: refuse },
    (text) => told.push(text),
  );
  const lines = Array.from({ length: 10 }, (_, number) => line(number));
  for (const each of lines) log.append(`${each}\n`);
  await log.close(WHOLE_MS);
  assert.deepEqual(await allLines(path), lines);
  assert.match(told.join(), /cannot be rotated, and grows: EACCES/);
});

test("a process that stood still while it closed its log hears what was written before it gives up", async () => {
  const written: string[] = [];
  const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
  const handle: LogHandle = {
    ...{ identity: "1", sizeBytes: 0, torn: false },
    write: async (bytes) => {
      await turn();
      written.push(Buffer.from(bytes).toString());
      return bytes.length;
    },
    writeNow: () => {},
    links: async () => 1,
    copyTo: async () => {},
    close: async () => {},
  };
  const log = new LogFile({
    files: { ...realLogFiles, open: async () => handle },
    // Each time that it looks, whatever it waits for is over.
    clock: { ...systemClock, sleep: turn },
    place: { path: "/log", sizeBytesMax: 1000, historySize: 1 },
    onProblem: silent,
  });
  await turn();
  log.append("one\n");
  assert.equal(await log.close(), true);
  assert.deepEqual(written, ["one\n"]);
});

test("a history that became shorter gives up its oldest files", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "log");
  for (const name of ["log", "log.1", "log.2", "log.3", "log.4"])
    await writeFile(join(directory.path, name), `${name}\n`);
  await rotate(realLogFiles, path, 2);
  assert.deepEqual((await readdir(directory.path)).sort(), ["log.1", "log.2"]);
  assert.equal(await readFile(`${path}.2`, "utf8"), "log.1\n");
});

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { systemClock, systemErrorCode } from "@lockstep/platform";
import { realLogFiles } from "../../packages/service/src/log/files.ts";
import { parseLine } from "../../packages/service/src/log/line.ts";
import { LogFile } from "../../packages/service/src/log/log-file.ts";
import { startTestHub } from "../hub/support/test-hub.ts";
import { usePostgres } from "../support/postgres.ts";
import { configure, runService, startJob, temporaryDirectory, until, untilEnded } from "./service-world.ts";

const server = usePostgres();
const rootOnly =
  process.platform === "linux" && process.geteuid?.() === 0
    ? {}
    : { skip: "only root can mount a small disk" };
const QUEUE = "\\A";

/** A disk of so many bytes, gone with the test. */
function smallDisk(t: Pick<TestContext, "after">, sizeBytes: number): string {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-small-disk-"));
  t.after(() => {
    spawnSync("/usr/bin/umount", ["-l", directory], { stdio: "ignore" });
    rmSync(directory, { recursive: true, force: true });
  });
  const options = `size=${sizeBytes},mode=0700`;
  execFileSync("/usr/bin/mount", ["-t", "tmpfs", "-o", options, "lockstep-small-disk", directory]);
  return directory;
}

const freeBytes = (directory: string) => Number(statfsSync(directory).bavail) * statfsSync(directory).bsize;

/** Takes all the room but for what is left in the last block of each file. Returns how to give it back. */
function fill(directory: string): () => void {
  const file = join(directory, "filler");
  while (freeBytes(directory) > 0)
    try {
      writeFileSync(file, Buffer.alloc(freeBytes(directory)), { flag: "a" });
    } catch (error) {
      // Somebody else took some of it meanwhile.
      if (systemErrorCode(error) !== "ENOSPC") throw error;
    }
  return () => rmSync(file);
}

test(
  "a full disk stops no step: the service says so, and every line is there when there is room",
  rootOnly,
  async (t) => {
    const hub = await startTestHub(t, server);
    const directory = temporaryDirectory(t);
    const logs = smallDisk(t, 1024 * 1024);
    const file = configure(hub, directory, { queues: [QUEUE] });
    writeFileSync(
      file,
      readFileSync(file, "utf8").replace('"service.log"', JSON.stringify(join(logs, "service.log"))),
    );
    // As below systemd, where standard error is the system's log.
    const service = await runService(t, directory, file, { JOURNAL_STREAM: "8:1" });
    const run = async (name: string) => {
      const id = await startJob(
        hub,
        name,
        Array.from({ length: 20 }, (_, step) => ({
          name: `${name}-${step}`,
          component: "Wait",
          task: "Delay",
          queue: QUEUE,
          parameters: { seconds: 0 },
        })),
      );
      const { process, steps } = await untilEnded(hub, id);
      assert.equal(process.state, "finished");
      return steps.map((step) => step.id);
    };
    const before = await run("before");
    const log = () => readFileSync(join(logs, "service.log"), "utf8");
    await until(() => before.every((id) => log().includes(` - Wait - ${id}: `)));
    const giveBack = fill(logs);
    // The first lines may find room in the last block of the log.
    const meanwhile: number[] = [];
    while (!service.stderr().includes("<4>the log cannot be written as configured"))
      meanwhile.push(...(await run("meanwhile")));
    assert.match(service.stderr(), /ENOSPC/);
    giveBack();
    await until(() => service.stderr().includes("is written again; nothing is missing"));
    const after = await run("after");
    assert.equal(await service.stop(), 0);
    const text = log();
    assert.ok(text.endsWith("\n"));
    for (const line of text.split("\n").slice(0, -1))
      assert.ok(parseLine(line) !== null, `no whole line: ${line}`);
    for (const id of [...before, ...meanwhile, ...after]) {
      const ends = text.split("\n").filter((line) => line.includes(` - Wait - ${id}: `));
      assert.equal(ends.length, 1, `step ${id}: ${ends.join("\n")}`);
    }
    assert.match(text, /the log could not be written for a while/);
  },
);

test(
  "more than can wait gives way, counted to the line, and none is written in part",
  rootOnly,
  async (t) => {
    const directory = smallDisk(t, 4 * 1024 * 1024);
    const told: (string | null)[] = [];
    let lost = 0;
    const log = new LogFile({
      files: realLogFiles,
      clock: systemClock,
      place: { path: join(directory, "log"), sizeBytesMax: 100 * 1024 * 1024, historySize: 1 },
      onProblem: (problem, count) => {
        told.push(problem?.problem ?? null);
        lost += problem === null ? count : 0;
      },
    });
    t.after(() => log.close());
    let number = 0;
    const append = (count: number) => {
      for (let each = 0; each < count; each++) log.append(`line ${number++} ${"x".repeat(50)}\n`);
    };
    append(10);
    await log.flush();
    const giveBack = fill(directory);
    append(1_000);
    await until(() => told.length === 1);
    assert.match(told[0] ?? "", /ENOSPC/);
    append(20_000);
    giveBack();
    await until(() => told.length === 2);
    append(10);
    assert.equal(await log.close(60_000), true);
    const lines = readFileSync(join(directory, "log"), "utf8").split("\n").slice(0, -1);
    assert.ok(lost > 5_000, `${lost} lost`);
    assert.equal(lines.length + lost, number);
    const numbers = lines.map((line) => Number(/^line (\d+) x{50}$/.exec(line)?.[1] ?? Number.NaN));
    assert.ok(
      numbers.every((each, index) => index === 0 || each > (numbers[index - 1] ?? Number.NaN)),
      "a line is torn, or out of order",
    );
    assert.deepEqual(readdirSync(directory), ["log"]);
  },
);

import { createHash } from "node:crypto";
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { type Measured, processTree, type Sample, timeProcess } from "../harness.ts";
import { inTemporaryDirectory, lockstep, startHub } from "../lockstep.ts";
import { type MemoryTogether, watchTogether } from "../memory.ts";
import type { Report } from "../report.ts";

/**
 * Memory and time for a very large file: loaded, installed, updated by a step and fetched whole.
 *
 * LARGE_BYTES names its size (1,000,000,000). Two thirds are random, which no compressor helps; one third is text. The next
 * version has a piece put in front, so that everything moves, and a changed stretch in every hundredth of it.
 *
 * The memory is that of the hub, its PostgreSQL and the maker of steps together (memory.ts).
 */
const SIZE = Number(process.env.LARGE_BYTES ?? 1_000_000_000);
const PIECE = 4 * 1024 * 1024;
const GOALS = { updater: 200, hub: 600 };

/** Bytes that a name and a place decide: random ones, or lines of text. */
function pieceOf(name: string, index: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  if (index % 3 === 2) {
    let text = "";
    for (let line = 0; text.length < length; line++)
      text += `${name} ${index} line ${line} value ${(line * 7919 + index * 104_729) % 100_003}\n`;
    bytes.write(text, "latin1");
    return bytes;
  }
  // A stream cipher would be shorter, and this needs no key.
  let block = Buffer.alloc(0);
  const digest = Buffer.alloc(32);
  for (let at = 0; at < length; at += 32) {
    if ((at & 0xffff) === 0) block = createHash("sha256").update(`${name} ${index} ${at}`).digest();
    block.copy(digest);
    digest.writeUInt32LE((digest.readUInt32LE(0) ^ Math.imul(at, 2_654_435_761)) >>> 0, 0);
    for (let word = 4; word < 32; word += 4)
      digest.writeUInt32LE((digest.readUInt32LE(word) ^ Math.imul(at + word, 2_246_822_519)) >>> 0, word);
    digest.copy(bytes, at);
  }
  return bytes;
}

function writeLarge(path: string, name: string): void {
  const file = openSync(path, "w");
  for (let at = 0, index = 0; at < SIZE; at += PIECE, index++)
    writeSync(file, pieceOf(name, index, Math.min(PIECE, SIZE - at)));
  closeSync(file);
}

/** The same with something before it, and changed in a hundred places. */
function writeNext(from: string, to: string): void {
  const source = openSync(from, "r");
  const target = openSync(to, "w");
  writeSync(target, pieceOf("front", 0, 1_000));
  const buffer = Buffer.alloc(Math.ceil(SIZE / 100));
  for (let index = 0; ; index++) {
    const length = readSync(source, buffer, 0, buffer.length, null);
    if (length === 0) break;
    pieceOf("change", index, Math.min(2_000, length)).copy(buffer, 0);
    writeSync(target, buffer, 0, length);
  }
  closeSync(source);
  closeSync(target);
}

/** Waits until a maker of steps has been there and is gone; to be called before what makes the hub start it. */
async function makerDone(hub: number): Promise<void> {
  let seen = false;
  for (let tries = 0; tries < 18_000 && commandOf(hub) !== ""; tries++) {
    const isThere = processTree(hub).some((pid) => commandOf(pid).includes("step-maker"));
    if (seen && !isThere) return;
    seen ||= isThere;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(seen ? "the hub is still making a step" : "the hub made no step");
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1");
  } catch {
    // It has ended.
    return "";
  }
}

const mib = (bytes: number) => Math.round(bytes / 2 ** 20);

export function run(): Promise<Report> {
  return inTemporaryDirectory(async (directory) => {
    const source = join(directory, "source");
    mkdirSync(source);
    writeLarge(join(source, "one.bin"), "one");
    const hub = await startHub(join(directory, "hub"));
    const measured: Measured[] = [];
    const memory: { readonly name: string; readonly hub: MemoryTogether }[] = [];
    const watched = async <T>(name: string, action: () => Promise<T>): Promise<T> => {
      process.stderr.write(`  ${name}\n`);
      const watching = watchTogether(hub.pid);
      try {
        return await action();
      } finally {
        const found = watching.stop();
        memory.push({ name, hub: found });
        process.stderr.write(`    ${mib(found.ownBytes)} MiB and ${mib(found.sharedBytes)} MiB shared\n`);
      }
    };
    const phase = async (name: string, args: readonly string[]): Promise<Sample & { stdout: string }> => {
      const sample = await watched(name, () => timeProcess(...lockstep(...args)));
      measured.push({ name, samples: [sample] });
      return sample;
    };
    const load = (version: string) => [
      ...["load", source, "--hub", hub.url, "--module", "LARGE", "--version", version],
      ...["--assign", "**=Client", "--yes"],
    ];
    const installation = join(directory, "installation");
    const updaters: number[] = [];
    const updater = async (name: string, ...args: string[]) => {
      const { peakBytes, stdout } = await phase(name, args);
      updaters.push(peakBytes ?? 0);
      return Number((JSON.parse(stdout) as { receivedBytes?: number }).receivedBytes);
    };
    try {
      await phase("load", load("1"));
      await updater("install", "install", installation, "--hub", hub.url, "--role", "Client", "--json");
      writeNext(join(source, "one.bin"), join(source, "two.bin"));
      await timeProcess("mv", [join(source, "two.bin"), join(source, "one.bin")]);
      const made = makerDone(hub.pid);
      await phase("load of the next version", load("2"));
      const began = performance.now();
      await watched("making the step", () => made);
      const makingMs = performance.now() - began;
      if (readdirSync(join(directory, "hub/steps")).length !== 1) throw new Error("the hub made no step");
      const stepBytes = await updater("update by a step", "update", installation, "--json");
      await timeProcess(...lockstep("settings", "set", "Common/Transfer/Steps=false", "--hub", hub.url));
      writeLarge(join(source, "other.bin"), "other");
      await timeProcess("mv", [join(source, "other.bin"), join(source, "one.bin")]);
      await phase("load of another file", load("3"));
      const wholeBytes = await updater("update by the whole file", "update", installation, "--json");
      return {
        title: "Very large files",
        text: [
          `A file of ${SIZE.toLocaleString("en")} bytes. The step to its next version, in which everything has moved and a ` +
            `hundred places are changed, was made within ${(makingMs / 1000).toFixed(0)} s after the load, and had ` +
            `${stepBytes.toLocaleString("en")} bytes; another file of that size travelled in ${wholeBytes.toLocaleString("en")}.`,
          "",
          "Memory of the hub, its PostgreSQL and the maker of steps together, each page counted once:",
          "",
          "| | their own | shared |",
          "| --- | --- | --- |",
          ...memory.map(
            ({ name, hub }) => `| ${name} | ${mib(hub.ownBytes)} MiB | ${mib(hub.sharedBytes)} MiB |`,
          ),
        ].join("\n"),
        measured,
        findings: [
          {
            what: "memory of the updater",
            found: Math.max(...updaters) / 2 ** 20,
            goal: GOALS.updater,
            unit: " MiB",
          },
          {
            what: "memory of hub, database and maker of steps together",
            found: Math.max(...memory.map(({ hub }) => hub.ownBytes + hub.sharedBytes)) / 2 ** 20,
            goal: GOALS.hub,
            unit: " MiB",
          },
          { what: "bytes of the step, of the file", found: stepBytes / SIZE, goal: 0.01, unit: "" },
        ],
      };
    } finally {
      await hub.stop();
    }
  });
}

/**
 * Makes and applies the step between two directories, as hub and updater do, without either: what making and applying cost
 * by themselves. `list FROM TO LISTS`, `make LISTS STEP`, `apply LISTS STEP TARGET`. Hub and updater have the lists of files
 * from manifests, so another process writes them here: reading all files would be the memory that is measured.
 *
 * `apply` is repeated until two seconds of processor time have passed or 100 MB were made, since a small step takes less
 * than the clock can tell; `runs` says how often. The peak is that of the first time: what is left of it is not yet
 * collected in the second.
 */
import { hash } from "node:crypto";
import { closeSync, mkdirSync, openSync, readFileSync, statSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { FileEntry } from "@lockstep/core";
import { type Content, FileSources, makeStep, type OpenContent, readStep } from "@lockstep/delta";
import { filesBelow } from "./inputs.ts";

/** A side of the step: its files, and where they stand. */
interface Side {
  readonly root: string;
  readonly entries: readonly FileEntry[];
}

interface Lists {
  readonly from: Side;
  readonly to: Side;
}

const ENOUGH_BYTES = 100_000_000;
const ENOUGH_MS = 2_000;

function listSide(root: string): Side {
  const entries = filesBelow(root).map((path) => {
    const bytes = readFileSync(join(root, path));
    return { path, size: bytes.length, sha256: hash("sha256", bytes), mode: 0o644, backup: false };
  });
  return { root, entries };
}

function opener({ from, to }: Lists, files: FileSources): OpenContent {
  const places = new Map<string, string>();
  for (const { root, entries } of [to, from])
    for (const { path, sha256 } of entries) places.set(sha256, join(root, path));
  return ({ sha256, size }: Content) => files.source(places.get(sha256) ?? "", size);
}

const cpuMs = (since?: NodeJS.CpuUsage) => {
  const { user, system } = process.cpuUsage(since);
  return (user + system) / 1000;
};

const peakBytes = () => process.resourceUsage().maxRSS * 1024;

interface Cost {
  readonly cpuMs: number;
  readonly peakBytes: number;
}

interface ApplyCost extends Cost {
  readonly resultBytes: number;
  readonly runs: number;
}

function make(lists: Lists, step: string): Cost {
  const began = process.cpuUsage();
  const files = new FileSources();
  const made = makeStep(lists.from.entries, lists.to.entries, opener(lists, files), ({ size }) => size);
  files.close();
  const file = openSync(step, "w");
  for (const piece of made?.pieces ?? [])
    for (let done = 0; done < piece.length; ) done += writeSync(file, piece, done);
  closeSync(file);
  return { cpuMs: cpuMs(began), peakBytes: peakBytes() };
}

function applyOnce(lists: Lists, step: string, target: string): number {
  const files = new FileSources();
  const open = opener(lists, files);
  const source = files.source(step, statSync(step).size);
  let bytes = 0;
  for (const part of readStep(lists.from.entries, lists.to.entries, source)) {
    const file = openSync(join(target, part.results[0]?.sha256 ?? "none"), "w");
    part.apply(open, (piece) => {
      bytes += piece.length;
      for (let done = 0; done < piece.length; ) done += writeSync(file, piece, done);
    });
    closeSync(file);
  }
  files.close();
  return bytes;
}

function apply(lists: Lists, step: string, target: string): ApplyCost {
  mkdirSync(target, { recursive: true });
  const began = process.cpuUsage();
  let resultBytes = applyOnce(lists, step, target);
  const peak = peakBytes();
  let runs = 1;
  for (; resultBytes < ENOUGH_BYTES && cpuMs(began) < ENOUGH_MS; runs++)
    resultBytes += applyOnce(lists, step, target);
  return { cpuMs: cpuMs(began) / runs, peakBytes: peak, resultBytes: resultBytes / runs, runs };
}

const [what, ...paths] = process.argv.slice(2);
const read = (path: string): Lists => JSON.parse(readFileSync(path, "utf8")) as Lists;
const [first = "", second = "", third = ""] = paths;
if (what === "list") {
  const lists: Lists = { from: listSide(first), to: listSide(second) };
  writeFileSync(third, JSON.stringify(lists));
} else {
  const found = what === "make" ? make(read(first), second) : apply(read(first), second, third);
  process.stdout.write(`${JSON.stringify(found)}\n`);
}

import type { FileEntry } from "@lockstep/core";
import { applyDelta } from "./apply-delta.ts";
import { applyArchiveDelta, writeArchiveDelta } from "./archive-delta.ts";
import { type ByteSource, brokenDelta, DeltaReader } from "./delta-format.ts";
import { JoinedSource } from "./joined-source.ts";
import { type WritePiece, writeCompressed, writeDelta } from "./make-delta.ts";
import { NumberReader, NumberWriter } from "./number-stream.ts";
import { type Content, planStep, type StepContents, type StepUnit, stepContents } from "./step-plan.ts";

/**
 * A step: all that leads from the contents of one manifest to those of another, as one object. It never changes, whoever
 * asks from the same manifest to the same gets the same, and any cache may keep it.
 *
 *   step  := "LSS1" coded(units) delta*
 *   units := (kind bases base* results result* size)*
 *
 * Kind 0 is a delta, kind 1 one between archives; `size` bytes of it follow, unit after unit. Bases and results are numbers
 * of stepContents, each written as the difference to the one before it, of either sign.
 */
const STEP_MAGIC = "LSS1";
const UNITS_BYTES_MAX = 16 * 1024 * 1024;

/** Gives a content of the old or of the new manifest. */
export type OpenContent = (content: Content) => ByteSource;

/**
 * Takes the deltas of a step while it is made. What stands before them in the step is only known when all of them are, and they
 * may be as large as the contents: in memory they would be the largest thing that a maker holds.
 */
export interface StepDeltas {
  readonly write: WritePiece;
  /** Forgets what has been written beyond this many bytes. */
  readonly cut: (bytes: number) => void;
}

export interface MadeStep {
  /** What stands before the deltas. */
  readonly head: readonly Uint8Array[];
  /** Of the whole step. */
  readonly bytes: number;
  /** Results that are in it; the others are fetched whole. */
  readonly results: number;
}

/**
 * Makes the step between two manifests, or null when nothing changed that it could hold. `whole`: what fetching a result whole
 * costs, in bytes; a unit that costs more than that is left out. Throws what the sources and `deltas` throw.
 */
export function writeStep(
  from: readonly FileEntry[],
  to: readonly FileEntry[],
  open: OpenContent,
  whole: (content: Content) => number,
  deltas: StepDeltas,
): MadeStep | null {
  const contents = stepContents(from, to);
  const units = new NumberWriter();
  let total = 0;
  let results = 0;
  for (const unit of planStep(from, to, contents)) {
    const bytesMax = unit.results.reduce((sum, result) => sum + whole(at(contents.results, result)), 0);
    const made = writeUnit(unit, contents, open, bytesMax, {
      write: deltas.write,
      cut: () => deltas.cut(total),
    });
    if (made === null) continue;
    results += unit.results.length;
    units.add(made.kind);
    addNumbers(units, unit.bases);
    addNumbers(units, unit.results);
    units.add(made.bytes);
    total += made.bytes;
  }
  if (results === 0) return null;
  const head: Uint8Array[] = [new TextEncoder().encode(STEP_MAGIC)];
  writeCompressed(Uint8Array.from(units.bytes()), head);
  return { head, bytes: lengthOf(head) + total, results };
}

/** The same, in memory: the step in pieces, or null. */
export function makeStep(
  from: readonly FileEntry[],
  to: readonly FileEntry[],
  open: OpenContent,
  whole: (content: Content) => number,
): (MadeStep & { readonly pieces: readonly Uint8Array[] }) | null {
  const pieces: Uint8Array[] = [];
  const made = writeStep(from, to, open, whole, {
    write: (piece) => pieces.push(Uint8Array.from(piece)),
    cut: (bytes) => {
      for (let left = lengthOf(pieces); left > bytes; ) left -= pieces.pop()?.length ?? left;
    },
  });
  return made === null ? null : { ...made, pieces: [...made.head, ...pieces] };
}

const lengthOf = (pieces: readonly Uint8Array[]) => pieces.reduce((sum, piece) => sum + piece.length, 0);

function writeUnit(
  unit: StepUnit,
  contents: StepContents,
  open: OpenContent,
  bytesMax: number,
  deltas: { readonly write: WritePiece; readonly cut: () => void },
): { kind: number; bytes: number } | null {
  const base = new JoinedSource(unit.bases.map((number) => open(at(contents.bases, number))));
  const result = new JoinedSource(unit.results.map((number) => open(at(contents.results, number))));
  let bytes = 0;
  const write = (piece: Uint8Array) => {
    deltas.write(piece);
    bytes += piece.length;
  };
  if (unit.isArchive && writeArchiveDelta(base, result, bytesMax, write))
    return { kind: KIND_ARCHIVE, bytes };
  if (bytes > 0) deltas.cut();
  bytes = 0;
  if (writeDelta(base, result, bytesMax, write)) return { kind: KIND_DELTA, bytes };
  deltas.cut();
  return null;
}

const KIND_DELTA = 0;
const KIND_ARCHIVE = 1;

function at<T>(list: readonly T[], number: number): T {
  const found = list[number];
  if (found === undefined) throw new RangeError(`no number ${number} of ${list.length}`);
  return found;
}

function addNumbers(writer: NumberWriter, numbers: readonly number[]): void {
  writer.add(numbers.length);
  let last = 0;
  for (const number of numbers) {
    writer.addSigned(number - last);
    last = number;
  }
}

/** A unit as it stands in a step. */
export interface StepPart {
  readonly bases: readonly Content[];
  readonly results: readonly Content[];
  /** Applies it: gives `write` the results one after the other. Throws DELTA_INVALID. */
  readonly apply: (open: OpenContent, write: (bytes: Uint8Array) => void) => void;
}

/** The parts of a step between two manifests. Throws DELTA_INVALID for whatever a broken or hostile step can say. */
export function readStep(from: readonly FileEntry[], to: readonly FileEntry[], step: ByteSource): StepPart[] {
  const contents = stepContents(from, to);
  const reader = new DeltaReader(step);
  reader.magic(STEP_MAGIC);
  const units = new NumberReader(reader.coded("the units", UNITS_BYTES_MAX));
  const parts: StepPart[] = [];
  const named = new Set<Content>();
  let start = reader.at;
  while (!units.isAtEnd) {
    const kind = units.next();
    const bases = readNumbers(units, contents.bases);
    const results = readNumbers(units, contents.results);
    const size = units.next();
    if ((kind !== KIND_DELTA && kind !== KIND_ARCHIVE) || size === null || size > step.size - start)
      throw brokenDelta("a unit of the step says something impossible");
    for (const result of results) {
      if (named.has(result)) throw brokenDelta(`two units of the step make ${result.sha256}`);
      named.add(result);
    }
    const resultBytes = results.reduce((sum, result) => sum + result.size, 0);
    const position = start;
    start += size;
    const delta: ByteSource = { size, read: (at, length) => step.read(position + at, length) };
    parts.push({
      bases,
      results,
      apply: (open, write) => {
        const base = new JoinedSource(bases.map(open));
        if (kind === KIND_ARCHIVE) applyArchiveDelta(base, delta, write, resultBytes);
        else applyDelta(base, delta, write, resultBytes);
      },
    });
  }
  if (start !== step.size) throw brokenDelta(`${step.size - start} bytes follow the last unit of the step`);
  return parts;
}

function readNumbers(reader: NumberReader, list: readonly Content[]): Content[] {
  const count = reader.next();
  if (count === null || count > list.length)
    throw brokenDelta(`a unit names ${count ?? "no"} contents of ${list.length}`);
  const contents: Content[] = [];
  let number = 0;
  for (let i = 0; i < count; i++) {
    number += reader.nextSigned() ?? Number.NaN;
    const content = list[number];
    if (content === undefined) throw brokenDelta(`a unit names content ${number} of ${list.length}`);
    contents.push(content);
  }
  return contents;
}

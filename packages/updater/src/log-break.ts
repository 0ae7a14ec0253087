import { closeSync, constants, fstatSync, openSync, readSync, statSync } from "node:fs";
import { basename } from "node:path";
import { LockstepError } from "@lockstep/protocol/wire";
import { guarded } from "./io-failure.ts";
import type { InstallationPaths } from "./layout.ts";
import { CHAIN_BEGIN, type ChainFault, LogChain } from "./log-chain.ts";
import { LOG_FILES_KEPT } from "./update-log.ts";

/** The first record of update.log that does not follow the one before it. */
export interface LogBreak extends ChainFault {
  /** `update.log`, or a rotated one: `update.log.1` is the one before it. */
  readonly file: string;
  /** Which line of that file, from 1. */
  readonly line: number;
  /** What the record says of itself, cut to a length that a screen takes. */
  readonly record: string;
}

const PIECE_BYTES = 1024 * 1024;
/** No record comes near that. */
const LINE_BYTES_MAX = 256 * 1024;
const RECORD_CHARACTERS_MAX = 400;
const LOOKS_MAX = 3;
/** A link is not followed, and a pipe does not keep us waiting. Both names are missing on Windows. */
const READ = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);

/**
 * Where update.log was altered, its rotated files included; null when every record follows the one before it. Throws
 * INSTALLATION_IO_FAILED and its kin where it cannot be read.
 */
export function findLogBreak(paths: InstallationPaths): LogBreak | null {
  for (let looks = 1; ; looks++) {
    const before = filesOf(paths);
    const found = look(before);
    // Somebody who updates meanwhile may have rotated the files below our eyes.
    if (found === null || looks === LOOKS_MAX || sameFiles(before, filesOf(paths))) return found;
  }
}

interface LogFile {
  readonly path: string;
  readonly number: number;
  readonly ino: bigint;
}

/** Oldest first. */
function filesOf({ log }: InstallationPaths): LogFile[] {
  const files: LogFile[] = [];
  for (let number = LOG_FILES_KEPT; number >= 0; number--) {
    const path = number === 0 ? log : `${log}.${number}`;
    const stat = guarded(path, "looking at", () => statSync(path, { bigint: true, throwIfNoEntry: false }));
    if (stat !== undefined) files.push({ path, number, ino: stat.ino });
  }
  return files;
}

function sameFiles(one: readonly LogFile[], other: readonly LogFile[]): boolean {
  const inodes = (files: readonly LogFile[]) => files.map(({ number, ino }) => `${number}:${ino}`).join(" ");
  return inodes(one) === inodes(other);
}

function look(files: readonly LogFile[]): LogBreak | null {
  // The oldest goes by rotation: first its name is free, then the one before it gets it.
  const whole = (files[0]?.number ?? 0) < LOG_FILES_KEPT - 1;
  const chain = new LogChain(whole ? CHAIN_BEGIN : null);
  for (const { path } of files) {
    const found = guarded(path, "reading", () => findIn(path, chain));
    if (found !== null) return found;
  }
  return null;
}

function findIn(path: string, chain: LogChain): LogBreak | null {
  let line = 0;
  for (const text of linesOf(path)) {
    line++;
    const fault = text === "" ? null : chain.follow(text);
    if (fault !== null)
      return { file: basename(path), line, record: text.slice(0, RECORD_CHARACTERS_MAX), ...fault };
  }
  return null;
}

/** The lines of a file, in little memory: an update reads its log in the process that has just fetched and written. */
function* linesOf(path: string): Generator<string, void> {
  const descriptor = openSync(path, READ);
  try {
    if (!fstatSync(descriptor).isFile()) return;
    const piece = Buffer.allocUnsafe(PIECE_BYTES);
    let rest: Buffer = Buffer.alloc(0);
    let isTooLong = false;
    for (;;) {
      const length = readSync(descriptor, piece);
      if (length === 0) break;
      let from = 0;
      for (let end = piece.indexOf(0x0a); end !== -1 && end < length; end = piece.indexOf(0x0a, from)) {
        yield isTooLong ? "" : Buffer.concat([rest, piece.subarray(from, end)]).toString("utf8");
        rest = Buffer.alloc(0);
        isTooLong = false;
        from = end + 1;
      }
      rest = isTooLong ? rest : Buffer.concat([rest, piece.subarray(from, length)]);
      if (rest.length > LINE_BYTES_MAX) {
        isTooLong = true;
        rest = Buffer.alloc(0);
      }
    }
    if (rest.length > 0) yield rest.toString("utf8");
  } finally {
    closeSync(descriptor);
  }
}

/** The error of a log that was altered. */
export function logAltered(directory: string, found: LogBreak): LockstepError {
  const where = `${found.file}, line ${found.line}`;
  return new LockstepError("UPDATE_LOG_ALTERED", `update.log of ${directory} was altered: ${where}`, {
    expected: found.expected === null ? "a record with its link" : `the link ${found.expected}`,
    found: found.found === null ? "no link" : `the link ${found.found}`,
    hint: "Records before that line are as they were written. Keep the files as evidence: move update.log and all update.log.N elsewhere, and a new chain begins.",
    faults: [{ where, problem: `${found.problem}: ${found.record}` }],
  });
}

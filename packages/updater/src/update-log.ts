import { randomUUID } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import type { Clock } from "@lockstep/platform";
import { guarded } from "./io-failure.ts";
import type { InstallationPaths } from "./layout.ts";
import { addLink, CHAIN_BEGIN, linkOf } from "./log-chain.ts";
import { describeProblem } from "./report.ts";

/**
 * update.log (S26): one record for each action, as one line of JSON with its time, its run, what was done to which
 * path, how it ended and why.
 *
 * JSON escapes line ends and control characters, so a hostile file name can neither begin a record of its own nor speak
 * to the terminal of whoever reads the file. Records are collected and appended with one write and one fsync at the end
 * of a run (and whenever many have come together), because an fsync for each of 43,000 files would take longer than the
 * update. What a killed run did not write is known all the same: the recovery writes what it finished.
 *
 * Each record is linked to the one before it (log-chain.ts), so that changing one is noticed. Not promised: that nobody can
 * write a new end. Who may write the directory may write the log.
 */
export interface LogRecord {
  /** ISO 8601, UTC. */
  readonly time: string;
  readonly run: string;
  /** What was done: begin, add, replace, remove, adopt, keep, plugin, switch, end ... */
  readonly action: string;
  readonly path: string | null;
  readonly result: "ok" | "failed" | "skipped";
  readonly reason: string | null;
  /** Its link to the record before it, as it stands in the file (log-chain.ts); null: none. */
  readonly chain: string | null;
  /** Further facts, by name. */
  readonly [fact: string]: string | number | boolean | null;
}

export const LOG_BYTES_MAX = 8 * 1024 * 1024;
/** Rotated files beside the current one. */
export const LOG_FILES_KEPT = 5;
/** A link is not followed, and a pipe does not keep us waiting. Both names are missing on Windows. */
const NO_SURPRISE = (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);
const APPEND = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | NO_SURPRISE;
const BUFFER_CHARACTERS_MAX = 1024 * 1024;
const FACT_CHARACTERS_MAX = 4000;

type Facts = Readonly<Record<string, string | number | boolean | null | undefined>>;

export class UpdateLog {
  readonly run: string;
  readonly #paths: InstallationPaths;
  readonly #clock: Pick<Clock, "now">;
  readonly #bytesMax: number;
  #lines: string[] = [];
  #characters = 0;
  #failure: string | null = null;

  constructor(paths: InstallationPaths, clock: Pick<Clock, "now">, run?: string, bytesMax = LOG_BYTES_MAX) {
    this.#paths = paths;
    this.#clock = clock;
    this.run = run ?? randomUUID();
    this.#bytesMax = bytesMax;
  }

  /** Notes one action. It is on the disk after `flush`. Never throws. */
  note(
    action: string,
    path: string | null,
    result: LogRecord["result"],
    reason: string | null,
    facts: Facts = {},
  ): void {
    const record: Record<string, unknown> = {
      time: new Date(this.#clock.now()).toISOString(),
      run: this.run,
      action,
      path,
      result,
      reason: shorten(reason),
    };
    for (const [name, value] of Object.entries(facts))
      if (value !== undefined) record[name] = typeof value === "string" ? shorten(value) : value;
    const line = escapeLine(JSON.stringify(record));
    this.#lines.push(line);
    this.#characters += line.length;
    if (this.#characters > BUFFER_CHARACTERS_MAX) this.#append(false);
  }

  /**
   * Appends what was noted and makes it durable. Returns what kept it, or anything noted before, from being written; null
   * when all is there. That is no error: what was done was done, whether it could be written down or not.
   */
  flush(): string | null {
    if (this.#lines.length > 0) this.#append(true);
    const failure = this.#failure;
    this.#failure = null;
    return failure;
  }

  #append(durable: boolean): void {
    try {
      this.#write(durable);
    } catch (error) {
      this.#failure ??= describeProblem(error);
    }
  }

  #write(durable: boolean): void {
    const lines = this.#lines;
    this.#lines = [];
    this.#characters = 0;
    guarded(this.#paths.log, "writing", () => {
      const text = linked(lines, lastLink(this.#paths.log));
      rotate(this.#paths.log, this.#bytesMax, Buffer.byteLength(text));
      // Append only: two writers mix lines, never within one.
      const descriptor = openSync(this.#paths.log, APPEND, 0o644);
      try {
        const lead = endsLine(this.#paths.log, fstatSync(descriptor).size) ? "" : "\n";
        writeSync(descriptor, lead + text);
        if (durable) fsyncSync(descriptor);
      } finally {
        closeSync(descriptor);
      }
    });
  }
}

function linked(lines: readonly string[], former: string): string {
  let text = "";
  let chain = former;
  for (const line of lines) {
    const next = addLink(line, chain);
    text += `${next.line}\n`;
    chain = next.chain;
  }
  return text;
}

/** A record is far shorter than that. */
const TAIL_BYTES = 256 * 1024;

/** The link of the newest record, from the file before the current one where that was just begun. */
function lastLink(path: string): string {
  for (const name of [path, `${path}.1`]) {
    const size = statSync(name, { throwIfNoEntry: false })?.size ?? 0;
    if (size === 0) continue;
    const descriptor = openSync(name, constants.O_RDONLY | NO_SURPRISE);
    try {
      const tail = Buffer.alloc(Math.min(size, TAIL_BYTES));
      readSync(descriptor, tail, 0, tail.length, size - tail.length);
      for (const line of tail.toString("utf8").split("\n").reverse()) {
        const link = linkOf(line);
        if (link !== null) return link;
      }
    } finally {
      closeSync(descriptor);
    }
  }
  return CHAIN_BEGIN;
}

/** Half a line of a killed run must not swallow the record after it. */
function endsLine(path: string, size: number): boolean {
  if (size === 0) return true;
  const descriptor = openSync(path, constants.O_RDONLY | NO_SURPRISE);
  try {
    const last = Buffer.alloc(1);
    readSync(descriptor, last, 0, 1, size - 1);
    return last[0] === 0x0a;
  } finally {
    closeSync(descriptor);
  }
}

function rotate(path: string, bytesMax: number, coming: number): void {
  const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  if (size === 0 || size + coming <= bytesMax) return;
  rmSync(`${path}.${LOG_FILES_KEPT}`, { force: true });
  for (let number = LOG_FILES_KEPT - 1; number >= 1; number--)
    if (statSync(`${path}.${number}`, { throwIfNoEntry: false }) !== undefined)
      renameSync(`${path}.${number}`, `${path}.${number + 1}`);
  renameSync(path, `${path}.1`);
}

function shorten(text: string | null): string | null {
  return text !== null && text.length > FACT_CHARACTERS_MAX ? `${text.slice(0, FACT_CHARACTERS_MAX)}…` : text;
}

/** JSON leaves some characters as they are that end a line or turn the direction for a reader. */
function escapeLine(json: string): string {
  return json.replaceAll(
    /[\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** Reads the records, oldest first, the rotated files included; lines that are no record are left out. */
export function readUpdateLog(paths: InstallationPaths): LogRecord[] {
  return readLines(paths).flatMap((line) => parseRecord(line) ?? []);
}

function readLines(paths: InstallationPaths): string[] {
  const lines: string[] = [];
  for (let number = LOG_FILES_KEPT; number >= 0; number--) {
    const path = number === 0 ? paths.log : `${paths.log}.${number}`;
    if (statSync(path, { throwIfNoEntry: false }) === undefined) continue;
    const text = guarded(path, "reading", () => readFileSync(path, "utf8"));
    lines.push(...text.split("\n"));
  }
  return lines;
}

function parseRecord(line: string): LogRecord | null {
  if (!line.startsWith("{")) return null;
  try {
    const value = JSON.parse(line) as Partial<LogRecord>;
    return typeof value.time === "string" && typeof value.run === "string" && typeof value.action === "string"
      ? ({ ...value, chain: value.chain ?? null } as LogRecord)
      : null;
  } catch {
    return null;
  }
}

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { open, readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { StringDecoder } from "node:string_decoder";
import type { Clock } from "@lockstep/platform";

const TAIL_BYTES_MAX = 256 * 1024;
const CHUNK_BYTES = 64 * 1024;
const POLL_MS = 250;

/** The last whole lines of a file, oldest first; none when it cannot be read. Looks at its end only. */
export function readLastLines(path: string, countMax: number): string[] {
  try {
    const file = openSync(path, "r");
    try {
      const { size } = fstatSync(file);
      const start = Math.max(0, size - TAIL_BYTES_MAX);
      const bytes = Buffer.alloc(size - start);
      const read = readSync(file, bytes, 0, bytes.length, start);
      const lines = bytes.toString("utf8", 0, read).split("\n");
      return lines.slice(start > 0 ? 1 : 0, -1).slice(-countMax);
    } finally {
      closeSync(file);
    }
  } catch {
    return [];
  }
}

export interface FollowOptions {
  /** Begin with at most so many lines that are there already, from backups too. */
  readonly last: number;
  /** Go on with what is written from now on, until the signal is aborted. */
  readonly follow: boolean;
  readonly signal: AbortSignal;
  readonly clock: Pick<Clock, "sleep">;
}

/**
 * Reads a rotating log line by line, and follows it through its rotations: the open file is read to its end after it was
 * renamed, then the one that came after it, and so on to the current one. Only where so many rotations happened between
 * two looks that a file was deleted unread are lines missing, and then a line says so.
 *
 * Ends at once where there is no log and `follow` is not asked for; else waits for one.
 */
export async function* readLog(path: string, options: FollowOptions): AsyncGenerator<string> {
  let current = await openAt(path, null);
  try {
    const newest = await lastOf(current?.read() ?? [], options.last);
    yield* await olderLines(path, current?.identity ?? null, options.last - newest.length);
    yield* newest;
    if (!options.follow && current !== null) yield* current.rest();
    while (options.follow && !options.signal.aborted) {
      if (current !== null) {
        yield* current.read();
        const next = await successorOf(path, current);
        if (next !== null) {
          // It was renamed: whatever came in before that is there now.
          yield* current.read();
          if (!(await next.file.goOnAfter(current))) yield* current.rest();
          await current.close();
          current = next.file;
          if (next.missed)
            yield "(lines may be missing here: the log was rotated on before all of it was read)";
          continue;
        }
      } else current = await openAt(path, null);
      await options.clock.sleep(POLL_MS, options.signal);
    }
  } finally {
    await current?.close();
  }
}

/** The last lines of the backups, where the log itself has fewer than wanted. */
async function olderLines(path: string, newest: string | null, countMax: number): Promise<string[]> {
  const lines: string[] = [];
  const files = await listFiles(path);
  // The log may have become a backup while we looked.
  const own = files.findIndex(({ identity }) => identity !== null && identity === newest);
  for (const { name, identity } of files.slice(Math.max(own, 0) + 1)) {
    if (lines.length >= countMax) break;
    const file = identity === null ? null : await openAt(name, identity);
    if (file === null) continue;
    try {
      lines.unshift(...(await lastOf(file.read(), countMax - lines.length)));
    } finally {
      await file.close();
    }
  }
  return lines;
}

/** The last of many lines, without holding all of them. */
async function lastOf(lines: AsyncIterable<string> | Iterable<string>, countMax: number): Promise<string[]> {
  const kept: string[] = [];
  for await (const line of lines) {
    if (countMax > 0) kept.push(line);
    if (kept.length > 2 * countMax) kept.splice(0, kept.length - countMax);
  }
  return kept.slice(Math.max(0, kept.length - countMax));
}

interface NamedFile {
  readonly name: string;
  readonly identity: string | null;
}

/** The log and its backups, newest first. */
async function listFiles(path: string): Promise<NamedFile[]> {
  const base = `${basename(path)}.`;
  const names = await readdir(dirname(path)).catch(() => []);
  const numbers = names
    .filter((name) => name.startsWith(base) && /^[1-9]\d*$/.test(name.slice(base.length)))
    .map((name) => Number(name.slice(base.length)))
    .sort((a, b) => a - b);
  const paths = [path, ...numbers.map((number) => join(dirname(path), `${base}${number}`))];
  const files = await Promise.all(paths.map(async (name) => ({ name, identity: await identify(name) })));
  // A crash during a rotation may have left one file under two names.
  return files.filter(
    ({ identity }, index) => files.findIndex((other) => other.identity === identity) === index,
  );
}

/** The file after this one, where this one is no longer the log; null where it still is, or none has come yet. */
async function successorOf(path: string, file: OpenLog): Promise<{ file: OpenLog; missed: boolean } | null> {
  if ((await identify(path)) === file.identity) return null;
  const files = (await listFiles(path)).filter(({ identity }) => identity !== null);
  const own = files.findIndex(({ identity }) => identity === file.identity);
  if (own < 0) {
    const copy = await findCopy(files, file);
    if (copy !== null) return { file: copy, missed: false };
  }
  // It may have no name any more; then the oldest one left is the nearest to it.
  const next = files[own < 0 ? files.length - 1 : own - 1];
  if (next === undefined) return null;
  // Names move on while we look: what was opened must be what was meant.
  const opened = await openAt(next.name, next.identity);
  return opened === null ? null : { file: opened, missed: own < 0 && files.length > 1 };
}

/** The file that goes on where this one stopped: another machine has taken the log over, and it writes in a copy. */
async function findCopy(files: readonly NamedFile[], file: OpenLog): Promise<OpenLog | null> {
  for (const { name, identity } of files) {
    const opened = await openAt(name, identity);
    if (opened === null) continue;
    if (await opened.goOnAfter(file)) return opened;
    await opened.close();
  }
  return null;
}

async function identify(path: string): Promise<string | null> {
  try {
    const { dev, ino } = await stat(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return null;
  }
}

/** Opens a file for reading; null when it is not there, or is not the one that was meant. */
async function openAt(path: string, identity: string | null): Promise<OpenLog | null> {
  try {
    const handle = await open(path, "r");
    const { dev, ino } = await handle.stat({ bigint: true });
    const found = `${dev}:${ino}`;
    if (identity === null || identity === found) return new OpenLog(handle, found);
    await handle.close();
    return null;
  } catch {
    return null;
  }
}

type Handle = Awaited<ReturnType<typeof open>>;

class OpenLog {
  readonly identity: string;
  readonly #handle: Handle;
  readonly #chunk = Buffer.alloc(CHUNK_BYTES);
  #decoder = new StringDecoder("utf8");
  #offset = 0;
  #begun = "";

  constructor(handle: Handle, identity: string) {
    this.#handle = handle;
    this.identity = identity;
  }

  /** Whole lines up to the present end. */
  async *read(): AsyncGenerator<string> {
    for (;;) {
      const { bytesRead } = await this.#handle.read(this.#chunk, 0, CHUNK_BYTES, this.#offset);
      if (bytesRead === 0) break;
      this.#offset += bytesRead;
      const lines = (this.#begun + this.#decoder.write(this.#chunk.subarray(0, bytesRead))).split("\n");
      this.#begun = lines.pop() ?? "";
      yield* lines;
    }
    // Somebody emptied the file in place.
    if ((await this.#handle.stat()).size < this.#offset) {
      this.#offset = 0;
      this.#begun = "";
      this.#decoder = new StringDecoder("utf8");
    }
  }

  /** Goes on where `other` stands, if what is before that is the same in both. Returns whether it is. */
  async goOnAfter(other: OpenLog): Promise<boolean> {
    const count = Math.min(other.#offset, CHUNK_BYTES);
    if (count === 0) return false;
    const [own, its] = await Promise.all([this, other].map((log) => log.#before(other.#offset, count)));
    if (own === undefined || its === undefined || own.length !== count || !own.equals(its)) return false;
    this.#offset = other.#offset;
    this.#begun = other.#begun;
    this.#decoder = other.#decoder;
    return true;
  }

  async #before(offset: number, count: number): Promise<Buffer> {
    const bytes = Buffer.alloc(count);
    const { bytesRead } = await this.#handle.read(bytes, 0, count, offset - count);
    return bytes.subarray(0, bytesRead);
  }

  /** A line without an end, which will never get one. */
  *rest(): Generator<string> {
    if (this.#begun !== "") yield this.#begun;
    this.#begun = "";
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

import { writeSync } from "node:fs";
import { copyFile, type FileHandle, link, open, readdir, rename, stat, unlink } from "node:fs/promises";
import { systemErrorCode } from "@lockstep/platform";

/** What the log needs of a file system; a parameter, so that a test can crash it, fill it and break it. */
export interface LogFiles {
  /** Opens for appending, making the file where it is not there. */
  open(path: string): Promise<LogHandle>;
  /** What tells this file from every other one that exists at the same time; null: there is none. */
  identify(path: string): Promise<string | null>;
  link(from: string, to: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  /** Names in a directory. */
  list(directory: string): Promise<readonly string[]>;
  /** Makes an empty file; one that is there stays as it is. */
  create(path: string): Promise<void>;
  /** What is at `to` is overwritten. On the disk when it resolves. */
  copy(from: string, to: string): Promise<void>;
}

export interface LogHandle {
  readonly identity: string;
  readonly sizeBytes: number;
  /** Whether the last byte is no line end: a crash tore the last line. */
  readonly torn: boolean;
  /** Returns how many bytes were written; may be fewer than given. */
  write(bytes: Uint8Array): Promise<number>;
  /** Writes at once, for the end of the process. Throws what the system throws. */
  writeNow(bytes: Uint8Array): void;
  /** How many names the file has; 0: it was deleted, or another took its place. */
  links(): Promise<number>;
  /** What is at `path` is overwritten. On the disk when it resolves. */
  copyTo(path: string): Promise<void>;
  close(): Promise<void>;
}

const LINE_END = 0x0a;

/** For its owner and group: a log tells more than everybody needs to know. */
const MODE = 0o640;

export const realLogFiles: LogFiles = {
  open: async (path) => {
    const handle = await open(path, "a+", MODE);
    try {
      const { size, dev, ino } = await handle.stat({ bigint: true });
      const last = new Uint8Array(1);
      if (size > 0n) await handle.read(last, 0, 1, Number(size) - 1);
      return {
        identity: `${dev}:${ino}`,
        sizeBytes: Number(size),
        torn: size > 0n && last[0] !== LINE_END,
        write: async (bytes) => (await handle.write(bytes)).bytesWritten,
        writeNow: (bytes) => {
          for (let done = 0; done < bytes.length; ) done += writeSync(handle.fd, bytes, done);
        },
        links: async () => (await handle.stat()).nlink,
        copyTo: (path) => copyOpen(handle, path),
        close: () => handle.close(),
      };
    } catch (error) {
      await handle.close();
      throw error;
    }
  },
  identify: async (path) => {
    try {
      const { dev, ino } = await stat(path, { bigint: true });
      return `${dev}:${ino}`;
    } catch (error) {
      if (systemErrorCode(error) === "ENOENT") return null;
      throw error;
    }
  },
  link,
  rename,
  unlink,
  list: (directory) => readdir(directory),
  create: async (path) => {
    await (await open(path, "a", MODE)).close();
  },
  copy: async (from, to) => {
    await copyFile(from, to);
    const copied = await open(to, "r+");
    await copied.sync().finally(() => copied.close());
  },
};

const COPY_BYTES = 256 * 1024;

async function copyOpen(from: FileHandle, path: string): Promise<void> {
  const to = await open(path, "w", MODE);
  try {
    const chunk = Buffer.alloc(COPY_BYTES);
    for (let at = 0; ; ) {
      const { bytesRead } = await from.read(chunk, 0, chunk.length, at);
      if (bytesRead === 0) break;
      await to.writeFile(chunk.subarray(0, bytesRead));
      at += bytesRead;
    }
    await to.sync();
  } finally {
    await to.close();
  }
}

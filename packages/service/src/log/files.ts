import { link, open, rename, stat, unlink } from "node:fs/promises";

/** What the log needs of a file system; a parameter, so that a test can crash it, fill it and break it. */
export interface LogFiles {
  /** Opens for appending, making the file where it is not there. */
  open(path: string): Promise<LogHandle>;
  /** What tells this file from every other one that exists at the same time; null: there is none. */
  identify(path: string): Promise<string | null>;
  link(from: string, to: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
}

export interface LogHandle {
  readonly identity: string;
  readonly sizeBytes: number;
  /** Whether the last byte is no line end: a crash tore the last line. */
  readonly torn: boolean;
  /** Returns how many bytes were written; may be fewer than given. */
  write(bytes: Uint8Array): Promise<number>;
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
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
      throw error;
    }
  },
  link,
  rename,
  unlink,
};

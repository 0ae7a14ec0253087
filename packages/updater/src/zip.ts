import type { Readable } from "node:stream";
import { LockstepError } from "@lockstep/protocol/wire";
import { type Entry, fromBuffer, open, type ZipFile } from "yauzl";

/** Takes an entry: its path, its size in bytes, and a function that opens it. Never more than `size` bytes come. */
export type ZipVisitor = (path: string, size: number, open: () => Promise<Readable>) => Promise<void>;

/** Larger entries are no plug-ins. */
const ENTRY_BYTES_MAX = 64 * 1024 * 1024;
/** Nor are so many of them. */
const ENTRIES_BYTES_MAX = 256 * 1024 * 1024;

/**
 * Reads an archive entry by entry, in its order. Names are those that stand in it: whoever writes them to a disk must
 * have checked them. Throws UPDATE_ARCHIVE_INVALID for what is no archive, and for more bytes than are allowed: of one
 * entry, or of all together.
 */
export async function readZip(file: string | Buffer, visit: ZipVisitor): Promise<void> {
  const zip = await openZip(file);
  let bytes = 0;
  try {
    await new Promise<void>((resolve, reject) => {
      zip.on("error", reject);
      zip.on("end", resolve);
      zip.on("entry", (entry: Entry) => {
        bytes += entry.uncompressedSize;
        if (bytes > ENTRIES_BYTES_MAX) reject(new Error(`it holds more than ${ENTRIES_BYTES_MAX} bytes`));
        else visitEntry(zip, entry, visit).then(() => zip.readEntry(), reject);
      });
      zip.readEntry();
    });
  } catch (error) {
    throw error instanceof LockstepError ? error : invalid(error);
  } finally {
    zip.close();
  }
}

function openZip(file: string | Buffer): Promise<ZipFile> {
  return new Promise((resolve, reject) => {
    const options = {
      lazyEntries: true,
      autoClose: false,
      strictFileNames: true,
      validateEntrySizes: true,
    } as const;
    const opened = (error: Error | null, zip?: ZipFile) =>
      zip === undefined ? reject(invalid(error)) : resolve(zip);
    if (typeof file === "string") open(file, options, opened);
    else fromBuffer(file, options, opened);
  });
}

async function visitEntry(zip: ZipFile, entry: Entry, visit: ZipVisitor): Promise<void> {
  const path = String(entry.fileName);
  if (path.endsWith("/")) return;
  if (entry.uncompressedSize > ENTRY_BYTES_MAX) throw invalid(new Error(`${path} is too large`));
  await visit(path, entry.uncompressedSize, () => openEntry(zip, entry));
}

function openEntry(zip: ZipFile, entry: Entry): Promise<Readable> {
  return new Promise((resolve, reject) => {
    zip.openReadStream(entry, (error, stream) => {
      if (error !== null || stream === undefined) reject(error ?? new Error("no data"));
      else resolve(stream);
    });
  });
}

function invalid(cause: unknown): LockstepError {
  const found = cause instanceof Error ? cause.message : "no archive";
  return new LockstepError("UPDATE_ARCHIVE_INVALID", `Update.zip cannot be read: ${found}`, {
    expected: "a zip archive as the hub builds it",
    found,
    hint: "Nothing was changed. Let `lockstep setup` rebuild Update.zip.",
    cause,
  });
}

import { LockstepError } from "@lockstep/protocol/wire";
import { type Entry, fromBuffer, open, type ZipFile } from "yauzl";

/** Takes an entry: its path, its size in bytes, and a function that reads it. */
export type ZipVisitor = (path: string, size: number, read: () => Promise<Buffer>) => Promise<void>;

/** Larger entries are no plug-ins. */
const ENTRY_BYTES_MAX = 64 * 1024 * 1024;

/**
 * Reads an archive entry by entry, in its order. Names are those that stand in it: whoever writes them to a disk must
 * have checked them. Throws UPDATE_ARCHIVE_INVALID for what is no archive, holds links or entries larger than allowed.
 */
export async function readZip(file: string | Buffer, visit: ZipVisitor): Promise<void> {
  const zip = await openZip(file);
  try {
    await new Promise<void>((resolve, reject) => {
      zip.on("error", reject);
      zip.on("end", resolve);
      zip.on("entry", (entry: Entry) => {
        visitEntry(zip, entry, visit).then(() => zip.readEntry(), reject);
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
  await visit(path, entry.uncompressedSize, () => readEntry(zip, entry));
}

function readEntry(zip: ZipFile, entry: Entry): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    zip.openReadStream(entry, (error, stream) => {
      if (error !== null || stream === undefined) return reject(error ?? new Error("no data"));
      const chunks: Buffer[] = [];
      stream.on("error", reject);
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("end", () => resolve(Buffer.concat(chunks)));
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

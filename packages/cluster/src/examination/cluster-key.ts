import { createHmac, randomBytes } from "node:crypto";
import { link, lstat, open, unlink } from "node:fs/promises";
import { LockstepError } from "@lockstep/protocol/wire";

/**
 * Makes a new key in a file that is not there yet, mode 0600. Returns the key, or null when the file is there already: a
 * key that may be in use is never replaced. Throws FILE_ACCESS_FAILED.
 */
export async function makeClusterKey(file: string): Promise<Buffer | null> {
  const key = randomBytes(32);
  const made = `${file}.${randomBytes(8).toString("hex")}`;
  try {
    try {
      // Private from its first moment, whole when it gets its name, and never over another one.
      await using handle = await open(made, "wx", 0o600);
      await handle.writeFile(`${key.toString("hex")}\n`);
      await handle.sync();
      await link(made, file);
    } finally {
      await unlink(made).catch(() => {});
    }
    return key;
  } catch (cause) {
    // Also where nothing can be made beside it.
    const isThere = await lstat(file).then(Boolean, () => false);
    if (isThere) return null;
    throw new LockstepError("FILE_ACCESS_FAILED", `the cluster's key ${file} cannot be written`, {
      found: cause instanceof Error ? cause.message : String(cause),
      hint: "Its directory must be there and writable for this account.",
      cause,
    });
  }
}

/** Tells whether two keys are equal without telling the key: it may stand where everybody reads it. */
export const keyDigest = (key: Buffer): string =>
  createHmac("sha256", key).update("lockstep cluster key").digest("hex");

import { APPLY_LAYOUT, revisionFileName } from "@lockstep/core";
import { installationError } from "./failure.ts";
import { Places } from "./places.ts";
import type { ApplyContext, RevisionFile } from "./types.ts";

/** Everybody may read which revision is installed, nobody is invited to change it (S20). */
export const REVISION_FILE_MODE = 0o444;
const LENGTH_MAX = 256;
const PATTERN = /^(0|[1-9][0-9]{0,15})\n(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)\n$/;

/** Two lines: the software revision, and the start of the last modification in UTC. */
export function formatRevisionFile(file: RevisionFile): string {
  return `${file.revision}\n${new Date(file.startedAt).toISOString()}\n`;
}

export function parseRevisionFile(text: string): RevisionFile | null {
  const match = PATTERN.exec(text);
  const revision = Number(match?.[1]);
  const startedAt = Date.parse(match?.[2] ?? "");
  return Number.isSafeInteger(revision) && Number.isSafeInteger(startedAt) ? { revision, startedAt } : null;
}

/**
 * Reads the revision file of an installation. A missing, damaged or unreadable one gives null, which counts as out of
 * date (behaviour 10); a link in its place is not followed.
 */
export function readRevisionFile(ctx: Pick<ApplyContext, "disk" | "root">): RevisionFile | null {
  const path = `${ctx.root}/${revisionFileName(ctx.disk.windows)}`;
  try {
    const stat = ctx.disk.lstat(path);
    if (stat?.kind !== "file" || stat.size > LENGTH_MAX) return null;
    return parseRevisionFile(new TextDecoder().decode(ctx.disk.readFile(path)));
  } catch {
    return null;
  }
}

/**
 * Writes the revision file alone, durably and in one step: for a software revision that changed no file of this
 * installation. Throws INSTALLATION_*; the former file then stands.
 */
export async function writeRevisionFile(ctx: ApplyContext, file: RevisionFile): Promise<void> {
  const { disk } = ctx;
  const places = new Places(disk, ctx.root);
  const target = places.at(revisionFileName(disk.windows));
  try {
    if (disk.lstat(places.at(APPLY_LAYOUT.private)) === null)
      disk.makeDirectory(places.at(APPLY_LAYOUT.private), 0o700);
    const temporary = places.at(`${APPLY_LAYOUT.private}/revision.new`);
    if (disk.lstat(temporary) !== null) disk.unlink(temporary);
    disk.writeFile(temporary, new TextEncoder().encode(formatRevisionFile(file)), REVISION_FILE_MODE);
    await disk.syncFiles([temporary]);
    disk.rename(temporary, target);
    await disk.syncDirectories([ctx.root, places.at(APPLY_LAYOUT.private)]);
  } catch (error) {
    throw installationError(error, "write", target);
  }
}

import { randomBytes } from "node:crypto";
import { chmod, chown, open, readFile, realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import type { UndoCommand } from "./resource.ts";

/** A block between two marks in a file of hosts (hosts(5)); everything outside it is somebody else's and stays as it is. */
export interface HostsBlock {
  readonly begin: string;
  readonly end: string;
}

export const hostsBlock = (virtualServer: string): HostsBlock => ({
  begin: `# begin of Lockstep's virtual server ${virtualServer}; do not edit up to its end`,
  end: `# end of Lockstep's virtual server ${virtualServer}`,
});

/** The text with this block in the place of the old one, or at the end; `lines` empty: without it. */
export function replaceHostsBlock(text: string, block: HostsBlock, lines: readonly string[]): string {
  const all = text.split("\n");
  const begin = all.indexOf(block.begin);
  const end = begin < 0 ? -1 : all.indexOf(block.end, begin);
  const own = lines.length === 0 ? [] : [block.begin, ...lines, block.end];
  if (begin >= 0) {
    // Without its end it is the one line: what follows may be anybody's.
    const after = all.slice(end < 0 ? begin + 1 : end + 1);
    return [...all.slice(0, begin), ...own, ...after].join("\n");
  }
  if (own.length === 0) return text;
  return `${text}${text === "" || text.endsWith("\n") ? "" : "\n"}${own.join("\n")}\n`;
}

/** The command that does what replaceHostsBlock does without lines. */
export function hostsUndo({ begin, end }: HostsBlock, file: string): UndoCommand {
  const quote = (text: string) => text.replace(/[/\\.*[\]^$]/g, "\\$&");
  const script = [
    `/^${quote(begin)}$/{`,
    ":next",
    `/\\n${quote(end)}$/d`,
    "$!{",
    "N",
    "bnext",
    "}",
    // Its end is missing.
    "s/^[^\\n]*\\n//",
    "}",
  ];
  return ["/bin/sed", "--follow-symlinks", "-i", script.join("\n"), file];
}

/**
 * Writes it so that readers see the old file or the new one. Owner and mode stay. Returns false where that cannot be: a
 * file that is mounted by itself, as in containers, can only be written over.
 */
export async function writeHosts(file: string, text: string): Promise<boolean> {
  const path = await realpath(file);
  const { mode, uid, gid } = await stat(path);
  const next = `${path}.${randomBytes(6).toString("hex")}.lockstep`;
  try {
    await writeFile(next, text, { mode: 0o600, flag: "wx", flush: true });
    await chown(next, uid, gid);
    await chmod(next, mode & 0o7777);
    await rename(next, path);
    return true;
  } catch (error) {
    await rm(next, { force: true });
    if (!(error instanceof Error && "code" in error && error.code === "EBUSY")) throw error;
    const handle = await open(path, "r+");
    await handle.writeFile(text);
    await handle.truncate(Buffer.byteLength(text));
    await handle.sync();
    await handle.close();
    return false;
  }
}

export const readHosts = (file: string): Promise<string> => readFile(file, "utf8");

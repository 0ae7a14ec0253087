import { readFileSync } from "node:fs";
import { dirname } from "node:path";

/** One line of the kernel's table of mounts. Reading it asks no file system anything, so it cannot hang. */
export interface MountEntry {
  readonly id: number;
  /** `major:minor` of the file system. */
  readonly device: string;
  /** Which directory of the file system is mounted. */
  readonly root: string;
  readonly directory: string;
  readonly type: string;
  /** As it was given: a device, `server:/path`, any word. */
  readonly source: string;
  /** Of this mount and of the file system together. */
  readonly options: ReadonlySet<string>;
}

/** Reads `/proc/PID/mountinfo`, in the order in which it stands there: of two at one directory the later is on top. */
export function parseMountTable(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split("\n")) {
    const [left, right] = line.split(" - ");
    const [id, , device, root, directory, options] = (left ?? "").split(" ");
    const [type, source, superOptions] = (right ?? "").split(" ");
    if (directory === undefined || root === undefined || device === undefined || type === undefined) continue;
    entries.push({
      id: Number(id),
      device,
      root: readName(root),
      directory: readName(directory),
      type,
      source: readName(source ?? ""),
      options: new Set([...(options ?? "").split(","), ...(superOptions ?? "").split(",")]),
    });
  }
  return entries;
}

/** Blanks and the like stand as three octal digits. They count bytes, the rest is UTF-8. */
function readName(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

export function readMountTable(process: number | "self" = "self"): MountEntry[] {
  return parseMountTable(readFileSync(`/proc/${process}/mountinfo`, "utf8"));
}

/** What one sees at the directory: the mount on top there; null: none begins there. */
export function mountAt(table: readonly MountEntry[], directory: string): MountEntry | null {
  return table.findLast((entry) => entry.directory === directory) ?? null;
}

/** What a path lies on, by names alone: no file system is asked. */
export function mountOf(table: readonly MountEntry[], path: string): MountEntry | null {
  for (let directory = path; ; directory = dirname(directory)) {
    const found = mountAt(table, directory);
    if (found !== null || directory === dirname(directory)) return found;
  }
}

const SERVED = /^(nfs4?|cifs|smb3|smbfs|9p|afs|ceph|glusterfs|lustre|beegfs|autofs|fuse|fuse\..+)$/;

/** Whether another machine or a program serves it: calls to it may never come back. */
export const isServed = ({ type }: MountEntry): boolean => SERVED.test(type);

/** Mounts on directories below it; they keep it from being unmounted. */
export function mountsBelow(table: readonly MountEntry[], directory: string): MountEntry[] {
  const prefix = directory === "/" ? "/" : `${directory}/`;
  return table.filter((entry) => entry.directory !== directory && entry.directory.startsWith(prefix));
}

/** Which file system a path lies on and where in it, as a bind mount of it would show: by names alone. */
export function locate(
  table: readonly MountEntry[],
  path: string,
): { readonly device: string; readonly root: string } | null {
  for (let directory = path; ; directory = directory.slice(0, directory.lastIndexOf("/")) || "/") {
    const entry = mountAt(table, directory);
    if (entry !== null) {
      const rest = path.slice(directory === "/" ? 0 : directory.length).replace(/^\/$/, "");
      const root = `${entry.root === "/" ? "" : entry.root}${rest}`;
      return { device: entry.device, root: root === "" ? "/" : root };
    }
    if (directory === "/") return null;
  }
}

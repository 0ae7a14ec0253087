import { lstat, readFile } from "node:fs/promises";
import { join } from "node:path";
import { filesBelow } from "./product.ts";

export interface Comparison {
  readonly files: number;
  readonly bytes: number;
  /** What is wrong, one line each; empty when every byte is as it should be. */
  readonly faults: readonly string[];
}

/** What an installation holds besides the files of the product. */
const OURS =
  /^(?:\.lockstep\/|InstallState\.config$|\.softwarerevision\.viv$|softwarerevision\.viv$|update\.log(?:\.\d+)?$)/;

/**
 * Compares an installation with what it must hold, byte for byte and file for file: nothing missing, nothing different,
 * nothing more, and each file as executable as it was published. Asks the disk alone; Lockstep is not involved.
 */
export async function compareInstallation(
  directory: string,
  expected: ReadonlyMap<string, string>,
): Promise<Comparison> {
  const faults: string[] = [];
  let bytes = 0;
  const present = new Set((await filesBelow(directory)).filter((path) => !OURS.test(path)));
  for (const [path, original] of expected) {
    if (!present.delete(path)) {
      faults.push(`${path} is missing`);
      continue;
    }
    const [found, wanted] = await Promise.all([lstat(join(directory, path)), lstat(original)]);
    if (!found.isFile()) faults.push(`${path} is no plain file`);
    else if (!(await readFile(join(directory, path))).equals(await readFile(original)))
      faults.push(`${path} differs from the published file`);
    else if ((found.mode & 0o777) !== (wanted.mode & 0o777))
      faults.push(`${path} has mode ${octal(found.mode)}, published is ${octal(wanted.mode)}`);
    bytes += found.size;
  }
  for (const path of present) faults.push(`${path} does not belong there`);
  return { files: expected.size, bytes, faults };
}

/** How two releases differ on one machine, by comparing the published files. */
export interface Difference {
  readonly added: number;
  readonly changed: number;
  readonly removed: number;
  /** Files that are the same in both. */
  readonly equal: number;
  /** Size of what is added or changed, in bytes. */
  readonly bytes: number;
}

/** Compares what a machine must hold before with what it must hold after. */
export async function compareReleases(
  before: ReadonlyMap<string, string>,
  after: ReadonlyMap<string, string>,
): Promise<Difference> {
  const difference = { added: 0, changed: 0, removed: 0, equal: 0, bytes: 0 };
  for (const [path, file] of after) {
    const former = before.get(path);
    const bytes = await readFile(file);
    if (former !== undefined && (await readFile(former)).equals(bytes)) {
      difference.equal++;
      continue;
    }
    difference[former === undefined ? "added" : "changed"]++;
    difference.bytes += bytes.length;
  }
  for (const path of before.keys()) if (!after.has(path)) difference.removed++;
  return difference;
}

function octal(mode: number): string {
  return (mode & 0o777).toString(8);
}

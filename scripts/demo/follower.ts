import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

/** An installation as one sees it from outside: by its revision file and by what is being staged in it. */
interface Observation {
  /** Null before the first installation is complete. */
  readonly revision: number | null;
  /** Files that wait, verified, for the switch. */
  readonly staged: number;
}

const REVISION_FILES = [".softwarerevision.viv", "softwarerevision.viv"];

/** Looks at an installation without touching it. */
export async function observe(directory: string): Promise<Observation> {
  return { revision: await readRevision(directory), staged: await countStaged(directory) };
}

async function readRevision(directory: string): Promise<number | null> {
  for (const name of REVISION_FILES) {
    const text = await readFile(join(directory, name), "utf8").catch(() => "");
    const [line = ""] = text.split("\n");
    if (/^\d+$/.test(line.trim())) return Number(line);
  }
  return null;
}

async function countStaged(directory: string): Promise<number> {
  const staging = join(directory, ".lockstep", "staging");
  let staged = 0;
  for (const id of await readdir(staging).catch(() => []))
    staged += (await readdir(join(staging, id, "new")).catch(() => [])).length;
  return staged;
}

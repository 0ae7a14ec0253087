/**
 * Whether the directory that is being loaded is likely the wrong one (domain 1.8).
 *
 * Paths are kept relative to the base directory. Loading the folder above the right one, or one inside it, puts the
 * whole product a second time below a new folder on every machine. That cannot be known for certain, but it looks
 * unmistakable: the known files turn up under the same names, all moved by the same folder.
 */
export interface BaseSuspicion {
  readonly kind: "too-high" | "too-deep";
  /** The folder by which everything is moved, without a slash at its end. */
  readonly folder: string;
  readonly files: number;
}

/** This part of the unknown files must be moved by the same folder: a few `README` and `index.js` always match. */
const PART_MIN = 0.5;

/**
 * Compares the paths of a load that the repository does not know with those of the module that it knows and the load
 * does not bring. Returns the folder that stands between them, or null.
 */
export function suspectBase(unknown: readonly string[], known: readonly string[]): BaseSuspicion | null {
  const high = commonShift(unknown, new Set(known));
  if (high !== null) return { kind: "too-high", ...high };
  const deep = commonShift(known, new Set(unknown));
  // Here the known ones may be many more than what is loaded.
  return deep === null ? null : { kind: "too-deep", ...deep };
}

/** The folder whose removal turns most of `long` into members of `short`. */
function commonShift(
  long: readonly string[],
  short: ReadonlySet<string>,
): { folder: string; files: number } | null {
  const found = new Map<string, number>();
  for (const path of long) {
    for (let slash = path.indexOf("/"); slash !== -1; slash = path.indexOf("/", slash + 1)) {
      if (!short.has(path.slice(slash + 1))) continue;
      const folder = path.slice(0, slash);
      found.set(folder, (found.get(folder) ?? 0) + 1);
    }
  }
  let best: { folder: string; files: number } | null = null;
  for (const [folder, files] of found) if (best === null || files > best.files) best = { folder, files };
  const enough = Math.max(1, Math.min(long.length, short.size) * PART_MIN);
  return best !== null && best.files >= enough ? best : null;
}

/** The only folder at the top, when everything lies in it; else null. */
export function singleTopFolder(paths: readonly string[]): string | null {
  const [first] = paths;
  const slash = first?.indexOf("/") ?? -1;
  if (first === undefined || slash === -1) return null;
  const folder = first.slice(0, slash + 1);
  return paths.every((path) => path.startsWith(folder)) ? folder.slice(0, -1) : null;
}

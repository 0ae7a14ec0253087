import type { FileEntry, Sha256 } from "@lockstep/core";

/**
 * How the contents of a new manifest are made of those of an old one: which results come out of which bases.
 *
 * Both sides know both manifests, so a content needs no name: it is a number in an order that follows from the manifests.
 * Small files are made together, in the order of their paths, of everything that changed around them: what moved from one
 * file to another, or lies in a file with a new name, is found, and a changed line costs a line, not a request and a header.
 * Large ones and archives are made one by one, each of its predecessor.
 */
export interface StepContents {
  /** Distinct contents of the old manifest, in the order of their first path. */
  readonly bases: readonly Content[];
  /** Distinct contents of the new manifest that the old one does not have, in the order of their first path. */
  readonly results: readonly Content[];
}

export interface Content {
  readonly sha256: Sha256;
  readonly size: number;
  /** The first path that has it. */
  readonly path: string;
}

/** One delta of a step: its base are the contents `bases` one after the other, its result those of `results`. */
export interface StepUnit {
  readonly bases: readonly number[];
  readonly results: readonly number[];
  /** Worth looking into: the names say that both are archives. */
  readonly isArchive: boolean;
}

/** Files above this are made by themselves. */
const SMALL_BYTES_MAX = 1024 * 1024;
/** Results of one unit together. */
const UNIT_BYTES_MAX = 24 * 1024 * 1024;

/** Formats that are zip archives or gzip files inside, by the names that their makers give them. */
const ARCHIVE = new RegExp(
  `\\.(?:${[
    "zip|jar|war|ear|rar|sar|nbm|hpi|aar|apk|aab|ipa|appx|msix|xap",
    "nupkg|snupkg|vsix|xpi|whl|egg|epub|od[tspg]",
    "doc[xm]|dot[xm]|xls[xm]|xlt[xm]|ppt[xm]|pot[xm]|vsd[xm]|pbix",
    "gz|tgz|svgz|crate",
  ].join("|")})$`,
  "i",
);

/** What the two manifests have; the same on both sides. */
export function stepContents(from: readonly FileEntry[], to: readonly FileEntry[]): StepContents {
  const bases = distinct(from);
  const known = new Set(bases.map(({ sha256 }) => sha256));
  return { bases, results: distinct(to).filter(({ sha256, size }) => size > 0 && !known.has(sha256)) };
}

function distinct(entries: readonly FileEntry[]): Content[] {
  const seen = new Set<Sha256>();
  return entries.flatMap(({ sha256, size, path }) => {
    if (seen.has(sha256)) return [];
    seen.add(sha256);
    return [{ sha256, size, path }];
  });
}

/** Finds for each result what it is to be made of. What has no unit is fetched whole. */
export function planStep(
  from: readonly FileEntry[],
  to: readonly FileEntry[],
  contents: StepContents,
): StepUnit[] {
  const predecessors = new Predecessors(from, to, contents);
  const units: StepUnit[] = [];
  let group = new Group();
  for (const [result, content] of contents.results.entries()) {
    const base = predecessors.find(content);
    const isArchive = ARCHIVE.test(content.path);
    if (content.size > SMALL_BYTES_MAX || isArchive) {
      if (base !== null) units.push({ bases: [base], results: [result], isArchive });
      continue;
    }
    if (group.bytes + content.size > UNIT_BYTES_MAX) {
      units.push(group.unit());
      group = new Group();
    }
    group.add(result, content.size, base);
  }
  if (!group.isEmpty) units.push(group.unit());
  return units;
}

class Group {
  readonly #bases = new Set<number>();
  readonly #results: number[] = [];
  bytes = 0;

  get isEmpty(): boolean {
    return this.#results.length === 0;
  }

  add(result: number, size: number, base: number | null): void {
    this.#results.push(result);
    this.bytes += size;
    if (base !== null) this.#bases.add(base);
  }

  unit(): StepUnit {
    return { bases: [...this.#bases], results: this.#results, isArchive: false };
  }
}

/** What a content was before: what stood at its path, or what left under a name that is alike. */
class Predecessors {
  readonly #numbers: ReadonlyMap<Sha256, number>;
  readonly #atPath: ReadonlyMap<string, FileEntry>;
  readonly #gone = new Map<string, FileEntry>();

  constructor(from: readonly FileEntry[], to: readonly FileEntry[], { bases }: StepContents) {
    this.#numbers = new Map(bases.map(({ sha256 }, number) => [sha256, number]));
    this.#atPath = new Map(from.map((entry) => [entry.path, entry]));
    const stays = new Set(to.map(({ path }) => path));
    for (const entry of from) if (!stays.has(entry.path)) this.#gone.set(likeness(entry.path), entry);
  }

  find({ path }: Content): number | null {
    const entry = this.#atPath.get(path) ?? this.#gone.get(likeness(path));
    return entry === undefined ? null : (this.#numbers.get(entry.sha256) ?? null);
  }
}

/** The last name of a path without what changes with a version: `lib/core-1.4.2.jar` and `lib2/core-1.5.jar` are alike. */
function likeness(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1).replace(/[.-]?[0-9a-f]*\d[0-9a-f]*/gi, "#");
}

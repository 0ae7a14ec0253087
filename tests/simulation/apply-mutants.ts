import type { Disk } from "@lockstep/platform";
import { REVISION, ROOT, STATE } from "./apply-scenario.ts";

/**
 * An updater with one thing left out or done too early. The simulation must tell each from the real one; else either the
 * thing is needless, or the simulation is too weak to prove anything.
 *
 * They sit between the updater and its disk, so that what ships stays as it is.
 */
export interface Mutant {
  readonly name: string;
  readonly wrap: (disk: Disk) => Disk;
}

/** What kind of path it is, as the words of docs/internals/apply.md have it. */
export function roleOf(path: string): string {
  if (!path.startsWith(ROOT)) return "parent directory";
  const relative = path === ROOT ? "" : path.slice(ROOT.length + 1);
  if (relative === "") return "installation directory";
  if (relative === STATE || relative === REVISION) return relative;
  if (relative !== ".lockstep" && !relative.startsWith(".lockstep/")) return "product";
  return relative
    .replace(/^\.lockstep\/staging\/[^/]+\.former/, "set-aside previous")
    .replace(/^\.lockstep\/staging\/[^/]+/, "staging")
    .replace(/\/(new|old)\/\d+$/, "/$1/<n>");
}

const METHODS_THAT_CHANGE = [
  "makeDirectory",
  "removeDirectory",
  "writeFile",
  "copyFile",
  "link",
  "symlink",
  "rename",
  "unlink",
  "changeMode",
] as const;

/** A disk that passes everything on, with some methods exchanged. */
export function passOn(disk: Disk, changes: Partial<Disk>): Disk {
  const bound: Record<string, unknown> = { windows: disk.windows };
  for (const name of [
    ...METHODS_THAT_CHANGE,
    "lstat",
    "readDirectory",
    "readFile",
    "readLink",
    "demandWritable",
    "demandReplaceable",
    "isInUse",
    "freeBytes",
    "syncFiles",
    "syncDirectories",
  ] as const)
    bound[name] = (disk[name] as (...parameters: unknown[]) => unknown).bind(disk);
  return { ...(bound as unknown as Disk), ...changes };
}

/** One path of one sync: what it is, and what the sync is for. */
export interface SyncSite {
  readonly role: string;
  readonly purpose: string;
}

/** Tells `onSync` of each path that is synced; leaves out those for which it answers false. */
export function watchSyncs(disk: Disk, onSync: (site: SyncSite) => boolean): Disk {
  let turned = "again";
  let dropped = false;
  const filter = (paths: readonly string[]) => {
    const roles = paths.map(roleOf);
    const purpose = purposeOf(new Set(roles), turned, dropped);
    return paths.filter((_, at) => onSync({ role: roles[at] ?? "", purpose }));
  };
  return passOn(disk, {
    rename: (from, to) => {
      disk.rename(from, to);
      turned = /head\.(\w+)\.json$/.exec(from)?.[1] ?? turned;
    },
    unlink: (path) => {
      disk.unlink(path);
      dropped ||= roleOf(path) === ".lockstep/commit.json";
    },
    syncFiles: (paths) => disk.syncFiles(filter(paths)),
    syncDirectories: (paths) => disk.syncDirectories(filter(paths)),
  });
}

function purposeOf(roles: ReadonlySet<string>, turned: string, dropped: boolean): string {
  const only = (...expected: string[]) =>
    roles.size === expected.length && expected.every((role) => roles.has(role));
  if (only(".lockstep", "staging")) return `turn ${turned}`;
  if (only(".lockstep", ".lockstep/staging")) return "keep as previous";
  if (only(".lockstep")) return dropped ? "drop the head" : "clear leftovers";
  if (only("staging/index.new")) return "stat cache";
  if (only("parent directory")) return "lay out";
  if (roles.has("staging/new") && roles.has("staging/old")) return "lay out";
  if ([...roles].some((role) => role.startsWith("staging/head."))) return "lay out";
  if (roles.has("staging/new")) return "switch";
  if (roles.has("staging/old")) return "restore";
  if (roles.has("staging")) return "finish";
  return "make directories";
}

/** Every sync of a file or directory, one by one: whatever of them is left out must be told. */
export function leaveOut(site: string): Mutant {
  return {
    name: `without the sync "${site}"`,
    wrap: (disk) => watchSyncs(disk, (each) => siteName(each) !== site),
  };
}

export function siteName({ purpose, role }: SyncSite): string {
  return `${purpose}: ${role}`;
}

const COMMIT_HEAD = ".lockstep/commit.json";

/** An act that comes too late: it is held back until another one was done. */
function delay(name: string, held: (act: string) => boolean, until: (act: string) => boolean): Mutant {
  return {
    name,
    wrap: (disk) => {
      let waiting: (() => void) | null = null;
      const watch =
        (method: "rename" | "unlink") =>
        (...paths: [string, string]) => {
          const act = `${method} ${paths.map(roleOf).join(" to ")}`;
          const run = () => (disk[method] as (...each: string[]) => void).apply(disk, paths);
          if (held(act)) {
            waiting = run;
            return;
          }
          run();
          if (waiting === null || !until(act)) return;
          const late = waiting;
          waiting = null;
          late();
        };
      return passOn(disk, { rename: watch("rename"), unlink: watch("unlink") as Disk["unlink"] });
    },
  };
}

const renames = (from: string, to: string) => (act: string) => act === `rename ${from} to ${to}`;

/** The order of the acts, where it carries the promise, and the record itself. */
export const ORDER_MUTANTS: readonly Mutant[] = [
  {
    name: "without a commit record",
    wrap: (disk) =>
      passOn(disk, {
        rename: (from, to) => {
          if (!(roleOf(to) === COMMIT_HEAD && from.endsWith("head.forward.json"))) disk.rename(from, to);
        },
      }),
  },
  delay(
    "the first file is switched before the record is in force",
    renames("staging/head.forward.json", COMMIT_HEAD),
    (act) => act.endsWith(" to product") || act === `rename staging/state to ${STATE}`,
  ),
  delay(
    "the revision file is written before the record says that the update holds",
    renames("staging/head.finish.json", COMMIT_HEAD),
    renames("staging/revision", REVISION),
  ),
  delay(
    "the first file is restored before the record says so",
    renames("staging/head.back.json", COMMIT_HEAD),
    (act) => act === "rename staging/old/<n> to product" || act === `rename staging/state.former to ${STATE}`,
  ),
  delay(
    "the staging directory is cleared before the record is gone",
    (act) => act === `unlink ${COMMIT_HEAD}`,
    (act) => act.startsWith("unlink staging/"),
  ),
  delay(
    "the state file is switched after the record says that the update holds",
    renames("staging/state", STATE),
    renames("staging/head.finish.json", COMMIT_HEAD),
  ),
];

import { existsSync, mkdirSync, readdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { commandProblem, runBounded } from "./bounded-command.ts";
import { describeHolders, findMountHolders } from "./mount-holders.ts";
import { loopDevicesOf } from "./mount-loop.ts";
import { type MountSettings, readMountSettings } from "./mount-settings.ts";
import { locate, type MountEntry, mountAt, mountsBelow, readMountTable } from "./mount-table.ts";
import type { Resource, ResourceContext, UndoCommand } from "./resource.ts";
import { refuseFaults, resourceFailed } from "./setting-reader.ts";
import { untilGone } from "./until-gone.ts";

/**
 * A file system that is mounted where the virtual server is.
 *
 * A share whose server is gone hangs whoever touches it. So the daemon itself only reads the kernel's table of mounts;
 * everything that touches the file system is done by a child with a time limit, which is left alone if even a kill does
 * not end it. What holds a mount when it is to go is named; as a last resort the mount is taken out of the tree and
 * stays alive, unseen, for whoever has files of it open.
 *
 * Not promised: that no other machine has the device mounted. The lease orders owners; what a process that outlives its
 * mount still writes to a block device, only the file system itself can keep apart (ext4 with multi-mount protection).
 */
const MOUNT = "/usr/bin/mount";
const UMOUNT = "/usr/bin/umount";
/** Without asking the file system for its name, or the helper of its type for anything. */
const LAZILY = ["-l", "-i", "-n", "-c"] as const;
const LAZILY_MS = 5_000;
const UNMOUNT_AGAIN_MS = 250;
const LOOK_MS = 5_000;

/** Lists, then writes, reads back and removes a file, and has it written for good before it is believed. */
const TEST_SCRIPT = `
ls -- "$1" >/dev/null || exit
[ "$2" = "" ] && exit 0
echo "$3" | dd of="$1/$2" conv=fsync status=none || exit
read -r found < "$1/$2" || exit
rm -f -- "$1/$2" || exit
[ "$found" = "$3" ] || { echo "wrote $3 into $2 and read $found" >&2; exit 1; }
`;

/** Only where this resource has marked that it mounts: at the same place there may be somebody else's. */
const UNDO_SCRIPT = `[ -e "$1" ] || exit 0; shift; exec "$@"`;

/** Throws RESOURCE_SETTINGS. */
export function openMount(context: ResourceContext): Resource {
  const { settings, faults } = readMountSettings(context.definition.settings);
  refuseFaults(context.definition, faults);
  return new Mount(context, settings);
}

class Mount implements Resource {
  readonly undo: readonly UndoCommand[];
  readonly isExclusive = true;
  readonly #context: ResourceContext;
  readonly #settings: MountSettings;
  /** There while something of ours may be mounted. */
  readonly #mark: string;

  constructor(context: ResourceContext, settings: MountSettings) {
    this.#context = context;
    this.#settings = settings;
    this.#mark = join(context.directory, "mounting");
    const { directory } = settings;
    this.undo = [["/bin/sh", "-c", UNDO_SCRIPT, "sh", this.#mark, UMOUNT, ...LAZILY, "--", directory]];
  }

  async online(busy: () => void, calledOff: AbortSignal): Promise<void> {
    const { directory, device, mountMs } = this.#settings;
    const table = readMountTable();
    const there = mountAt(table, directory);
    if (there !== null && !(await this.#isOurs(table, there)))
      throw this.#failed(`${describe(there)} is mounted at ${directory} already`, {
        hint: "Unmount it, or name another directory.",
      });
    if (there === null) {
      await this.#refuseElsewhere(table);
      await this.#makeDirectory();
      if (this.#context.token() === null) throw this.#failed("the lease ended before it was mounted");
      mkdirSync(this.#context.directory, { recursive: true });
      writeFileSync(this.#mark, `${directory}\n`);
      const end = await runBounded(MOUNT, this.#mountArguments(), { limitMs: mountMs, busy, calledOff });
      const problem = commandProblem(`the mount of ${device} at ${directory}`, end, mountMs);
      if (problem !== null) throw this.#failed(problem);
    } else {
      writeFileSync(this.#mark, `${directory}\n`);
      this.#context.note("found mounted", `${device} was mounted at ${directory} already`);
    }
    const problem = this.#look() ?? (await this.#use());
    if (problem !== null) throw this.#failed(problem);
    await this.#warnOfTwoWriters();
  }

  async offline(busy: () => void): Promise<void> {
    const { directory, unmountMs } = this.#settings;
    const until = performance.now() + unmountMs;
    while (await this.#isMounted()) {
      const leftMs = Math.max(1, until - performance.now());
      const end = await runBounded(UMOUNT, ["--", directory], { limitMs: leftMs, busy });
      if (end.status === 0) continue;
      if (performance.now() < until && !end.hasTimedOut) {
        busy();
        await sleep(UNMOUNT_AGAIN_MS);
        continue;
      }
      const problem = commandProblem(`the unmount of ${directory}`, end, unmountMs) ?? "";
      await this.#takeOut(problem);
    }
    rmSync(this.#mark, { force: true });
  }

  async check(isThorough: boolean): Promise<string | null> {
    return this.#look() ?? (isThorough ? await this.#use() : null);
  }

  async terminate(): Promise<void> {
    if (!existsSync(this.#mark)) return;
    await untilGone(
      async () => {
        if (await this.#isMounted()) await this.#takeOut("it has to go at once");
        return null;
      },
      (problem) => this.#context.note("not unmounted", `${this.#settings.directory}: ${problem}`),
    );
    rmSync(this.#mark, { force: true });
  }

  /** From the kernel's table alone. */
  #look(): string | null {
    const { directory, device, isReadOnly } = this.#settings;
    const entry = mountAt(readMountTable(), directory);
    if (entry === null) return `${device} is not mounted at ${directory} any more`;
    if (!isReadOnly && entry.options.has("ro"))
      return `${directory} is mounted read-only, though it should not be: the file system may have found errors`;
    return null;
  }

  async #use(): Promise<string | null> {
    const { directory, checkMs, isReadOnly, testsWriting } = this.#settings;
    const { virtualServer, node } = this.#context;
    const file = isReadOnly || !testsWriting ? "" : `.lockstep-test-${virtualServer}-${node}`;
    const word = `${node} ${Math.round(performance.now())}`;
    const args = ["-c", TEST_SCRIPT, "sh", directory, file, word];
    const end = await runBounded("/bin/sh", args, { limitMs: checkMs });
    return commandProblem(`the test of ${directory}`, end, checkMs);
  }

  #mountArguments(): string[] {
    const { type, options, device, directory } = this.#settings;
    const all = type === "bind" ? ["bind", ...options] : options;
    return [
      ...(type === "bind" || type === "auto" ? [] : ["-t", type]),
      ...(all.length === 0 ? [] : ["-o", all.join(",")]),
      "--",
      device,
      directory,
    ];
  }

  async #makeDirectory(): Promise<void> {
    const { directory, checkMs } = this.#settings;
    const end = await runBounded("/bin/mkdir", ["-p", "--", directory], { limitMs: checkMs });
    const problem = commandProblem(`making ${directory}`, end, checkMs);
    if (problem !== null) throw this.#failed(problem);
  }

  /** What one file system of a disk shows twice is damage when the two do not know of each other. */
  async #refuseElsewhere(table: readonly MountEntry[]): Promise<void> {
    const devices = await this.#blockDevices();
    if (devices.length === 0) return;
    const places = [table, ...otherNamespaces()].flat();
    const entry = places.find((each) => devices.includes(each.device) || devices.includes(each.source));
    if (entry !== undefined)
      throw this.#failed(`${this.#settings.device} is mounted elsewhere already: ${describe(entry)}`, {
        hint: "Unmount it there; a file system on a disk belongs to one mount.",
      });
  }

  /** `major:minor` of the device, and of loop devices that show the image; none for what is no disk. */
  async #blockDevices(): Promise<string[]> {
    const { device, type, checkMs } = this.#settings;
    if (!device.startsWith("/") || device.startsWith("//") || type === "bind") return [];
    const args = ["-L", "-c", "%F\t%Hr:%Lr", "--", device];
    const { output } = await runBounded("/usr/bin/stat", args, { limitMs: checkMs });
    const [kind, number] = output.trim().split("\t");
    if (kind === "block special file" && number !== undefined) return [number];
    return kind?.startsWith("regular") ? loopDevicesOf(await this.#resolve(device)) : [];
  }

  async #isMounted(): Promise<boolean> {
    const table = readMountTable();
    const entry = mountAt(table, this.#settings.directory);
    return entry !== null && (await this.#isOurs(table, entry));
  }

  /** Whether it is what our settings say, whoever mounted it. */
  async #isOurs(table: readonly MountEntry[], entry: MountEntry): Promise<boolean> {
    const { device, type } = this.#settings;
    if (type === "bind") {
      const place = locate(
        table.filter((each) => each !== entry),
        await this.#resolve(device),
      );
      return place !== null && place.device === entry.device && place.root === entry.root;
    }
    if (entry.source === device || entry.source === device.replace(/\/+$/, "")) return true;
    if ((await this.#blockDevices()).includes(entry.device)) return true;
    // Whatever we cannot tell by its name is ours only where we marked it.
    return existsSync(this.#mark) && type !== "auto" && entry.type === type;
  }

  async #resolve(path: string): Promise<string> {
    const { checkMs } = this.#settings;
    const { status, output } = await runBounded("/usr/bin/realpath", ["-m", "--", path], {
      limitMs: checkMs,
    });
    return status === 0 ? output.replace(/\n$/, "") : path;
  }

  async #takeOut(why: string): Promise<void> {
    const { directory } = this.#settings;
    const holders = await findMountHolders(directory, LOOK_MS);
    const below = mountsBelow(readMountTable(), directory).map(
      (each) => `${describe(each)} is mounted below it`,
    );
    const found = [holders.length === 0 ? "" : describeHolders(holders), ...below].filter(
      (each) => each !== "",
    );
    const end = await runBounded(UMOUNT, [...LAZILY, "--", directory], { limitMs: LAZILY_MS });
    const problem = commandProblem(`the unmount of ${directory}`, end, LAZILY_MS);
    if (problem !== null) throw this.#failed(problem);
    const held = found.length === 0 ? "" : `; held: ${found.join(", ")}, and written to until they end`;
    this.#context.note("unmounted lazily", `${directory} was taken out of the tree: ${why}${held}`);
  }

  /** Two machines that write one ext4 destroy it, unless it watches for that itself. */
  async #warnOfTwoWriters(): Promise<void> {
    const { directory, device, checkMs, isReadOnly } = this.#settings;
    const entry = mountAt(readMountTable(), directory);
    if (isReadOnly || entry?.type !== "ext4" || !existsSync(DUMPE2FS)) return;
    const { status, output } = await runBounded(DUMPE2FS, ["-h", entry.source], { limitMs: checkMs });
    if (status !== 0 || /^Filesystem features:.*\bmmp\b/m.test(output)) return;
    this.#context.note(
      "no multi-mount protection",
      `${device} does not watch for a second machine that mounts it; tune2fs -O mmp lets it`,
    );
  }

  #failed(problem: string, details: { readonly hint?: string } = {}) {
    return resourceFailed(this.#context.definition, problem, details);
  }
}

const DUMPE2FS = "/usr/sbin/dumpe2fs";

const describe = ({ source, directory, type }: MountEntry) => `${source} at ${directory} (${type})`;

/** What containers and the like have mounted: each table of this machine once. */
function otherNamespaces(): MountEntry[][] {
  const own = namespaceOf("self");
  const seen = new Set([own, null]);
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      const namespace = namespaceOf(name);
      if (seen.has(namespace)) return [];
      seen.add(namespace);
      try {
        return [readMountTable(Number(name))];
      } catch {
        return [];
      }
    });
}

function namespaceOf(process: string): string | null {
  try {
    return readlinkSync(`/proc/${process}/ns/mnt`);
  } catch {
    return null;
  }
}

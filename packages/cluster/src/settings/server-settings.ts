import {
  CHECKPOINT_LIMITS,
  type CheckpointEntry,
  type CheckpointLimits,
  type CheckpointManifest,
  type CheckpointRoots,
  checkpointRoots,
  entryPath,
  findCheckpointExcess,
  type SettingsReport,
  sameEntries,
  showEntry,
  type VirtualServerDefinition,
} from "@lockstep/core";
import type { Clock, Disk } from "@lockstep/platform";
import { isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import type { Coordination } from "../coordination/coordination.ts";
import { CheckpointRecordFile } from "./checkpoint-record.ts";
import { hashOf, type ScannedSettings, SettingsScanner } from "./checkpoint-scan.ts";
import { CheckpointStore } from "./checkpoint-store.ts";
import { ContentCache } from "./content-cache.ts";
import { type AdoptOwner, parentOf } from "./lay-down.ts";
import { type ChangeWatch, watchDirectories } from "./settings-watch.ts";
import { adoptOwner, fetchContents, type TakeOverParts, takeOver } from "./take-over.ts";
import type { HangingVolume } from "./volume-reach.ts";

/**
 * The settings of one virtual server on one node (what and why: core/checkpoint.ts).
 *
 * `beforeOnline` lays down what the store holds and then follows what the service changes, until `afterOffline`, `close`, or
 * until the store refuses the token: then nothing more is written, at once. On a node that is not the owner, `prefetch`
 * from time to time keeps a takeover from having to fetch.
 *
 * Calls come one after the other: what is asked for while something goes on waits for its end.
 */
export interface ServerSettingsOptions {
  readonly definition: VirtualServerDefinition;
  readonly node: string;
  /** The virtual server's data directory on this node, absolute; its `settings` are followed. */
  readonly dataDirectory: string;
  /** Private to this on this node, absolute; made if missing, where its parent is. */
  readonly directory: string;
  /** With a time limit that lets half a megabyte through, not the one of the lease. */
  readonly coordination: Coordination;
  readonly disk: Disk;
  readonly clock: Clock;
  readonly listener: SettingsListener;
  readonly limits?: CheckpointLimits;
  readonly times?: Partial<SettingsTimes>;
  readonly watch?: (changed: () => void) => ChangeWatch;
  readonly adopt?: AdoptOwner;
  /** Asked before the files are looked at: the first of these paths that would not answer (volume-reach.ts). */
  readonly findHanging?: (paths: readonly string[]) => Promise<HangingVolume | null>;
}

export interface SettingsListener {
  /** Something for the history. */
  noted(note: { readonly token: number; readonly what: string; readonly detail: string }): void;
  /** What `report` returns may differ from before. */
  changed(): void;
}

export interface SettingsTimes {
  /** Quiet after a change before it is looked at, so that a burst is stored once. */
  readonly settleMs: number;
  /** From one scan to the next when nobody says that anything changed. */
  readonly scanMs: number;
  /** First pause after a write that failed; doubled up to `scanMs`. */
  readonly retryMs: number;
  /** How long the last scan may try before the lease is given back. */
  readonly lastMs: number;
}

const TIMES: SettingsTimes = { settleMs: 50, scanMs: 5_000, retryMs: 200, lastMs: 2_000 };
const PROBLEMS_MAX = 20;
const PROBLEM_LENGTH_MAX = 1_000;

export class ServerSettings {
  readonly #options: ServerSettingsOptions;
  readonly #times: SettingsTimes;
  readonly #limits: CheckpointLimits;
  readonly #store: CheckpointStore;
  readonly #scanner: SettingsScanner;
  readonly #record: CheckpointRecordFile;
  readonly #cache: ContentCache;
  #found: CheckpointRoots;
  #current: CheckpointManifest | null = null;
  /** The last write may have happened or not: what the store has is not `#current` for certain. */
  #isUncertain = false;
  /** By root, the device on which its directory lay when this node became the owner. */
  #devices = new Map<string, bigint>();
  #state: SettingsReport["state"] = "idle";
  #storedAt: number | null = null;
  #problems: readonly string[] = [];
  #failure: string | null = null;
  #isTooLarge = false;
  #following: { readonly ending: AbortController; readonly done: Promise<void> } | null = null;
  /** Changes that the watch told of. */
  #heard = 0;
  #wake: () => void = () => {};
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: ServerSettingsOptions) {
    const { definition, dataDirectory, directory, coordination, disk, node, clock } = options;
    this.#options = options;
    this.#times = { ...TIMES, ...options.times };
    this.#limits = options.limits ?? CHECKPOINT_LIMITS;
    this.#store = new CheckpointStore(coordination, definition.name, node);
    this.#scanner = new SettingsScanner(disk, this.#limits, () => clock.now());
    this.#record = new CheckpointRecordFile(disk, `${directory}/record.json`);
    this.#cache = new ContentCache(disk, `${directory}/contents`);
    this.#found = checkpointRoots(definition, dataDirectory);
  }

  /** Somebody changed the definition; what it names is followed from now on. */
  define(definition: VirtualServerDefinition): void {
    this.#found = checkpointRoots(definition, this.#options.dataDirectory);
    this.#hear();
  }

  /**
   * Lays down what the store holds, durably, and then follows what changes. When it rejects, the service must not start
   * here: CHECKPOINT_INVALID, CHECKPOINT_TOO_LARGE, CHECKPOINT_LAY_DOWN_FAILED, COORDINATION_UNREACHABLE, or
   * FILE_ACCESS_FAILED where a volume does not answer.
   */
  beforeOnline(token: number): Promise<void> {
    return this.#inTurn(async () => {
      await this.#endFollowing();
      await this.#demandAnswers();
      this.#prepareDirectory();
      this.#record.load();
      const manifest = await this.#store.read();
      if (manifest !== null) {
        await takeOver(this.#parts(token), this.#found.roots, manifest);
        this.#storedAt = this.#options.clock.now();
      }
      this.#current = manifest;
      this.#isUncertain = false;
      this.#devices = new Map(this.#scanner.scan(this.#found.roots).devices);
      this.#set("following", null);
      const ending = new AbortController();
      this.#following = { ending, done: this.#follow(token, ending.signal) };
    });
  }

  /** The last look, after everything is offline and before the lease is given back. Never rejects. */
  afterOffline(token: number): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#following === null) return;
      await this.#endFollowing();
      if (this.#state === "fenced") return;
      const { clock } = this.#options;
      const until = clock.monotonic() + this.#times.lastMs;
      while (
        !(await this.#tryToStore(token)) &&
        this.#state === "failing" &&
        !this.#isTooLarge &&
        clock.monotonic() < until
      )
        await clock.sleep(this.#times.retryMs);
      if (this.#failure !== null)
        this.#note(token, "settings-not-stored", `${this.#failure}; the next owner has the state before`);
      this.#set("idle", this.#failure);
    });
  }

  /** As `fetchAhead`, and never rejects: what is missing is fetched when it is needed, and what is wrong is said then. */
  prefetch(): Promise<void> {
    return this.fetchAhead().catch(() => {});
  }

  /**
   * Fetches what a takeover would have to fetch, where this node is not the owner. Rejects with what would keep it from
   * laying it down: CHECKPOINT_INVALID, COORDINATION_UNREACHABLE, or what the disk says.
   */
  fetchAhead(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#following !== null) return;
      await this.#demandAnswers();
      this.#prepareDirectory();
      // So that their hashes are known when it counts.
      this.#scanner.scan(this.#found.roots);
      if ((await this.#store.readNumber()) === (this.#current?.number ?? 0)) return;
      const manifest = await this.#store.read();
      if (manifest === null) return;
      await fetchContents(
        { cache: this.#cache, store: this.#store },
        manifest.entries.filter(({ kind }) => kind === "file"),
      );
      this.#cache.keepOnly(new Set(manifest.entries.map(({ sha256 }) => sha256)));
      this.#current = manifest;
    });
  }

  report(): SettingsReport {
    const entries = this.#current?.entries ?? [];
    const left = this.#found.left.map(({ path, why }) => `${path} is not followed: ${why}`);
    const problems = [...(this.#failure === null ? [] : [this.#failure]), ...this.#problems, ...left];
    return {
      state: this.#state,
      number: this.#current?.number ?? null,
      files: entries.filter(({ kind }) => kind === "file").length,
      sizeBytes: entries.reduce((sum, { size }) => sum + size, 0),
      storedAt: this.#storedAt,
      problems: problems.slice(0, PROBLEMS_MAX).map((problem) => problem.slice(0, PROBLEM_LENGTH_MAX)),
    };
  }

  /** Ends following, without a last look. */
  close(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#endFollowing();
      if (this.#state !== "fenced") this.#set("idle", null);
    });
  }

  #inTurn<T>(act: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(act);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #endFollowing(): Promise<void> {
    const following = this.#following;
    if (following === null) return;
    following.ending.abort();
    this.#wake();
    await following.done;
    this.#following = null;
  }

  #parts(token: number): TakeOverParts {
    const { disk, directory } = this.#options;
    return {
      disk,
      copies: `${directory}/overwritten`,
      scanner: this.#scanner,
      record: this.#record,
      cache: this.#cache,
      store: this.#store,
      adopt: this.#options.adopt ?? adoptOwner,
      note: (what, detail) => this.#note(token, what, detail),
    };
  }

  /** Nothing of a volume that does not answer is touched: this whole process would wait for it. */
  async #demandAnswers(): Promise<void> {
    const hanging = await this.#options.findHanging?.(this.#found.roots.map(({ path }) => path));
    if (hanging == null) return;
    throw new LockstepError("FILE_ACCESS_FAILED", `the settings of ${this.#options.definition.name} hang`, {
      found: `${hanging.path}, on ${hanging.on}, does not answer`,
      hint: "Bring back what serves this volume, or keep the settings on a local disk.",
    });
  }

  #prepareDirectory(): void {
    const { disk, directory } = this.#options;
    if (disk.lstat(directory) === null) disk.makeDirectory(directory, 0o700);
  }

  async #follow(token: number, ending: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const watch = (this.#options.watch ?? watchDirectories)(() => this.#hear());
    try {
      for (let pauseMs = this.#times.retryMs; !ending.aborted; ) {
        const heard = this.#heard;
        if (await this.#tryToStore(token, watch)) {
          pauseMs = this.#times.retryMs;
          if (heard === this.#heard) await this.#pause(this.#times.scanMs, ending);
          await clock.sleep(this.#times.settleMs, ending);
        } else if (this.#state === "fenced") return;
        else {
          await clock.sleep(pauseMs, ending);
          pauseMs = Math.min(pauseMs * 2, this.#times.scanMs);
        }
      }
    } finally {
      watch.close();
    }
  }

  #hear(): void {
    this.#heard += 1;
    this.#wake();
  }

  /** Until somebody wakes it, at most for so long. */
  async #pause(ms: number, ending: AbortSignal): Promise<void> {
    const woken = new AbortController();
    this.#wake = () => woken.abort();
    await this.#options.clock.sleep(ms, AbortSignal.any([ending, woken.signal]));
    this.#wake = () => {};
  }

  /** Those of the settings, and where a root itself comes and goes. */
  #directories(): Map<string, Set<string> | null> {
    const watched = new Map<string, Set<string> | null>();
    const paths = new Map(this.#found.roots.map(({ id, path }) => [id, path]));
    for (const path of paths.values()) {
      const names = watched.get(parentOf(path)) ?? new Set();
      watched.set(parentOf(path), names.add(path.slice(path.lastIndexOf("/") + 1)));
    }
    for (const { root, path, kind } of this.#current?.entries ?? [])
      if (kind === "directory" && paths.has(root)) watched.set(entryPath(paths.get(root) ?? "", path), null);
    for (const path of watched.keys())
      if (this.#options.disk.lstat(path)?.kind !== "directory") watched.delete(path);
    return watched;
  }

  /** One look, and one write where it found a change. Returns whether the store is as the disk. */
  async #tryToStore(token: number, watch?: ChangeWatch): Promise<boolean> {
    try {
      await this.#demandAnswers();
      // Before the scan, so that nothing falls between the two. What it found is watched too; then one more look.
      watch?.follow(this.#directories());
      const isStored = await this.#storeChanges(token);
      if (watch?.follow(this.#directories()) === true) this.#heard += 1;
      if (isStored) this.#set("following", null);
      return isStored;
    } catch (error) {
      const problem = describe(error);
      // Trying again at once cannot help that.
      this.#isTooLarge = isLockstepError(error, "CHECKPOINT_TOO_LARGE");
      if (problem !== this.#failure) this.#note(token, "settings-not-stored", problem);
      this.#set("failing", problem);
      return false;
    }
  }

  async #storeChanges(token: number): Promise<boolean> {
    const { roots } = this.#found;
    const scanned = this.#scanner.scan(roots, (sha256) => !this.#store.has(sha256));
    const kept = this.#keptRoots(scanned);
    this.#problems = [...scanned.problems, ...kept.problems];
    const read = new Set(roots.map(({ id }) => id).filter((id) => !kept.ids.has(id)));
    const entries: CheckpointEntry[] = [
      ...scanned.entries.filter(
        (entry): entry is CheckpointEntry => entry.kind !== "other" && read.has(entry.root),
      ),
      ...(this.#current?.entries ?? []).filter(({ root }) => kept.ids.has(root)),
    ];
    const inStore = new Set(this.#current?.roots);
    const ids = [...read, ...[...kept.ids].filter((id) => inStore.has(id))].sort();
    const current = this.#current;
    const isSame =
      current === null
        ? entries.length === 0
        : sameRoots(current.roots, ids) && sameEntries(current.entries, entries);
    if (isSame && !this.#isUncertain) return true;
    const excess = findCheckpointExcess(entries, this.#limits);
    if (excess.length > 0)
      throw new LockstepError(
        "CHECKPOINT_TOO_LARGE",
        "the settings of the service are too large to follow it",
        {
          faults: excess,
          found: excess
            .map(({ where, problem }) => `${where} ${problem}`)
            .join("; ")
            .slice(0, 500),
          hint: "Keep settings alone in these directories; data belongs onto a shared volume.",
        },
      );
    this.#isUncertain = true;
    const manifest = await this.#store.write(token, ids, entries, (entry) => this.#read(entry, scanned));
    if (manifest === null) return this.#fenced(token);
    this.#isUncertain = false;
    this.#current = manifest;
    this.#storedAt = this.#options.clock.now();
    await this.#record.settle(entries);
    this.#options.listener.changed();
    // What is no longer needed costs room and nothing else, so a failure here is nobody's problem.
    try {
      if (!(await this.#store.collect(token, manifest))) return this.#fenced(token);
    } catch (error) {
      if (!isLockstepError(error)) throw error;
    }
    return true;
  }

  /**
   * Roots of which the store keeps what it has: those that became links, and directories that were there when this node
   * became the owner and are gone, or lie on another device. A volume that is not mounted looks like one whose files were
   * all deleted.
   */
  #keptRoots({ absent, devices, refused }: ScannedSettings): { ids: Set<string>; problems: string[] } {
    const ids = new Set(refused);
    const problems: string[] = [];
    for (const { id, path } of this.#found.roots) {
      const before = this.#devices.get(id);
      const now = devices.get(id);
      if (before === undefined && now !== undefined) this.#devices.set(id, now);
      if (before === undefined || before === now || (now === undefined && !absent.has(id))) continue;
      ids.add(id);
      problems.push(
        `${path} ${now === undefined ? "is gone" : "lies on another device"}; the store keeps what it had`,
      );
    }
    return { ids, problems };
  }

  #read(entry: CheckpointEntry, { contents }: ScannedSettings): Uint8Array {
    const bytes = contents.get(entry.sha256) ?? this.#options.disk.readFile(this.#pathOf(entry));
    if (hashOf(bytes) === entry.sha256) return bytes;
    throw new LockstepError("FILE_ACCESS_FAILED", `${showEntry(entry)} changes while it is stored`, {
      hint: "It is read again in a moment.",
    });
  }

  #fenced(token: number): false {
    this.#note(token, "settings-refused", "another node is the owner; nothing more is stored from here");
    this.#set("fenced", null);
    this.#following?.ending.abort();
    return false;
  }

  #pathOf({ root, path }: Pick<CheckpointEntry, "root" | "path">): string {
    return entryPath(this.#found.roots.find(({ id }) => id === root)?.path ?? root, path);
  }

  #note(token: number, what: string, detail: string): void {
    this.#options.listener.noted({ token, what, detail });
  }

  #set(state: SettingsReport["state"], failure: string | null): void {
    if (state === this.#state && failure === this.#failure) return;
    this.#state = state;
    this.#failure = failure;
    this.#options.listener.changed();
  }
}

const sameRoots = (a: readonly string[], sorted: readonly string[]) =>
  a.length === sorted.length && a.toSorted().every((id, index) => id === sorted[index]);

function describe(error: unknown): string {
  if (isLockstepError(error))
    return `${error.code}: ${error.message}${error.found === undefined ? "" : ` (${error.found})`}`;
  return error instanceof Error ? error.message : String(error);
}

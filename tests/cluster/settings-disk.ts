import { createHash } from "node:crypto";
import type { Clock, Disk } from "@lockstep/platform";
import { SimCrash, SimDisk } from "@lockstep/testing";

/** The machines of a simulated virtual server with settings: disks, time, and what stands on a disk as one text. */
/** Rules of which one is missing in a mutant. */
export interface SettingsRules {
  /** Writes carry the owner's token, not whatever the fence is at. */
  readonly token: boolean;
  /** Contents are stored before the manifest that names them. */
  readonly contentsFirst: boolean;
  readonly syncFiles: boolean;
  readonly syncDirectories: boolean;
}

export const SETTINGS_RULES: SettingsRules = {
  token: true,
  contentsFirst: true,
  syncFiles: true,
  syncDirectories: true,
};

/** Where settings are on every node. */
export const ROOTS = ["/data/settings", "/etc/app/settings", "/etc/single.conf"];

export type Tree = string;

export class WorldDisk extends SimDisk {
  readonly rules: SettingsRules;
  constructor(rules: SettingsRules) {
    super({ model: "any-subset", tornRenames: true });
    this.rules = rules;
  }
  override async syncFiles(paths: readonly string[]): Promise<void> {
    if (this.rules.syncFiles) await super.syncFiles(paths);
  }
  override async syncDirectories(paths: readonly string[]): Promise<void> {
    if (this.rules.syncDirectories) await super.syncDirectories(paths);
  }
}

/** Time that passes when it is told to. */
export class WorldClock implements Clock {
  #now = 1_800_000_000_000;
  readonly #sleepers = new Set<{ readonly until: number; readonly wake: () => void }>();

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#now;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted === true) return resolve();
      const sleeper = { until: this.#now + ms, wake: resolve };
      this.#sleepers.add(sleeper);
      signal?.addEventListener("abort", () => this.#wake(sleeper), { once: true });
    });
  }

  advance(ms: number): void {
    this.#now += ms;
    for (const sleeper of [...this.#sleepers]) if (sleeper.until <= this.#now) this.#wake(sleeper);
  }

  #wake(sleeper: { readonly until: number; readonly wake: () => void }): void {
    if (this.#sleepers.delete(sleeper)) sleeper.wake();
  }
}

/** A disk that a dead program cannot reach. */
export function mortal(disk: WorldDisk, isDead: () => boolean): Disk {
  return new Proxy(disk, {
    get: (target, name) => {
      if (isDead()) throw new SimCrash();
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** All settings of a node as one text. */
export function treeOf(disk: SimDisk): Tree {
  const lines: string[] = [];
  const all = disk.tree("/");
  for (const [path, entry] of all) {
    const full = `/${path}`;
    if (!ROOTS.some((root) => full === root || full.startsWith(`${root}/`))) continue;
    const [kind = "", mode = ""] = entry.split(" ", 2);
    const content = entry.slice(kind.length + mode.length + 2);
    lines.push(`${full} ${kind} ${mode}${kind === "file" ? ` ${hash(Buffer.from(content, "latin1"))}` : ""}`);
  }
  return lines.sort().join("\n");
}

export const hash = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex").slice(0, 12);

import { type ChildProcess, spawn } from "node:child_process";
import { afterOwnTime } from "@lockstep/platform";
import { startOrRefusal } from "../refused-start.ts";
import { BARE_ENVIRONMENT } from "../resources/bounded-command.ts";
import { isServed, type MountEntry, mountOf, readMountTable } from "../resources/mount-table.ts";

/**
 * Whether the volumes that paths lie on answer at this moment.
 *
 * Settings are read by the daemon itself, and a call to a volume whose server is gone never comes back: the daemon would
 * stand still, and with it the leases of every virtual server of this node. So whoever is about to look at paths asks this
 * first. A child asks the volume; one that does not answer is killed and left alone, and as long as it is still there, the
 * volume counts as hanging and nobody else is sent.
 *
 * Only volumes that other machines or programs serve are asked, told by the kernel's table and by names alone; a path on a
 * local disk costs nothing. Not promised: a volume that stops answering between this look and the next call.
 */
export interface VolumeReachOptions {
  readonly table?: () => readonly MountEntry[];
  /** Starts the program that asks the volume for its size, which no cache answers. */
  readonly ask?: (path: string) => ChildProcess;
  readonly limitMs?: number;
}

export interface HangingVolume {
  readonly path: string;
  /** The volume, in words. */
  readonly on: string;
}

const LIMIT_MS = 2_000;

export class VolumeReach {
  readonly #table: () => readonly MountEntry[];
  readonly #ask: (path: string) => ChildProcess;
  readonly #limitMs: number;
  /** By the directory of the mount: who has asked and not come back. */
  readonly #lost = new Map<string, ChildProcess>();

  constructor({ table, ask, limitMs }: VolumeReachOptions = {}) {
    this.#table = table ?? (() => (process.platform === "linux" ? readMountTable() : []));
    this.#ask = ask ?? askSize;
    this.#limitMs = limitMs ?? LIMIT_MS;
  }

  /** The first of these absolute paths whose volume does not answer within two seconds; null: all may be looked at. */
  async findHanging(paths: readonly string[]): Promise<HangingVolume | null> {
    const table = this.#table();
    const asked = new Set<string>();
    for (const path of paths) {
      const mount = mountOf(table, path);
      if (mount === null || !isServed(mount) || asked.has(mount.directory)) continue;
      asked.add(mount.directory);
      if (!(await this.#answers(mount.directory, path)))
        return { path, on: `${mount.source} (${mount.type})` };
    }
    return null;
  }

  async #answers(volume: string, path: string): Promise<boolean> {
    if (this.#lost.has(volume)) return false;
    const child = startOrRefusal(() => this.#ask(path));
    // No process can be had, or no such program: then it is looked at as ever.
    if (child instanceof Error) return true;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const callLimitOff = afterOwnTime(this.#limitMs, () => {
      this.#lost.set(volume, child);
      child.kill("SIGKILL");
      child.unref();
      resolve(false);
    });
    const end = () => {
      callLimitOff();
      if (this.#lost.get(volume) === child) this.#lost.delete(volume);
      resolve(true);
    };
    child.once("exit", end);
    child.once("error", end);
    return await promise;
  }
}

const askSize = (path: string): ChildProcess =>
  spawn("/usr/bin/stat", ["--file-system", "--", path], { cwd: "/", env: BARE_ENVIRONMENT, stdio: "ignore" });

import { basename, dirname, join } from "node:path";
import { systemErrorCode } from "@lockstep/platform";
import type { ClusterOrigin } from "@lockstep/protocol/wire";
import type { LogFiles, LogHandle } from "./files.ts";
import { backupName } from "./rotation.ts";

/**
 * One log for a service that moves between machines: the file lies on a volume that all of them reach, and goes on where
 * the former owner stopped.
 *
 * A former owner may still be at work: its machine was cut off, or slept, and it does not know yet. What it has open it
 * can write to whatever we do, and on some network file systems two that append write over each other. So nobody goes on
 * in the file of another. Whoever takes over first leaves word of its fencing token beside the log (a name that carries
 * the token, made only if it is not there, so that it never goes back), then copies the log and puts the copy under its
 * name. What the former owner writes from then on goes to a file that has no name. Before each batch it looks whether the
 * file under the name is still the one that it has open; when it is not, it finds the higher token and writes no more.
 *
 * Where there is no room for a copy the log becomes a backup, as in a rotation, and a new one begins.
 *
 * Not promised: that what a former owner wrote after the takeover is in the log; and that no backup is lost when the
 * former owner stood still in the middle of a rotation for so long that the next one has rotated too.
 */
export class LogOwner {
  readonly #files: LogFiles;
  readonly #origin: ClusterOrigin;
  /** The path that this process has taken over. */
  #taken: string | null = null;

  constructor(files: LogFiles, origin: ClusterOrigin) {
    this.#files = files;
    this.#origin = origin;
  }

  /**
   * To be called before the log is opened. `former`: what we had open and is no longer under the name. `makeRoom`: makes
   * the log a backup. Throws LogOvertaken.
   */
  async enter(path: string, former: LogHandle | null, makeRoom: () => Promise<void>): Promise<void> {
    await this.confirm(path);
    if (this.#taken !== path) {
      await this.#claim(path);
      await this.confirm(path);
      await this.#takeOver(path, (to) => this.#files.copy(path, to), makeRoom);
      this.#taken = path;
    } else if (former !== null && (await former.links()) === 0)
      // A former owner was late with its takeover or its rotation, or somebody deleted the log: it is in our hands alone.
      await this.#takeOver(path, (to) => former.copyTo(to), makeRoom);
  }

  /** Throws LogOvertaken when somebody with a higher token has taken the log. */
  async confirm(path: string): Promise<void> {
    const { term, node } = this.#origin;
    for (const other of await this.#claims(path))
      if (other.term > term || (other.term === term && other.node !== node))
        throw new LogOvertaken(other, this.#origin, other.path);
  }

  async #claim(path: string): Promise<void> {
    const { term, node } = this.#origin;
    await this.#files.create(`${path}${CLAIM}${String(term).padStart(TERM_DIGITS, "0")}-${node}`);
    for (const lower of await this.#claims(path)) if (lower.term < term) await this.#drop(lower.path);
  }

  async #claims(path: string): Promise<Claim[]> {
    const base = `${basename(path)}${CLAIM}`;
    const names = await this.#files.list(dirname(path));
    return names.flatMap((name) => {
      const match = name.startsWith(base) ? /^(\d+)-(.+)$/.exec(name.slice(base.length)) : null;
      const [, term, node = ""] = match ?? [];
      return term === undefined ? [] : [{ term: Number(term), node, path: join(dirname(path), name) }];
    });
  }

  async #takeOver(
    path: string,
    copy: (to: string) => Promise<void>,
    makeRoom: () => Promise<void>,
  ): Promise<void> {
    const copied = `${path}.taken-by-${this.#origin.term}`;
    try {
      await this.#drop(copied);
      if (await this.#isBackup(path)) await this.#files.create(copied);
      else await copy(copied);
      await this.#files.rename(copied, path);
    } catch (error) {
      await this.#drop(copied);
      const code = systemErrorCode(error);
      // There is no log yet.
      if (code === "ENOENT") return;
      if (code !== "ENOSPC" && code !== "EDQUOT") throw error;
      await makeRoom();
    }
  }

  /** The former owner stands still between the two halves of a rotation: the log is a backup already. */
  async #isBackup(path: string): Promise<boolean> {
    const own = await this.#files.identify(path);
    return own !== null && own === (await this.#files.identify(backupName(path, 1)));
  }

  async #drop(path: string): Promise<void> {
    await this.#files.unlink(path).catch(() => {});
  }
}

/** Somebody with a higher fencing token writes this log now. */
export class LogOvertaken extends Error {
  constructor(other: ClusterOrigin, own: ClusterOrigin, claim: string) {
    super(
      `${other.node} has taken the log over under term ${other.term}, and this service runs on ${own.node} under term ` +
        `${own.term}. If that is not so, because the cluster was made anew, delete ${claim}`,
    );
    this.name = "LogOvertaken";
  }
}

interface Claim extends ClusterOrigin {
  readonly path: string;
}

const CLAIM = ".owner-";
const TERM_DIGITS = 16;

import { mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { realDisk } from "@lockstep/platform";

/**
 * Reports that were taken and not brought to the hub yet, on the disk: one file for each installation, for its last report counts. A relay that
 * dies and begins again has them. Of the token that a report came with, only the digest is written.
 */
export interface SpooledReport {
  readonly installation: string;
  /** SHA-256 of the value of `Authorization`; null: there was none. */
  readonly credential: string | null;
  readonly body: string;
  /** When it came, in milliseconds since 1970. */
  readonly at: number;
}

const FORMAT = "lockstep-report/1";
const NAME = /^([A-Za-z0-9-]{1,64})\.json$/;

export class ReportSpool {
  readonly #directory: string;
  /** One change after the other: of two reports of one installation the later stays. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** Opens the directory, and reads what an earlier process left. What cannot be read is removed. Throws what the file system throws. */
  static async open(
    directory: string,
  ): Promise<{ readonly spool: ReportSpool; readonly left: readonly SpooledReport[] }> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const left: SpooledReport[] = [];
    for (const name of await readdir(directory)) {
      const report = NAME.test(name) ? await readReport(join(directory, name)) : null;
      if (report !== null && `${report.installation}.json` === name) left.push(report);
      else await rm(join(directory, name), { force: true, recursive: true });
    }
    return { spool: new ReportSpool(directory), left };
  }

  /** Writes one durably, in the place of what there was of this installation. Throws what the file system throws. */
  put(report: SpooledReport): Promise<void> {
    return this.#next(async () => {
      const path = this.#pathOf(report.installation);
      const file = await open(`${path}.new`, "w", 0o600);
      try {
        await file.writeFile(JSON.stringify({ format: FORMAT, ...report }));
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(`${path}.new`, path);
      await realDisk.syncDirectories([this.#directory]);
    });
  }

  /** Removes that of an installation. Not durably: to bring it once more changes nothing. Never throws. */
  remove(installation: string): Promise<void> {
    return this.#next(() => rm(this.#pathOf(installation), { force: true })).catch(() => undefined);
  }

  #next<T>(change: () => Promise<T>): Promise<T> {
    const done = this.#last.then(change);
    this.#last = done.catch(() => undefined);
    return done;
  }

  #pathOf(installation: string): string {
    return join(this.#directory, `${installation}.json`);
  }
}

async function readReport(path: string): Promise<SpooledReport | null> {
  try {
    const { format, installation, credential, body, at } = JSON.parse(await readFile(path, "utf8")) as Record<
      string,
      unknown
    >;
    if (format !== FORMAT || typeof installation !== "string" || typeof body !== "string") return null;
    if (credential !== null && typeof credential !== "string") return null;
    return typeof at === "number" ? { installation, credential, body, at } : null;
  } catch {
    return null;
  }
}

import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { CLUSTER_ENVIRONMENT, parseServiceWord, type ServiceWord } from "@lockstep/protocol/wire";

/**
 * What a service says of itself, in a file that its environment names. It may say nothing at all. Only what it says since
 * it was launched counts.
 */
const FILE = "word";

export class ServiceWordFile {
  readonly #file: string;

  /** `directory`: the resource's. */
  constructor(directory: string) {
    this.#file = join(directory, FILE);
  }

  get environment(): Readonly<Record<string, string>> {
    return { [CLUSTER_ENVIRONMENT.word]: this.#file };
  }

  /** Before a launch: nothing is said yet. */
  async clear(directory: string): Promise<void> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await rm(this.#file, { force: true });
  }

  /** Null: nothing that we know. */
  async read(): Promise<ServiceWord | null> {
    return parseServiceWord(await readFile(this.#file, "utf8").catch(() => ""));
  }
}

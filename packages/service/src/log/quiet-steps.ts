import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Clock } from "@lockstep/platform";
import type { ClusterOrigin } from "@lockstep/protocol/wire";
import type { LogFiles } from "./files.ts";
import { LogFile } from "./log-file.ts";

/**
 * One log for the steps that had nothing to say: what began, with which parameters, and how it ended.
 *
 * A file of its own for each step costs more than many a step does: making one takes the file system longer than running
 * it, and ten thousand files of two lines help nobody who reads them. So steps that were over quickly, well, and without
 * a word of their own share a file for each hour, `Steps_<date>_<hour>.log`. Every line names its step. In a cluster the
 * name ends with node and term, so that a former owner which is still at work writes in none but its own.
 */
const NAME = /^Steps_\d{4}-\d\d-\d\d_\d\d(_[^\s/]+-\d+)?\.log$/;
const HOUR_MS = 3_600_000;
/** Lines travel to the file together: a write for each of ten thousand steps a second costs more than they do. */
const GATHER_MS = 50;
const GATHERED_CHARACTERS_MAX = 64 * 1024;

export interface QuietStepsOptions {
  readonly files: LogFiles;
  readonly clock: Clock;
  readonly directory: string;
  readonly origin: ClusterOrigin | null;
  /** Called once when writing begins to fail. */
  readonly onProblem: (problem: string) => void;
}

/** Whether this is the name of such a file. */
export const isQuietStepsName = (name: string): boolean => NAME.test(name);

export class QuietSteps {
  readonly #clock: Clock;
  readonly #file: LogFile;
  readonly #suffix: string;
  #directory: string;
  #hour = Number.NaN;
  #gathered = "";
  #timer: NodeJS.Timeout | null = null;

  constructor({ files, clock, directory, origin, onProblem }: QuietStepsOptions) {
    this.#suffix = origin === null ? "" : `_${origin.node}-${origin.term}`;
    this.#clock = clock;
    this.#directory = directory;
    this.#file = new LogFile({
      files: {
        ...files,
        open: async (path) => {
          await mkdir(dirname(path), { recursive: true, mode: 0o750 });
          return await files.open(path);
        },
      },
      clock,
      place: this.#place(0),
      onProblem: (problem) => {
        if (problem !== null) onProblem(problem.problem);
      },
    });
  }

  /** Takes the lines of one step, each with its line end. */
  append(lines: string): void {
    this.#gathered += lines;
    if (this.#gathered.length > GATHERED_CHARACTERS_MAX) this.#pass();
    else this.#timer ??= setTimeout(() => this.#pass(), GATHER_MS);
  }

  /** Another directory from the next step on. */
  move(directory: string): void {
    if (directory === this.#directory) return;
    this.#pass();
    this.#directory = directory;
    this.#hour = Number.NaN;
  }

  /** See LogFile. */
  close(): Promise<boolean> {
    this.#pass();
    return this.#file.close();
  }

  writeNow(): void {
    this.#pass();
    this.#file.writeNow();
  }

  /** Gives what was gathered to the file of the hour. */
  #pass(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#gathered === "") return;
    const hour = Math.floor(this.#clock.now() / HOUR_MS);
    if (hour !== this.#hour) {
      this.#hour = hour;
      this.#file.move(this.#place(hour));
    }
    this.#file.append(this.#gathered);
    this.#gathered = "";
  }

  #place(hour: number) {
    const name = new Date(hour * HOUR_MS).toISOString().slice(0, 13).replace("T", "_");
    return {
      path: join(this.#directory, `Steps_${name}${this.#suffix}.log`),
      // An hour's file is never renamed; JobLogLifeTime deletes it.
      sizeBytesMax: Number.MAX_SAFE_INTEGER,
      historySize: 0,
    };
  }
}

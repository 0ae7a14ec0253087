import { createWriteStream, existsSync, mkdirSync, type WriteStream } from "node:fs";
import { join } from "node:path";
import type { Clock } from "@lockstep/platform";
import { Mask } from "../components/mask.ts";
import type { LogConfig, LogSeverity } from "../config/types.ts";
import { formatLine, formatText } from "./line.ts";
import { formatParameters, maskForms } from "./masking.ts";
import type { LoggedStep, StepEnd, StepLogFile } from "./types.ts";

/** What the log of a step needs of the service's log. */
export interface StepLogOwner {
  readonly clock: Clock;
  readonly config: LogConfig;
  readonly debugMode: boolean;
  /** Masks what the whole service keeps secret. */
  readonly mask: (text: string) => string;
  /** Writes into the service's own log. */
  readonly record: (severity: LogSeverity, text: string) => void;
}

/** A step that never stops talking must not fill the disk, nor the memory while the disk is slow. */
const FILE_BYTES_MAX = 64 * 1024 * 1024;
const WAITING_BYTES_MAX = 4 * 1024 * 1024;

/**
 * Opens the log of one try of a step. Whatever fails here costs the log and nothing else: the service's log says so
 * once.
 */
export function openStepLog(step: LoggedStep, owner: StepLogOwner): StepLogFile {
  return new StepLogWriter(step, owner);
}

class StepLogWriter implements StepLogFile {
  readonly path: string | null;
  readonly #step: LoggedStep;
  readonly #owner: StepLogOwner;
  readonly #secrets = new Mask();
  #stream: WriteStream | null = null;
  #bytes = 0;
  #dropped = 0;

  constructor(step: LoggedStep, owner: StepLogOwner) {
    this.#step = step;
    this.#owner = owner;
    this.#secrets.hide(...step.hidden.map((name) => step.parameters[name]), ...(step.secrets ?? []));
    this.path = owner.config.jobLogLifeTimeMs === null ? null : this.#open();
    this.#start();
  }

  info(message: string): void {
    this.#write("Info", message);
  }

  warn(message: string): void {
    this.#write("Warning", message);
  }

  error(message: string): void {
    this.#write("Serious", message);
  }

  mask(text: string): string {
    return maskForms(this.#secrets.text(this.#owner.mask(text)));
  }

  end({ queue, state, message, output }: StepEnd): void {
    const { component, id } = this.#step;
    const words = this.mask(`${queue} - ${component} - ${id}: ${state} ${message}`.trimEnd());
    if (output !== undefined && Object.keys(output).length > 0) {
      // An output may be as long as it likes; and what was hidden going in is hidden coming out.
      const text = `[Output] ${this.#parameters(output)}`;
      this.#write("Info", text);
      if (this.#owner.debugMode) this.#owner.record("Info", `${words} ${text}`);
    }
    const severity = state === "error" ? "Warning" : state === "lost" ? "Serious" : "Info";
    this.#write(severity, words);
    if (this.#dropped > 0) this.#write("Warning", `${this.#dropped} lines were left out`, true);
    this.#owner.record(severity, words);
    this.#stream?.end();
    this.#stream = null;
  }

  #start(): void {
    const { id, component, task, execution, parameters, name, process, attempt, claim } = this.#step;
    const facts =
      `Process step parameter ${id}: [Job] ComponentClass=${component}, Task=${task}, Executiontype=${execution}, ` +
      `Name=${name}, Process=${process.name} (${process.id}), Attempt=${attempt}, Claim=${claim}`;
    const all = this.mask(`${facts} [Parameters] ${this.#parameters(parameters)}`);
    this.#write("Info", all);
    this.#owner.record("Info", this.#owner.debugMode ? all : this.mask(facts));
  }

  #parameters(values: Readonly<Record<string, unknown>>): string {
    const { paramLengthMax } = this.#owner.config;
    return formatParameters(values, this.#step.hidden, paramLengthMax, (text) => this.mask(text));
  }

  #open(): string | null {
    const { config, clock } = this.#owner;
    const id = String(this.#step.id);
    // Of the number with leading zeros: the first four of a short one would make a directory for each step.
    const directory = join(config.jobLogDirectory, id.padStart(8, "0").slice(0, 4));
    const path = join(directory, `Job_${id}_${stamp(clock.now())}.log`);
    try {
      // Asked first, because nearly always it is there, and making what is there costs three times as much.
      if (!existsSync(directory)) mkdirSync(directory, { recursive: true, mode: 0o750 });
    } catch (error) {
      this.#fail(path, error);
      return null;
    }
    this.#stream = createWriteStream(path, { flags: "a", mode: 0o640 });
    this.#stream.on("error", (error) => this.#fail(path, error));
    return path;
  }

  #fail(path: string, error: unknown): void {
    this.#stream?.destroy();
    this.#stream = null;
    const reason = error instanceof Error ? error.message : String(error);
    this.#owner.record("Warning", `the log of step ${this.#step.id} cannot be written: ${reason} (${path})`);
  }

  /** Text of several lines becomes several records, so that nothing in it can pass for one of ours. */
  #write(severity: LogSeverity, message: string, always = false): void {
    if (this.#stream === null) return;
    const timeMs = this.#owner.clock.now();
    for (const each of this.mask(message).split(/\r?\n/)) {
      const line = formatLine({ timeMs, severity, text: formatText(each) });
      const isFull = this.#bytes > FILE_BYTES_MAX || this.#stream.writableLength > WAITING_BYTES_MAX;
      if (isFull && !always) this.#dropped++;
      else {
        this.#bytes += Buffer.byteLength(line);
        this.#stream.write(line);
      }
    }
  }
}

/** `2026-11-22_20-45-36-123`, in UTC: sorts by time and means the same everywhere. */
function stamp(timeMs: number): string {
  return new Date(timeMs).toISOString().slice(0, 23).replace("T", "_").replaceAll(/[:.]/g, "-");
}

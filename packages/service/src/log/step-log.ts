import { createWriteStream, existsSync, mkdirSync, type WriteStream } from "node:fs";
import { join } from "node:path";
import { counted } from "@lockstep/core";
import type { Clock } from "@lockstep/platform";
import { Mask } from "../components/mask.ts";
import type { LogConfig, LogSeverity } from "../config/types.ts";
import { formatLine, formatText } from "./line.ts";
import { formatParameters, maskForms } from "./masking.ts";
import { SharedTimer } from "./shared-timer.ts";
import type { LoggedStep, StepEnd, StepLogFile } from "./types.ts";

/** What the log of a step needs of the service's log. */
export interface StepLogOwner {
  readonly clock: Clock;
  readonly config: LogConfig;
  readonly debugMode: boolean;
  /** Masks what the whole service keeps secret. */
  readonly mask: (text: string) => string;
  /** Whether the service's own log takes records of this severity. */
  readonly wants: (severity: LogSeverity) => boolean;
  /** Writes into the service's own log. */
  readonly record: (severity: LogSeverity, text: string) => void;
  /** Takes the lines of a step that had nothing to say. */
  readonly quiet: (lines: string) => void;
  /** Steps that have had nothing to say so far. */
  readonly silent: SharedTimer<Silent>;
}

/** A step that has no file of its own yet. */
interface Silent {
  speakUp(): void;
}

/** A step that takes longer gets a file of its own: somebody may want to see what goes on. */
const QUIET_MS = 1000;

/** A step that never stops talking must not fill the disk, nor the memory while the disk is slow. */
const FILE_BYTES_MAX = 64 * 1024 * 1024;
const WAITING_BYTES_MAX = 4 * 1024 * 1024;

/** Gives each step that takes longer its file. */
export function watchSilence(clock: Clock): SharedTimer<Silent> {
  return new SharedTimer(QUIET_MS, clock, (step) => step.speakUp());
}

/**
 * Opens the log of one try of a step. Whatever fails here costs the log and nothing else: the service's log says so
 * once.
 */
export function openStepLog(step: LoggedStep, owner: StepLogOwner): StepLogFile {
  return new StepLogWriter(step, owner);
}

class StepLogWriter implements StepLogFile, Silent {
  readonly #step: LoggedStep;
  readonly #owner: StepLogOwner;
  readonly #secrets = new Mask();
  readonly #startedAt: number;
  /** Lines that are in no file yet; null: it has its file, or none. */
  #kept: string | null;
  #path: string | null = null;
  #stream: WriteStream | null = null;
  #bytes = 0;
  #dropped = 0;

  constructor(step: LoggedStep, owner: StepLogOwner) {
    this.#step = step;
    this.#owner = owner;
    for (const name of step.hidden) this.#secrets.hide(step.parameters[name]);
    if (step.secrets !== undefined) this.#secrets.hide(...step.secrets);
    this.#startedAt = owner.clock.now();
    const isKept = owner.config.jobLogLifeTimeMs !== null;
    this.#kept = isKept ? "" : null;
    if (isKept) owner.silent.add(this);
    this.#start();
  }

  get path(): string | null {
    return this.#path;
  }

  info(message: string): void {
    this.speakUp();
    this.#write("Info", message);
  }

  warn(message: string): void {
    this.speakUp();
    this.#write("Warning", message);
  }

  error(message: string): void {
    this.speakUp();
    this.#write("Serious", message);
  }

  mask(text: string): string {
    return maskForms(this.#secrets.text(this.#owner.mask(text)));
  }

  end({ queue, state, message, output }: StepEnd): void {
    const { component, id } = this.#step;
    const severity = state === "error" ? "Warning" : state === "lost" ? "Serious" : "Info";
    if (state !== "success") this.speakUp();
    this.#owner.silent.delete(this);
    const words = `${queue} - ${component} - ${id}: ${state} ${message}`.trimEnd();
    if (output !== undefined && Object.keys(output).length > 0) {
      // An output may be as long as it likes; and what was hidden going in is hidden coming out.
      const text = `[Output] ${this.#parameters(output)}`;
      this.#write("Info", this.#kept === null ? text : `${id}: ${text}`);
      if (this.#owner.debugMode) this.#owner.record("Info", this.mask(`${words} ${text}`));
    }
    this.#write(severity, words);
    if (this.#dropped > 0)
      this.#write("Warning", `${counted(this.#dropped, "line was", "lines were")} left out`, true);
    if (this.#owner.wants(severity)) this.#owner.record(severity, this.mask(words));
    if (this.#kept !== null) this.#owner.quiet(this.#kept);
    this.#kept = null;
    this.#stream?.end();
    this.#stream = null;
  }

  #start(): void {
    const { id, component, task, execution, parameters, name, process, attempt, claim } = this.#step;
    const { debugMode, wants, record } = this.#owner;
    const isWanted = wants("Info");
    if (this.#kept === null && !isWanted) return;
    const facts =
      `Process step parameter ${id}: [Job] ComponentClass=${component}, Task=${task}, Executiontype=${execution}, ` +
      `Name=${name}, Process=${process.name} (${process.id}), Attempt=${attempt}, Claim=${claim}`;
    const all = `${facts} [Parameters] ${this.#parameters(parameters)}`;
    this.#write("Info", all);
    if (isWanted) record("Info", this.mask(debugMode ? all : facts));
  }

  /** Gives the step a file of its own, with what was kept of it. */
  speakUp(): void {
    if (this.#kept === null) return;
    const kept = this.#kept;
    this.#kept = null;
    this.#path = this.#open();
    this.#bytes += Buffer.byteLength(kept);
    this.#stream?.write(kept);
  }

  #parameters(values: Readonly<Record<string, unknown>>): string {
    const { paramLengthMax } = this.#owner.config;
    return formatParameters(values, this.#step.hidden, paramLengthMax, (text) => this.mask(text));
  }

  #open(): string | null {
    const { config } = this.#owner;
    const id = String(this.#step.id);
    // Of the number with leading zeros: the first four of a short one would make a directory for each step.
    const directory = join(config.jobLogDirectory, id.padStart(8, "0").slice(0, 4));
    const path = join(directory, `Job_${id}_${stamp(this.#startedAt)}.log`);
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
    if (this.#stream === null && this.#kept === null) return;
    const timeMs = this.#owner.clock.now();
    const masked = this.mask(message);
    for (const each of masked.includes("\n") ? masked.split(/\r?\n/) : [masked]) {
      const line = formatLine({ timeMs, severity, text: formatText(each) });
      if (this.#stream === null) {
        this.#kept += line;
        continue;
      }
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

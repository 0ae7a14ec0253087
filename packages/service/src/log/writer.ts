import { dirname } from "node:path";
import { type Clock, type Logger, systemClock } from "@lockstep/platform";
import { Mask } from "../components/mask.ts";
import type { LogConfig, LogSeverity } from "../config/types.ts";
import { type LogFiles, realLogFiles } from "./files.ts";
import { formatLine, formatText, isWorth, parseLine } from "./line.ts";
import { LogFile, type LogPlace } from "./log-file.ts";
import { maskForms } from "./masking.ts";
import { openStepLog } from "./step-log.ts";
import { deleteOldStepLogs } from "./step-log-cleanup.ts";
import type { SystemLog } from "./system-log.ts";
import { readLastLines } from "./tail.ts";
import type { LogFields, LoggedStep, LogProblem, LogRecord, LogWriter, StepLogFile } from "./types.ts";

export interface LogWriterOptions {
  readonly config: LogConfig;
  readonly debugMode: boolean;
  readonly systemLog: SystemLog;
  readonly clock?: Clock;
  readonly files?: LogFiles;
}

/** What the status page can show. */
const RECENT_MAX = 2000;
const CLEANUP_MS = 3_600_000;

/** Opens the service's log. Never throws: what keeps it from being written goes through the system log. */
export function createLogWriter(options: LogWriterOptions): LogWriter {
  return new FileLogWriter(options);
}

/** The service's log as other packages want one. */
export function loggerOf(log: LogWriter, fields: LogFields = {}): Logger {
  const all = (more: LogFields | undefined) => ({ ...fields, ...more });
  return {
    // Nobody asked for what is below Info.
    debug: () => {},
    info: (message, more) => log.info(message, all(more)),
    warn: (message, more) => log.warning(message, all(more)),
    error: (message, more) => log.serious(message, all(more)),
    child: (more) => loggerOf(log, { ...fields, ...more }),
  };
}

class FileLogWriter implements LogWriter {
  readonly #clock: Clock;
  readonly #systemLog: SystemLog;
  readonly #file: LogFile;
  readonly #secrets = new Mask();
  readonly #listeners = new Set<(record: LogRecord) => void>();
  readonly #recent: LogRecord[] = [];
  readonly #cleanup: NodeJS.Timeout;
  readonly #onExit: () => void;
  #config: LogConfig;
  #debugMode: boolean;
  #number = 0;
  #problem: Omit<LogProblem, "lost"> | null = null;

  constructor({ config, debugMode, systemLog, clock = systemClock, files = realLogFiles }: LogWriterOptions) {
    this.#clock = clock;
    this.#systemLog = systemLog;
    this.#config = config;
    this.#debugMode = debugMode;
    this.#recall(config.outputFile);
    this.#file = new LogFile({
      files,
      clock,
      place: placeOf(config),
      onProblem: (problem, lost) => this.#onProblem(problem?.problem ?? null, lost),
    });
    this.#onExit = () => this.#file.writeNow();
    process.once("exit", this.#onExit);
    this.#cleanup = setInterval(() => this.#deleteOld(), CLEANUP_MS);
    this.#cleanup.unref();
    this.#deleteOld();
  }

  info(message: string, fields?: LogFields): void {
    this.#write("Info", message, fields);
  }

  warning(message: string, fields?: LogFields): void {
    this.#write("Warning", message, fields);
  }

  serious(message: string, fields?: LogFields): void {
    this.#write("Serious", message, fields);
  }

  openStep(step: LoggedStep): StepLogFile {
    return openStepLog(step, {
      clock: this.#clock,
      config: this.#config,
      debugMode: this.#debugMode,
      mask: (text) => this.#secrets.text(text),
      record: (severity, text) => this.#write(severity, text),
    });
  }

  hide(secret: string): void {
    this.#secrets.hide(secret);
  }

  recent(): readonly LogRecord[] {
    return this.#recent;
  }

  follow(listener: (record: LogRecord) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  problem(): LogProblem | null {
    return this.#problem === null ? null : { ...this.#problem, lost: this.#file.lost };
  }

  configure(config: LogConfig, debugMode: boolean): void {
    this.#config = config;
    this.#debugMode = debugMode;
    this.#file.move(placeOf(config));
    this.#deleteOld();
  }

  async close(): Promise<void> {
    clearInterval(this.#cleanup);
    await this.#file.close();
    process.removeListener("exit", this.#onExit);
  }

  #write(severity: LogSeverity, message: string, fields?: LogFields): void {
    if (!isWorth(severity, this.#config.severity)) return;
    const text = formatText(message, fields, (each) => maskForms(this.#secrets.text(each)));
    const record = { number: ++this.#number, timeMs: this.#clock.now(), severity, text };
    this.#recent.push(record);
    if (this.#recent.length > RECENT_MAX) this.#recent.splice(0, this.#recent.length - RECENT_MAX);
    this.#file.append(formatLine(record));
    for (const listener of this.#listeners) listener(record);
  }

  /** What an earlier run wrote: whoever looks after a restart wants to see what was before it. */
  #recall(path: string): void {
    for (const line of readLastLines(path, RECENT_MAX / 4)) {
      const record = parseLine(line);
      if (record !== null) this.#recent.push({ number: ++this.#number, ...record });
    }
  }

  #onProblem(problem: string | null, lost: number): void {
    if (problem !== null) {
      this.#problem = { sinceMs: this.#clock.now(), file: this.#config.outputFile, problem };
      this.#systemLog.warning(
        `the log cannot be written as configured; the service works on and tries again: ${problem}. ` +
          `Is ${dirname(this.#config.outputFile)} there, writable and not full?`,
      );
      return;
    }
    const since = this.#problem?.sinceMs ?? this.#clock.now();
    this.#problem = null;
    const missing = lost === 0 ? "nothing is missing" : `${lost} records are missing`;
    this.#systemLog.notice(`the log ${this.#config.outputFile} is written again; ${missing}`);
    this.warning("the log could not be written for a while", {
      since: new Date(since).toISOString(),
      missing: lost,
    });
  }

  #deleteOld(): void {
    const { jobLogDirectory, jobLogLifeTimeMs } = this.#config;
    if (jobLogLifeTimeMs !== null)
      void deleteOldStepLogs(jobLogDirectory, this.#clock.now() - jobLogLifeTimeMs);
  }
}

function placeOf(config: LogConfig): LogPlace {
  return { path: config.outputFile, sizeBytesMax: config.sizeBytesMax, historySize: config.historySize };
}

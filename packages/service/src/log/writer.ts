import { dirname } from "node:path";
import { counted } from "@lockstep/core";
import { type Clock, systemClock } from "@lockstep/platform";
import type { ClusterOrigin } from "@lockstep/protocol/wire";
import { Mask } from "../components/mask.ts";
import type { LogConfig, LogSeverity } from "../config/types.ts";
import { type LogFiles, realLogFiles } from "./files.ts";
import { formatLine, formatText, isWorth, parseLine } from "./line.ts";
import { type FileProblem, LogFile, type LogPlace } from "./log-file.ts";
import { LogOwner } from "./log-owner.ts";
import { maskForms } from "./masking.ts";
import { QuietSteps } from "./quiet-steps.ts";
import { openStepLog, type StepLogOwner, watchSilence } from "./step-log.ts";
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
  /** Under which lease this service runs; null: no cluster, and the log is this machine's own. */
  readonly origin?: ClusterOrigin | null;
}

/** What the status page can show. */
const RECENT_MAX = 2000;
const CLEANUP_MS = 3_600_000;

/** Opens the service's log. Never throws: what keeps it from being written goes through the system log. */
export function createLogWriter(options: LogWriterOptions): LogWriter {
  return new FileLogWriter(options);
}

class FileLogWriter implements LogWriter {
  readonly #clock: Clock;
  readonly #systemLog: SystemLog;
  readonly #file: LogFile;
  readonly #quietSteps: QuietSteps;
  readonly #silentSteps: ReturnType<typeof watchSilence>;
  readonly #secrets = new Mask();
  readonly #listeners = new Set<(record: LogRecord) => void>();
  readonly #recent: LogRecord[] = [];
  readonly #cleanup: NodeJS.Timeout;
  readonly #onExit: () => void;
  readonly #origin: ClusterOrigin | null;
  #config: LogConfig;
  #debugMode: boolean;
  /** What steps that begin under this configuration share; null: none has begun. */
  #steps: StepLogOwner | null = null;
  #number = 0;
  /** Records that this run has given to the file. */
  #count = 0;
  #problem: Omit<LogProblem, "lost"> | null = null;

  constructor(options: LogWriterOptions) {
    const {
      config,
      debugMode,
      systemLog,
      clock = systemClock,
      files = realLogFiles,
      origin = null,
    } = options;
    this.#origin = origin;
    this.#clock = clock;
    this.#systemLog = systemLog;
    this.#config = config;
    this.#debugMode = debugMode;
    this.#recall(config.outputFile);
    this.#file = new LogFile({
      files,
      clock,
      place: placeOf(config),
      owner: origin === null ? null : new LogOwner(files, origin),
      onProblem: (problem, lost) => this.#onProblem(problem, lost),
    });
    this.#silentSteps = watchSilence(clock);
    this.#quietSteps = new QuietSteps({
      files,
      clock,
      directory: config.jobLogDirectory,
      origin,
      onProblem: (problem) => this.#write("Warning", `the logs of steps cannot be written: ${problem}`),
    });
    this.#onExit = () => {
      this.#file.writeNow();
      this.#quietSteps.writeNow();
    };
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
    this.#steps ??= {
      clock: this.#clock,
      config: this.#config,
      debugMode: this.#debugMode,
      mask: (text) => this.#secrets.text(text),
      wants: (severity) => isWorth(severity, this.#config.severity),
      record: (severity, text) => this.#write(severity, text),
      quiet: (lines) => this.#quietSteps.append(lines),
      silent: this.#silentSteps,
    };
    return openStepLog(step, this.#steps);
  }

  hide(secret: string): void {
    this.#secrets.hide(secret);
  }

  recent(): readonly LogRecord[] {
    return this.#recent.slice(-RECENT_MAX);
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
    this.#steps = null;
    this.#file.move(placeOf(config));
    this.#quietSteps.move(config.jobLogDirectory);
    this.#deleteOld();
  }

  async close(): Promise<void> {
    clearInterval(this.#cleanup);
    const [isClosed] = await Promise.all([this.#file.close(), this.#quietSteps.close()]);
    // Whatever hangs now would hang at the very end as well.
    process.removeListener("exit", this.#onExit);
    if (!isClosed)
      this.#systemLog.warning(
        `the log ${this.#config.outputFile} does not answer; the service ends without ${this.#file.waiting} of its records`,
      );
  }

  #write(severity: LogSeverity, message: string, fields?: LogFields): void {
    if (!isWorth(severity, this.#config.severity)) return;
    const text = formatText(message, fields, (each) => maskForms(this.#secrets.text(each)));
    const origin = this.#origin === null ? {} : { origin: { ...this.#origin, count: ++this.#count } };
    const record = { number: ++this.#number, timeMs: this.#clock.now(), ...origin, severity, text };
    this.#recent.push(record);
    // Many at once: with each record, all others would be moved by one place.
    if (this.#recent.length > 2 * RECENT_MAX) this.#recent.splice(0, this.#recent.length - RECENT_MAX);
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

  #onProblem(found: FileProblem | null, lost: number): void {
    if (found !== null) {
      const { problem, isFinal } = found;
      this.#problem = { sinceMs: this.#clock.now(), file: this.#config.outputFile, problem };
      this.#systemLog.warning(
        isFinal
          ? `${problem}. Records that are missing so far: ${lost}`
          : `the log cannot be written as configured; the service works on and tries again: ${problem}. ` +
              `Is ${dirname(this.#config.outputFile)} there, writable and not full?`,
      );
      return;
    }
    const since = this.#problem?.sinceMs ?? this.#clock.now();
    this.#problem = null;
    const missing =
      lost === 0 ? "nothing is missing" : `${counted(lost, "record is", "records are")} missing`;
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

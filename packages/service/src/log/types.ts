import type { ClusterOrigin } from "@lockstep/protocol/wire";
import type { LogConfig, LogSeverity } from "../config/types.ts";

/**
 * The service's log as the engine sees it. No call throws or waits: a log that cannot be written never stops a step.
 * What it could not write it says once through the system log and on the status page, and goes on trying.
 */
export interface LogWriter {
  info(message: string, fields?: LogFields): void;
  warning(message: string, fields?: LogFields): void;
  serious(message: string, fields?: LogFields): void;
  /**
   * Opens the log of one try of a step and writes the start line. It gets a file of its own
   * (`JobLogs/<first 4 of the id in 8 digits>/Job_<id>_<date>_<time>.log`) as soon as there is more to say than that it
   * began and ended well; else its lines go where those of other quiet steps are (quiet-steps.ts). Close it by `end`.
   */
  openStep(step: LoggedStep): StepLogFile;
  /** This text, wherever it turns up, reads `<HIDDEN>` from now on. */
  hide(secret: string): void;
  /** The last records in memory, oldest first, whatever the file could hold. */
  recent(): readonly LogRecord[];
  /** Calls back for each record from now on. Returns how to end that. */
  follow(listener: (record: LogRecord) => void): () => void;
  /** What keeps the log from being written; null: nothing. */
  problem(): LogProblem | null;
  /** Changed settings take effect with the next record. */
  configure(config: LogConfig, debugMode: boolean): void;
  /**
   * Flushes and closes, within seconds: what a volume that hangs does not take by then is lost, and the system log says
   * so.
   */
  close(): Promise<void>;
}

export type LogFields = Readonly<Record<string, unknown>>;

/**
 * Where a record of a virtual server's log comes from. `count` grows by one with each record that this run of the service
 * writes, from 1 on: what is missing, comes twice or stands at a wrong place shows in the file itself.
 */
interface LogOrigin extends ClusterOrigin {
  readonly count: number;
}

export interface LogRecord {
  /** Grows by one with each record of this run. */
  readonly number: number;
  readonly timeMs: number;
  readonly severity: LogSeverity;
  /** In a cluster: on which node and under which fencing token. */
  readonly origin?: LogOrigin;
  /** One line, masked and free of control characters, fields included. */
  readonly text: string;
}

export interface LogProblem {
  readonly sinceMs: number;
  readonly file: string;
  readonly problem: string;
  /** Records that reached neither the file nor a later try. */
  readonly lost: number;
}

/** What the start line says of a step. ClaimedStep of the protocol fits. */
export interface LoggedStep {
  readonly id: number;
  readonly claim: number;
  readonly attempt: number;
  readonly process: { readonly id: number; readonly name: string };
  readonly name: string;
  readonly component: string;
  readonly task: string;
  readonly execution: "internal" | "external";
  readonly parameters: Readonly<Record<string, unknown>>;
  /** Names of the parameters whose values must never be shown. */
  readonly hidden: readonly string[];
  /** Further texts that must never be shown: hidden values that were put into longer ones. */
  readonly secrets?: readonly string[] | undefined;
  readonly priority: number;
}

/** What a component writes into the log of its step. */
export interface StepLog {
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}

export interface StepLogFile extends StepLog {
  /** Null: single steps have no logs, this one has no file of its own so far, or it could not be opened. */
  readonly path: string | null;
  /** The values of this step's hidden parameters, in any text of it, read `<HIDDEN>`. */
  mask(text: string): string;
  /** Writes the end line, `<queue> - <component> - <id>: <state> <message>`, here and into the service's log. */
  end(result: StepEnd): void;
}

export interface StepEnd {
  readonly queue: string;
  readonly state: "success" | "error" | "deferred" | "given-back" | "lost";
  readonly message: string;
  readonly output?: Readonly<Record<string, unknown>> | undefined;
}

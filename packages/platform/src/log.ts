import type { Clock } from "./clock.ts";

/**
 * The log of a program as records: a message that stays the same, and fields that say what differs. Machines get one
 * JSON document a line, people one line of text. An error is written with its code and all its causes.
 */
export type LogLevel = "debug" | "info" | "warn" | "error";
export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** A logger that adds these fields to each of its records. */
  child(fields: LogFields): Logger;
}

export interface LogOptions {
  /** Records below this level are dropped. */
  readonly level: LogLevel;
  readonly format: "json" | "text";
  /** Takes one line with its line feed. */
  readonly write: (line: string) => void;
  readonly clock: Pick<Clock, "now">;
}

const LEVELS: readonly LogLevel[] = ["debug", "info", "warn", "error"];

/** Reads the name of a level. Returns null when it is none. */
export function parseLogLevel(text: string): LogLevel | null {
  return LEVELS.find((level) => level === text.toLowerCase()) ?? null;
}

/** Makes a logger. */
export function createLogger(options: LogOptions, fields: LogFields = {}): Logger {
  const lowest = LEVELS.indexOf(options.level);
  const record =
    (level: LogLevel) =>
    (message: string, more: LogFields = {}) => {
      if (LEVELS.indexOf(level) < lowest) return;
      const time = new Date(options.clock.now()).toISOString();
      const all = { ...fields, ...more };
      options.write(
        options.format === "json"
          ? `${JSON.stringify({ time, level, message, ...describeFields(all) })}\n`
          : `${time} ${level.padEnd(5)} ${message}${formatFields(describeFields(all))}\n`,
      );
    };
  return {
    debug: record("debug"),
    info: record("info"),
    warn: record("warn"),
    error: record("error"),
    child: (more) => createLogger(options, { ...fields, ...more }),
  };
}

/** A logger that drops everything. */
export const silentLogger: Logger = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => silentLogger,
};

const CAUSES_MAX = 8;

/** An error as fields: message, code, and the causes below it, outermost first. */
export function describeError(error: unknown): LogFields {
  if (!(error instanceof Error)) return { message: String(error) };
  const causes: string[] = [];
  for (let cause = error.cause; cause !== undefined && causes.length < CAUSES_MAX; ) {
    causes.push(cause instanceof Error ? `${codeOf(cause)}${cause.message}` : String(cause));
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  return {
    ...("code" in error ? { code: error.code } : {}),
    message: error.message,
    ...(causes.length === 0 ? {} : { causes }),
    // The place matters only where nobody foresaw the error; expected ones carry a code.
    ...("code" in error ? {} : { stack: error.stack }),
  };
}

function codeOf(error: Error): string {
  return "code" in error && typeof error.code === "string" && !error.message.startsWith(error.code)
    ? `${error.code}: `
    : "";
}

function describeFields(fields: LogFields): LogFields {
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [
      name,
      value instanceof Error ? describeError(value) : typeof value === "bigint" ? String(value) : value,
    ]),
  );
}

function formatFields(fields: LogFields): string {
  return Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` ${name}=${formatValue(value)}`)
    .join("");
}

/** Bare where that can be read back, else as JSON: a line feed in a value must not forge a second record. */
function formatValue(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return typeof value === "string" && !/^[^\s"=\p{C}]+$/u.test(text) ? JSON.stringify(text) : text;
}

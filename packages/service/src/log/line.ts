import { describeError, printable } from "@lockstep/platform";
import type { LogSeverity } from "../config/types.ts";
import type { LogFields, LogRecord } from "./types.ts";

export const SEVERITIES: readonly LogSeverity[] = ["Info", "Warning", "Serious"];

/** More than this of one record is cut: a log is read by people. */
const TEXT_LENGTH_MAX = 32_768;

/** Whether a record of this severity is one that somebody wants who asked for `lowest` and above. */
export function isWorth(severity: LogSeverity, lowest: LogSeverity): boolean {
  return SEVERITIES.indexOf(severity) >= SEVERITIES.indexOf(lowest);
}

/**
 * Message and fields in one line without control characters, so that nothing can forge a second record. Masked before
 * it is cut: half a secret is no longer known as one.
 */
export function formatText(
  message: string,
  fields: LogFields = {},
  mask: (text: string) => string = (text) => text,
): string {
  const words = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` ${name}=${formatValue(value instanceof Error ? describeError(value) : value)}`);
  return cut(printable(mask(`${message}${words.join("")}`)), TEXT_LENGTH_MAX);
}

/** Bare where that can be read back, else as JSON. */
export function formatValue(value: unknown): string {
  if (typeof value === "string" && /^[^\s"=\p{C}]+$/u.test(value)) return value;
  return (
    JSON.stringify(value, (_, each: unknown) => (typeof each === "bigint" ? String(each) : each)) ??
    "undefined"
  );
}

/** A text of at most so many characters, with a word on what is missing. Never cuts a character in two. */
export function cut(text: string, lengthMax: number): string {
  if (text.length <= lengthMax) return text;
  const kept = text.slice(0, lengthMax).replace(/[\uD800-\uDBFF]$/, "");
  return `${kept}… (${text.length - kept.length} more characters)`;
}

/** The line of a record in the file: time, severity in a column of its own, text. */
export function formatLine(record: Pick<LogRecord, "timeMs" | "severity" | "text">): string {
  return `${new Date(record.timeMs).toISOString()} ${record.severity.padEnd(7)} ${record.text}\n`;
}

/** Reads a line of the file, with or without its line end. Null when it is none of ours. */
export function parseLine(line: string): Pick<LogRecord, "timeMs" | "severity" | "text"> | null {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (Info|Warning|Serious) +(.*)$/.exec(
    line.trimEnd(),
  );
  const severity = SEVERITIES.find((each) => each === match?.[2]);
  const timeMs = Date.parse(match?.[1] ?? "");
  return severity === undefined || Number.isNaN(timeMs) ? null : { timeMs, severity, text: match?.[3] ?? "" };
}

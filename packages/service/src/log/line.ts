import { describeError, printable } from "@lockstep/platform";
import type { LogSeverity } from "../config/types.ts";
import type { LogFields, LogRecord } from "./types.ts";

export const SEVERITIES: readonly LogSeverity[] = ["Info", "Warning", "Serious"];

/** The severity that somebody means, whatever the case of the letters; null: none. */
export function findSeverity(text: string): LogSeverity | null {
  return SEVERITIES.find((each) => each.toLowerCase() === text.toLowerCase()) ?? null;
}

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

/** The line of a record in the file: time, in a cluster node, term and count, severity in a column of its own, text. */
export function formatLine({ timeMs, origin, severity, text }: Omit<LogRecord, "number">): string {
  const place = origin === undefined ? "" : `${origin.node}/${origin.term}.${origin.count} `;
  return `${timeText(timeMs)} ${place}${severity.padEnd(7)} ${text}\n`;
}

let lastTime = { ms: 0, text: "" };

/** Many lines are of the same millisecond, and its text takes longer to make than the rest of them. */
function timeText(ms: number): string {
  if (lastTime.ms !== ms || lastTime.text === "") lastTime = { ms, text: new Date(ms).toISOString() };
  return lastTime.text;
}

/** Reads a line of the file, with or without its line end. Null when it is none of ours. */
export function parseLine(line: string): Omit<LogRecord, "number"> | null {
  const match = LINE.exec(line.trimEnd());
  const [, time = "", node, term, count, word, text = ""] = match ?? [];
  const severity = SEVERITIES.find((each) => each === word);
  const timeMs = Date.parse(time);
  if (severity === undefined || Number.isNaN(timeMs)) return null;
  const record = { timeMs, severity, text };
  return node === undefined
    ? record
    : { ...record, origin: { node, term: Number(term), count: Number(count) } };
}

const LINE =
  /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (?:([^\s/]+)\/(\d+)\.(\d+) )?(Info|Warning|Serious) +(.*)$/;

import type { LogSeverity } from "../config/types.ts";
import { findSeverity, isWorth } from "../log/line.ts";
import type { LogRecord } from "../log/types.ts";

/** Which records somebody wants to see. */
export interface LogFilter {
  readonly severity: LogSeverity;
  /** A part of the text, whatever its case. */
  readonly text: string;
}

/** Reads `?severity=Warning&text=…`. What makes no sense filters nothing. */
export function readFilter(query: URLSearchParams): LogFilter {
  return {
    severity: findSeverity(query.get("severity") ?? "") ?? "Info",
    text: (query.get("text") ?? "").slice(0, 200),
  };
}

export function isWanted(record: Pick<LogRecord, "severity" | "text">, filter: LogFilter): boolean {
  return (
    isWorth(record.severity, filter.severity) && record.text.toLowerCase().includes(filter.text.toLowerCase())
  );
}

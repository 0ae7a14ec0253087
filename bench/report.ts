import type { Measured } from "./harness.ts";

/** A figure held against a goal of docs/benchmarks.md. */
export interface Finding {
  readonly what: string;
  readonly found: number;
  /** The goal: at most this. */
  readonly goal: number;
  readonly unit: string;
}

/** What one benchmark found. */
export interface Report {
  readonly title: string;
  /** What was compared with what, on which input. */
  readonly text: string;
  readonly measured: readonly Measured[];
  readonly findings: readonly Finding[];
}

/** One line for a finding, met or missed, with both values. */
export function formatFinding({ what, found, goal, unit }: Finding): string {
  const verdict = found <= goal ? "met" : `missed by ${Math.round((found / goal - 1) * 100)} %`;
  return `| ${what} | ${Number(found.toPrecision(3))}${unit} | at most ${goal}${unit} | ${verdict} |`;
}

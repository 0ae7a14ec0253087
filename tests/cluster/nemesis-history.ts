import { readFileSync, writeFileSync } from "node:fs";
import type { HistoryEntry, LeaseTimes } from "@lockstep/core";
import type { ProbeRecord } from "../support/lab-probe.ts";
import type { TruthSample } from "../support/lab-truth.ts";
import type { ArrivedWrite } from "./hosts-witness.ts";

/**
 * All that was to be seen while faults were made, and nothing that was concluded: one file, which can be judged again and
 * by others. All times are CLOCK_MONOTONIC of the one machine that all hosts are, but for those of the agents' notes.
 */
export interface NemesisHistory {
  readonly nemesis: string;
  readonly seed: number;
  readonly nodes: readonly string[];
  readonly lease: LeaseTimes;
  /** Wall clock less monotonic clock when it ended: puts the agents' notes in. */
  readonly wallLessMonotonicMs: number;
  readonly rounds: readonly NemesisRound[];
  readonly truth: readonly TruthSpan[];
  readonly client: readonly ProbeRecord[];
  readonly notes: readonly HistoryEntry[];
  /** What the receiver has, and what services were told that it has (`writer` and `number`). */
  readonly arrived: readonly ArrivedWrite[];
  readonly acknowledged: readonly string[];
}

export interface NemesisRound {
  /** What was done, in words, with the node that it was done to. */
  readonly what: string;
  readonly node: string;
  readonly faultAt: number;
  readonly healedAt: number;
  /** When exactly one node had the address again and a client was answered by it; null: never while it was waited. */
  readonly servedAt: number | null;
  /** The node that the client's neighbour entry points to then. */
  readonly neighbour: string | null;
  /** Hosts whose kernel stood still or had no power, and until when: nothing that /proc says of them meanwhile is true. */
  readonly absent: readonly { readonly node: string; readonly from: number; readonly to: number }[];
  /** Hashes of the settings at the end: as the owner has them, and as the store has them. */
  readonly settings: { readonly owner: string | null; readonly store: string | null } | null;
  readonly configHashes: readonly (string | null)[];
}

/** The truth from one look to the last that saw the same. */
export interface TruthSpan {
  readonly from: number;
  readonly to: number;
  readonly owners: readonly string[];
  readonly listeners: readonly string[];
}

/** What was so on the nodes, in spans instead of looks; what others plant is none of theirs. */
export function toSpans(
  samples: readonly TruthSample[],
  nodes: readonly string[],
  address: string,
  port: number,
): TruthSpan[] {
  const spans: TruthSpan[] = [];
  for (const { at, owners, listeners } of samples) {
    const found = {
      owners: (owners[address] ?? []).filter((host) => nodes.includes(host)),
      listeners: (listeners[port] ?? []).map(({ host }) => host).filter((host) => nodes.includes(host)),
    };
    const last = spans.at(-1);
    if (last !== undefined && `${last.owners}|${last.listeners}` === `${found.owners}|${found.listeners}`)
      spans[spans.length - 1] = { ...last, to: at };
    else spans.push({ from: at, to: at, ...found });
  }
  return spans;
}

export function writeHistory(file: string, history: NemesisHistory): void {
  writeFileSync(file, `${JSON.stringify(history)}\n`);
}

export const readHistory = (file: string): NemesisHistory =>
  JSON.parse(readFileSync(file, "utf8")) as NemesisHistory;

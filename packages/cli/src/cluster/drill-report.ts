import type { DrillLoss, DrillOutage, DrillSight, DrillVerdict, HistoryEntry } from "@lockstep/core";
import { printable } from "@lockstep/platform";
import { formatDuration } from "../screen/format.ts";
import type { Output } from "../screen/output.ts";
import type { OutageEstimate } from "./prediction.ts";

/** What a drill found: the document of `--json` and of a report file. */
export interface DrillReport {
  readonly format: "lockstep-drill-report/1";
  readonly cluster: string;
  readonly virtualServer: string;
  readonly loss: DrillLoss;
  readonly lastsMs: number;
  /** Wall-clock milliseconds. */
  readonly at: number;
  readonly by: string;
  /** What the client asked; null: nothing was asked. */
  readonly probe: string | null;
  /** What `move --dry-run` said before. */
  readonly predicted: { readonly to: string | null; readonly moveOutage: OutageEstimate };
  readonly passed: boolean;
  /** Fewer rounds than were asked for. */
  readonly isInterrupted: boolean;
  readonly rounds: readonly DrillRound[];
}

export interface DrillRound {
  readonly number: number;
  readonly victim: string;
  /** Null: it was not online again. */
  readonly recoveredOn: string | null;
  readonly tokens: { readonly before: number | null; readonly after: number | null };
  /** From the first failed question to the first answer after; null: nothing was asked. */
  readonly outage: DrillOutage | null;
  /** As the nodes' own reports showed it, from the beginning of the loss to all online again; milliseconds. */
  readonly reportedMs: number | null;
  /** Of the way back, when it was moved to its former owner; null: it was there, or nothing was asked. */
  readonly wayBack: { readonly to: string; readonly outage: DrillOutage | null } | null;
  readonly passed: boolean;
  readonly verdicts: readonly DrillVerdict[];
  readonly sights: readonly DrillSight[];
  readonly timeline: readonly DrillStep[];
}

/** Milliseconds since the order was given; by the nodes' clocks where it is theirs. */
export interface DrillStep extends Pick<HistoryEntry, "node" | "token" | "what" | "detail"> {
  readonly ms: number;
}

export const LOSS_WORDS: Readonly<Record<DrillLoss, string>> = {
  service: "its service is killed",
  daemon: "the daemon of its node is killed",
  node: "its node is lost: daemon, guards, services and addresses at one blow",
  network: "its node is cut off from the network",
  store: "its node is cut off from the store",
};

/** The report as text; the HTML and the JSON hold more. */
export function printDrill(output: Output, report: DrillReport): void {
  for (const line of drillText(report, (ok, text) => output.paintData(ok ? "green" : "red", text)))
    output.line(line);
}

export function drillText(
  report: DrillReport,
  paint: (ok: boolean, text: string) => string = (_, text) => text,
): string[] {
  const { virtualServer, cluster, loss, rounds, predicted } = report;
  const lines = [
    `drill  ${printable(virtualServer)} in ${printable(cluster)}: ${LOSS_WORDS[loss]}`,
    `asked  ${report.probe ?? "nothing: no address and port are known (--probe names them)"}`,
  ];
  for (const round of rounds) {
    const there = round.recoveredOn === null ? "not online again" : `online on ${round.recoveredOn}`;
    lines.push(
      "",
      `round ${round.number}  ${printable(round.victim)} -> ${printable(there)}, ${outageWords(round.outage, round.reportedMs)}`,
      ...round.verdicts.map(
        ({ name, ok, detail }) =>
          `  ${paint(ok, ok ? "ok  " : "FAIL")}  ${name.padEnd(33)} ${printable(detail)}`,
      ),
    );
    if (round.wayBack !== null)
      lines.push(
        `        back to ${printable(round.wayBack.to)} by a planned move, ${outageWords(round.wayBack.outage, null)}`,
      );
  }
  const { ms, basis } = predicted.moveOutage;
  lines.push(
    "",
    `a planned move was predicted to take ${ms === null ? `a time that nobody has measured yet (${printable(basis)})` : formatDuration(ms)}`,
    `${paint(report.passed, report.passed ? "passed" : "FAILED")}${report.isInterrupted ? ", interrupted" : ""}`,
  );
  return lines;
}

export function outageWords(outage: DrillOutage | null, reportedMs: number | null): string {
  if (outage !== null)
    return outage.failed === 0 ? "no question failed" : `${formatDuration(outage.ms)} without an answer`;
  return reportedMs === null ? "not measured" : `about ${formatDuration(reportedMs)} by the nodes' reports`;
}

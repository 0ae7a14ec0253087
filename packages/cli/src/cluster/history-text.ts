import type { HistoryEntry } from "@lockstep/core";
import { printable, type Style } from "@lockstep/platform";
import type { Output } from "../screen/output.ts";

/** Words that a reader looks for first. */
const STYLES: Readonly<Record<string, Style>> = {
  took: "green",
  online: "green",
  lost: "red",
  "resource-failed": "red",
  quarantined: "red",
  "node-down": "red",
  failover: "yellow",
  stays: "yellow",
  "config-differs": "yellow",
  order: "cyan",
};

/**
 * One line an entry: time, node, virtual server, token, what, detail; separated by tabs for a pipe, as one document each
 * for `--json`. Milliseconds, because what happens in a cluster happens within them.
 */
export function printHistory(output: Output, entries: readonly HistoryEntry[]): void {
  for (const entry of entries) {
    output.document(entry);
    output.line(output.data.interactive ? formatEntry(output, entry) : formatRow(entry));
  }
}

const timeOf = ({ at }: HistoryEntry) => new Date(at).toISOString().replace("T", " ");

function formatRow(entry: HistoryEntry): string {
  const { node, server, token, what, detail } = entry;
  const cells = [timeOf(entry), node, server ?? "-", token === null ? "-" : String(token), what, detail];
  return cells.map((cell) => printable(cell)).join("\t");
}

const NODE_WIDTH = 10;
const SERVER_WIDTH = 12;
const WHAT_WIDTH = 16;

/** An entry as people read it. */
function formatEntry(output: Output, entry: HistoryEntry): string {
  const { node, server, token, what, detail } = entry;
  const style = STYLES[what];
  const word = printable(what).padEnd(WHAT_WIDTH);
  return [
    output.paintData("dim", timeOf(entry)),
    printable(node).padEnd(NODE_WIDTH),
    printable(`${server ?? "-"}${token === null ? "" : ` #${token}`}`).padEnd(SERVER_WIDTH),
    style === undefined ? word : output.paintData(style, word),
    printable(detail),
  ]
    .join("  ")
    .trimEnd();
}

/** An entry as a step of something that is being followed: without date and virtual server. */
export function formatStep(output: Output, { at, node, token, what, detail }: HistoryEntry): string {
  const style = STYLES[what];
  const word = printable(what).padEnd(WHAT_WIDTH);
  return [
    output.paintRemark("dim", new Date(at).toISOString().slice(11, 23)),
    printable(`${node}${token === null ? "" : ` #${token}`}`).padEnd(SERVER_WIDTH),
    style === undefined ? word : output.paintRemark(style, word),
    printable(detail),
  ]
    .join("  ")
    .trimEnd();
}

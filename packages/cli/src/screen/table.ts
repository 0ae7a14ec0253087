import { printable } from "@lockstep/platform";
import type { Output } from "./output.ts";

export interface Column {
  readonly title: string;
  readonly align?: "left" | "right";
  /** May be cut where the terminal is too narrow for the whole table. */
  readonly shrinks?: boolean;
}

/**
 * Prints rows as data. A person gets aligned columns below a heading; a pipe gets the same columns separated by tabs,
 * one row a line and no heading, so that cut and wc work. `paintCell` may colour a cell that has its final width.
 */
export function printTable(
  output: Output,
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  paintCell: (cell: string, column: number) => string = (cell) => cell,
): void {
  const safe = rows.map((row) => row.map((cell) => printable(cell)));
  if (!output.data.interactive) {
    for (const row of safe) output.line(row.join("\t"));
    return;
  }
  const widths = columns.map((column, index) =>
    // Not spread into one call: a table may have more rows than a call may have arguments.
    safe.reduce((width, row) => Math.max(width, displayWidth(row[index] ?? "")), column.title.length),
  );
  shrinkColumns(columns, widths, output.data.columns);
  const format = (cells: readonly string[], painted: typeof paintCell) =>
    cells
      .map((whole, index) => {
        const cell = fitText(whole, widths[index] ?? 0);
        const space = " ".repeat(Math.max(0, (widths[index] ?? 0) - displayWidth(cell)));
        const last = index === cells.length - 1;
        const full = columns[index]?.align === "right" ? space + cell : last ? cell : cell + space;
        return painted(full, index);
      })
      .join("  ");
  const plain = (cell: string) => cell;
  output.line(
    output.paintData(
      "bold",
      format(
        columns.map((column) => column.title),
        plain,
      ),
    ),
  );
  for (const row of safe) output.line(format(row, paintCell));
}

const SHRUNK_WIDTH_MIN = 6;

/** Narrows the columns that allow it, the widest first, until the table fits. Else lines run over. */
function shrinkColumns(columns: readonly Column[], widths: number[], room: number): void {
  const shrinking = columns.flatMap(({ shrinks }, index) => (shrinks === true ? [index] : []));
  const total = () => widths.reduce((sum, width) => sum + width + 2, -2);
  for (let over = total() - room; over > 0; over = total() - room) {
    const [widest, second] = shrinking.sort((a, b) => (widths[b] ?? 0) - (widths[a] ?? 0));
    const width = widest === undefined ? 0 : (widths[widest] ?? 0);
    if (widest === undefined || width <= SHRUNK_WIDTH_MIN) return;
    const next = second === undefined ? 0 : (widths[second] ?? 0);
    widths[widest] = Math.max(SHRUNK_WIDTH_MIN, width - over, Math.min(next, width - 1));
  }
}

/** A text cut to so many columns of a terminal. */
export function fitText(text: string, width: number): string {
  if (displayWidth(text) <= width) return text;
  let cut = "";
  let used = 0;
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    used += displayWidth(segment);
    if (used > width - 1) break;
    cut += segment;
  }
  return `${cut}…`;
}

/** Columns of a terminal that a text takes: wide East Asian characters and emoji take two, combining marks none. */
export function displayWidth(text: string): number {
  if (/^[\x20-\x7e]*$/.test(text)) return text.length;
  let width = 0;
  for (const { segment } of new Intl.Segmenter().segment(text))
    width +=
      /\p{Emoji_Presentation}|[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]/u.test(
        segment,
      )
        ? 2
        : 1;
  return width;
}

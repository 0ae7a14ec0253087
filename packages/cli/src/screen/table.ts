import { printable } from "@lockstep/platform";
import type { Output } from "./output.ts";

export interface Column {
  readonly title: string;
  readonly align?: "left" | "right";
}

/**
 * Prints rows as data. A person gets aligned columns below a heading; a pipe gets the same columns separated by tabs,
 * one row a line and no heading, so that cut and wc work.
 */
export function printTable(
  output: Output,
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
): void {
  const safe = rows.map((row) => row.map((cell) => printable(cell)));
  if (!output.data.interactive) {
    for (const row of safe) output.line(row.join("\t"));
    return;
  }
  const widths = columns.map((column, index) =>
    Math.max(column.title.length, ...safe.map((row) => displayWidth(row[index] ?? ""))),
  );
  const format = (cells: readonly string[]) =>
    cells
      .map((cell, index) => {
        const space = " ".repeat(Math.max(0, (widths[index] ?? 0) - displayWidth(cell)));
        const last = index === cells.length - 1;
        return columns[index]?.align === "right" ? space + cell : last ? cell : cell + space;
      })
      .join("  ");
  output.line(output.paintData("bold", format(columns.map((column) => column.title))));
  for (const row of safe) output.line(format(row));
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

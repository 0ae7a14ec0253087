import { stripVTControlCharacters } from "node:util";
import { describeTerminal, paint, type Style, type Terminal } from "@lockstep/platform";

/**
 * What the demonstration shows: headings, sentences, the commands that it runs, and lines that move while something is
 * under way. On a terminal the moving lines repaint themselves; in a log they are written when they say something new.
 */
export class Screen {
  readonly terminal: Terminal;
  readonly #write: (text: string) => void;
  #step = 0;
  #painted = 0;
  readonly #logged = new Set<string>();

  constructor(
    terminal: Terminal = describeTerminal(process.stdout, process.env),
    write: (text: string) => void = (text) => process.stdout.write(text),
  ) {
    this.terminal = terminal;
    this.#write = write;
  }

  paint(style: Style, text: string): string {
    return paint(this.terminal, style, text);
  }

  title(text: string): void {
    this.#write(`\n${this.paint("bold", text)}\n`);
  }

  heading(text: string): void {
    this.#step++;
    this.#write(`\n${this.paint("cyan", `${this.#step}`)}  ${this.paint("bold", text)}\n`);
  }

  /** A sentence, wrapped to the width of the terminal. */
  say(text: string): void {
    const width = Math.min(this.terminal.columns, 100) - 4;
    let line = "";
    for (const word of text.split(" ")) {
      if (line !== "" && line.length + word.length + 1 > width) {
        this.#write(`   ${line}\n`);
        line = "";
      }
      line += line === "" ? word : ` ${word}`;
    }
    this.#write(`   ${line}\n`);
  }

  /** A command as a person would type it. */
  command(text: string): void {
    this.#write(`   ${this.paint("dim", `$ ${text}`)}\n`);
  }

  /** What a command had to say besides its result. */
  remark(line: string): void {
    this.#write(`   ${this.paint("dim", line)}\n`);
  }

  ok(text: string): void {
    this.#write(`   ${this.paint("green", "ok")}  ${text}\n`);
  }

  wrong(text: string): void {
    this.#write(`   ${this.paint("red", "WRONG")}  ${text}\n`);
  }

  /** Rows in columns; the first column is left-aligned, the others are right-aligned. */
  table(rows: readonly (readonly string[])[]): void {
    const widths = (rows[0] ?? []).map((_, column) =>
      Math.max(...rows.map((row) => (row[column] ?? "").length)),
    );
    for (const row of rows) {
      const cells = row.map((cell, column) =>
        column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
      );
      this.#write(`   ${cells.join("   ").trimEnd()}\n`);
    }
  }

  /**
   * Shows one line for each name in place of those shown before. A log cannot take back what it shows: there each line
   * appears once, when its name is among the finished ones.
   */
  live(lines: ReadonlyMap<string, string>, finished: ReadonlySet<string>): void {
    if (this.terminal.interactive) {
      this.#erase();
      const width = this.terminal.columns - 1;
      for (const line of lines.values()) this.#write(`${fit(`   ${line}`, width)}\n`);
      this.#painted = lines.size;
      return;
    }
    for (const [name, line] of lines)
      if (finished.has(name) && !this.#logged.has(name)) {
        this.#logged.add(name);
        this.#write(`   ${line}\n`);
      }
  }

  /** Ends moving lines: what stands there stays. */
  settle(): void {
    this.#painted = 0;
    this.#logged.clear();
  }

  #erase(): void {
    if (this.#painted > 0) this.#write(`\u001b[${this.#painted}A\u001b[0J`);
    this.#painted = 0;
  }

  bar(part: number, width = 28): string {
    const full = Math.round(Math.min(1, Math.max(0, part)) * width);
    return `${this.paint("green", "━".repeat(full))}${this.paint("dim", "─".repeat(width - full))}`;
  }
}

/** A line that wraps would break the repainting, so a narrow terminal gets less, and without colours. */
function fit(line: string, width: number): string {
  const plain = stripVTControlCharacters(line);
  return plain.length > width ? plain.slice(0, width) : line;
}

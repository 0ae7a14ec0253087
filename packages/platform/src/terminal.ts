/** What a stream can show: asked once at the start, then passed on as a value. */
export interface Terminal {
  /** A person looks at it: questions and moving progress make sense. */
  readonly interactive: boolean;
  readonly columns: number;
  readonly color: boolean;
}

export interface TerminalStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
}

const COLUMNS_DEFAULT = 80;

/**
 * Looks at a stream and the environment. NO_COLOR (no-color.org), FORCE_COLOR and TERM=dumb are honoured; CI counts
 * as not interactive, since nobody answers there.
 */
export function describeTerminal(
  stream: TerminalStream,
  env: Readonly<Record<string, string | undefined>>,
): Terminal {
  const isTerminal = stream.isTTY === true;
  const set = (name: string) => env[name] !== undefined && env[name] !== "";
  const dumb = env.TERM === "dumb";
  const color = set("NO_COLOR") ? false : set("FORCE_COLOR") ? env.FORCE_COLOR !== "0" : isTerminal && !dumb;
  const columns = Number(stream.columns ?? env.COLUMNS);
  return {
    interactive: isTerminal && !dumb && !set("CI"),
    columns: Number.isInteger(columns) && columns > 0 ? columns : COLUMNS_DEFAULT,
    color,
  };
}

const STYLES = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  cyan: [36, 39],
} as const;
export type Style = keyof typeof STYLES;

/** Colours a text where the terminal shows colours; else returns it as it is. */
export function paint(terminal: Pick<Terminal, "color">, style: Style, text: string): string {
  if (!terminal.color) return text;
  const [open, close] = STYLES[style];
  return `\u001b[${open}m${text}\u001b[${close}m`;
}

/**
 * Makes a text from outside safe to print: control characters, which could move the cursor, recolour or rename the
 * window, become visible escapes. Line feeds too, unless they are kept on purpose.
 */
export function printable(text: string, keep: "lines" | "nothing" = "nothing"): string {
  // Looked for first: nearly every text is plain, and to know that takes a tenth of the time.
  if (!/[^\x20-\x7e]/.test(text)) return text;
  return text.replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (character) =>
    keep === "lines" && character === "\n"
      ? character
      : `\\u${(character.codePointAt(0) ?? 0).toString(16).padStart(4, "0")}`,
  );
}

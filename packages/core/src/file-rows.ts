import { FILE_MODE_MAX, type FileEntry } from "./file.ts";

/**
 * Files as rows of text, the way manifests and InstallState.config hold them: one JSON array
 * `["path",size,"sha256",mode,backup]` a line, without white space, ordered by path.
 *
 * JSON.parse would make an array and five values of each row first; for 43,000 files that is most of the memory and half
 * of the time of an update. This reader takes the rows from the text as they are, and shares the text's memory. It knows
 * only the spelling that `formatRow` writes, and says null for everything else: the caller then finds out why, slowly.
 */

/** One file as one row, without a line end. */
export function formatRow(entry: FileEntry): string {
  return `[${JSON.stringify(entry.path)},${entry.size},"${entry.sha256}",${entry.mode},${entry.backup ? 1 : 0}]`;
}

/** Entries read, and where the text goes on behind the last row. */
export interface ReadRows {
  readonly entries: FileEntry[];
  readonly end: number;
}

const LINE_FEED = 0x0a;
const QUOTE = 0x22;
const COMMA = 0x2c;
const BRACKET_OPEN = 0x5b;
const BRACKET_CLOSE = 0x5d;
const BACKSLASH = 0x5c;
const DIGEST_LENGTH = 64;
const HEX = /[0-9a-f]{64}/y;
/** What JSON must escape, and halves of pairs: where a text holds none of it, each path ends at the next quotation mark. */
const SPECIAL = /[^\n\u0020-\u005b\u005d-\ud7ff\ue000-\uffff]/;

/**
 * Reads rows from `start` on: each at the beginning of a line, all but the last followed by `separator` and a line feed.
 * Ends behind the line feed of the last row. Null when a row is not as `formatRow` writes it or out of order.
 */
export function readRows(text: string, start: number, separator: "" | ","): ReadRows | null {
  const entries: FileEntry[] = [];
  const plain = !SPECIAL.test(text);
  let at = start;
  let previous = "";
  while (text.charCodeAt(at) === BRACKET_OPEN) {
    if (text.charCodeAt(at + 1) !== QUOTE) return null;
    const plainEnd = plain ? text.indexOf('"', at + 2) : -1;
    const { path, end } =
      plainEnd === -1
        ? (unescapePath(text, at + 1) ?? NO_PATH)
        : { path: text.slice(at + 2, plainEnd), end: plainEnd + 1 };
    if (text.charCodeAt(end) !== COMMA) return null;
    // A line end may stand between rows alone, so the look at the whole text let it pass.
    if (path <= previous || (plainEnd !== -1 && path.includes("\n"))) return null;
    previous = path;
    at = end;

    const size = readNumber(text, at + 1);
    if (size === null || text.charCodeAt(size.end) !== COMMA || text.charCodeAt(size.end + 1) !== QUOTE)
      return null;
    const digest = size.end + 2;
    if (!isHex(text, digest)) return null;
    at = digest + DIGEST_LENGTH;
    if (text.charCodeAt(at) !== QUOTE || text.charCodeAt(at + 1) !== COMMA) return null;
    const mode = readNumber(text, at + 2);
    if (mode === null || mode.value > FILE_MODE_MAX || text.charCodeAt(mode.end) !== COMMA) return null;
    const backup = text.charCodeAt(mode.end + 1) - 0x30;
    if ((backup !== 0 && backup !== 1) || text.charCodeAt(mode.end + 2) !== BRACKET_CLOSE) return null;
    entries.push({
      path,
      size: size.value,
      sha256: text.slice(digest, digest + DIGEST_LENGTH),
      mode: mode.value,
      backup: backup === 1,
    });

    at = mode.end + 3;
    const more = separator === "," && text.charCodeAt(at) === COMMA;
    if (more) at++;
    if (text.charCodeAt(at) !== LINE_FEED) return null;
    at++;
    if (separator === "," && more !== (text.charCodeAt(at) === BRACKET_OPEN)) return null;
  }
  return { entries, end: at };
}

/** No file: in no order behind any other. */
const NO_PATH = { path: "", end: 0 };

interface ReadNumber {
  readonly value: number;
  readonly end: number;
}

/** A whole number as JSON writes it: no sign, no leading zero. */
function readNumber(text: string, start: number): ReadNumber | null {
  let value = 0;
  let at = start;
  for (let digit = text.charCodeAt(at) - 0x30; digit >= 0 && digit <= 9; digit = text.charCodeAt(at) - 0x30) {
    value = value * 10 + digit;
    at++;
  }
  const digits = at - start;
  if (digits === 0 || (digits > 1 && text.charCodeAt(start) === 0x30) || !Number.isSafeInteger(value))
    return null;
  return { value, end: at };
}

function isHex(text: string, start: number): boolean {
  HEX.lastIndex = start;
  return HEX.test(text);
}

/** A path with escapes: rare, so JSON itself reads it. `quote` is where its opening quotation mark stands. */
function unescapePath(text: string, quote: number): { readonly path: string; readonly end: number } | null {
  for (let end = quote + 1; end < text.length; end++) {
    const code = text.charCodeAt(end);
    if (code === BACKSLASH) end++;
    else if (code === LINE_FEED) return null;
    else if (code === QUOTE) {
      if (text.charCodeAt(end + 1) !== COMMA) return null;
      const raw = text.slice(quote, end + 1);
      try {
        const path = JSON.parse(raw) as unknown;
        return typeof path === "string" && JSON.stringify(path) === raw ? { path, end: end + 1 } : null;
      } catch {
        return null;
      }
    }
  }
  return null;
}

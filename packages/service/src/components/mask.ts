import type { TextMask } from "./types.ts";

/**
 * Keeps hidden values out of everything that is shown: log lines, messages, errors, results.
 *
 * A value leaks in more forms than its own. A program prints the URL that it called, an answer repeats the header that
 * it was sent, a stack trace shows JSON. So each value is looked for as it is, line by line, escaped for JSON and XML,
 * percent-encoded, in hex, and in base64 at each of the three alignments that it can have inside a longer text (as in
 * `Authorization: Basic`). Not promised: what a program encrypts, compresses or spells backwards.
 */
export const HIDDEN = "<HIDDEN>";
/** Shorter values are looked for as whole words only: else a hidden `1` would make every text unreadable. */
const ANYWHERE_LENGTH_MIN = 4;
/** Longer values are whole files; nobody encodes these into a line. */
const ENCODED_LENGTH_MAX = 16_384;
/** So many characters around a cut must be kept until they are masked, or half a value would show. */
export const MASK_MARGIN = 8_192;

export class Mask implements TextMask {
  /** Null: nothing is hidden, as with most steps. */
  #hidden: { readonly forms: Set<string>; readonly words: Set<string> } | null = null;
  #pattern: RegExp | null = null;

  /** Everything in these values that could be recognised: texts and numbers, also inside lists and objects. */
  hide(...values: readonly unknown[]): void {
    for (const value of values) for (const text of leaves(value)) this.#add(text);
    this.#pattern = null;
  }

  /** The text with every form of every hidden value replaced by `<HIDDEN>`. */
  text(text: string): string {
    if (this.#hidden === null) return text;
    this.#pattern ??= compile(this.#hidden);
    return text.replaceAll(this.#pattern, HIDDEN);
  }

  start(text: string, characters: number): string {
    return this.text(text.slice(0, this.#outside(text, characters)));
  }

  end(text: string, characters: number): string {
    return this.text(text.slice(this.#outside(text, Math.max(0, text.length - characters))));
  }

  /** This place, or the end of the hidden value that it lies in. */
  #outside(text: string, at: number): number {
    if (this.#hidden === null) return at;
    this.#pattern ??= compile(this.#hidden);
    for (const match of text.matchAll(this.#pattern)) {
      const end = match.index + match[0].length;
      if (match.index >= at) return at;
      if (end > at) return end;
    }
    return at;
  }

  /** A JSON value with all its texts and names masked. */
  value(value: unknown): unknown {
    if (typeof value === "string") return this.text(value);
    // A number shows as much as its text does.
    if (typeof value === "number") return this.text(String(value)) === String(value) ? value : HIDDEN;
    if (Array.isArray(value)) return value.map((each) => this.value(each));
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([name, each]) => [this.text(name), this.value(each)]),
    );
  }

  #add(text: string): void {
    const trimmed = text.trim();
    if (trimmed === "") return;
    this.#hidden ??= { forms: new Set(), words: new Set() };
    const { forms, words } = this.#hidden;
    if (trimmed.length < ANYWHERE_LENGTH_MIN) {
      words.add(trimmed);
      return;
    }
    forms.add(text);
    for (const line of text.split(/\r?\n/)) {
      const part = line.trim();
      if (part.length < ANYWHERE_LENGTH_MIN) continue;
      if (part.length > ENCODED_LENGTH_MAX) forms.add(part);
      else for (const form of encodings(part)) forms.add(form);
    }
    if (text.length <= ENCODED_LENGTH_MAX) for (const form of encodings(text)) forms.add(form);
  }
}

function compile({ forms, words }: Readonly<Record<"forms" | "words", ReadonlySet<string>>>): RegExp {
  // The longest first, so that no form leaves the rest of a longer one behind.
  const byLength = (a: string, b: string) => b.length - a.length;
  const anywhere = [...forms].sort(byLength).map((form) => literal(form));
  const whole = [...words]
    .sort(byLength)
    .map((word) => `(?<![\\p{L}\\p{N}])${literal(word)}(?![\\p{L}\\p{N}])`);
  return new RegExp([...anywhere, ...whole].join("|"), "gu");
}

function leaves(value: unknown): string[] {
  if (typeof value === "string") return [value];
  if (typeof value === "number" || typeof value === "bigint") return [String(value)];
  if (typeof value !== "object" || value === null) return [];
  return Object.values(value).flatMap(leaves);
}

function encodings(text: string): string[] {
  const bytes = Buffer.from(text, "utf8");
  const percent = percentEncodings(text);
  const forms = [
    text,
    JSON.stringify(text).slice(1, -1),
    text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;"),
    ...percent,
    ...percent.map((form) => form.replaceAll(/%[0-9A-F]{2}/g, (triple) => triple.toLowerCase())),
    bytes.toString("hex"),
    bytes.toString("hex").toUpperCase(),
    ...base64Forms(bytes),
  ];
  return forms.filter((form) => form.length >= ANYWHERE_LENGTH_MIN);
}

function percentEncodings(text: string): string[] {
  const whole = text.toWellFormed();
  const component = encodeURIComponent(whole);
  const strict = component.replaceAll(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
  return [
    component,
    strict,
    component.replaceAll("%20", "+"),
    strict.replaceAll("%20", "+"),
    encodeURI(whole),
    // As a form has it.
    new URLSearchParams([["", whole]]).toString().slice(1),
  ];
}

/**
 * What of the bytes is the same in base64 wherever they begin inside a longer text: the characters that hold bits of
 * these bytes alone. The shortest rest is too common to be looked for.
 */
function base64Forms(bytes: Buffer): string[] {
  const forms: string[] = [];
  for (const before of [0, 1, 2]) {
    const text = Buffer.concat([Buffer.alloc(before), bytes])
      .toString("base64")
      .replace(/=+$/, "");
    const first = Math.ceil((before * 8) / 6);
    const last = Math.floor(((before + bytes.length) * 8) / 6);
    const sure = text.slice(first, last);
    if (sure.length >= ANYWHERE_LENGTH_MIN + 1)
      forms.push(sure, sure.replaceAll("+", "-").replaceAll("/", "_"));
    // Alone, its last character holds bits of nothing else.
    if (before === 0 && text.length > ANYWHERE_LENGTH_MIN) forms.push(text, bytes.toString("base64url"));
  }
  return forms;
}

/** A text as a pattern that matches it alone. */
const literal = (text: string) => text.replaceAll(/[\\^$.*+?()[\]{}|/]/g, "\\$&");

import type { KeyPath } from "@lockstep/core";
import { parse, TomlError } from "smol-toml";

/** Both counted from 1; the column in UTF-16 units, as editors count. */
export interface TomlPlace {
  readonly line: number;
  readonly column: number;
}

/**
 * Where each key of a TOML text stands.
 *
 * The TOML parser gives values without places, but whoever wrote the file wants the line of a fault. This walks a text
 * that the parser has accepted already (so it need not notice errors) and remembers the place of each key and of
 * each element of an array.
 */
export class TomlLines {
  readonly #text: string;
  readonly #places = new Map<string, TomlPlace>();
  #at = 0;
  #line = 1;

  /** `text` must be valid TOML. */
  constructor(text: string) {
    this.#text = text;
    this.#document();
  }

  /** The line of a key path, counted from 1; of the nearest parent where the path itself is not in the text. */
  lineOf(path: KeyPath): number {
    return this.placeOf(path).line;
  }

  /** Line and column of a key path, or of its nearest parent. */
  placeOf(path: KeyPath): TomlPlace {
    for (let length = path.length; length > 0; length--) {
      const place = this.#places.get(keyOf(path.slice(0, length)));
      if (place !== undefined) return place;
    }
    return { line: 1, column: 1 };
  }

  #document(): void {
    const counts = new Map<string, number>();
    let table: (string | number)[] = [];
    while (this.#skip(true)) {
      if (this.#text[this.#at] !== "[") {
        this.#pair(table);
        continue;
      }
      const place = this.#here();
      const list = this.#text[this.#at + 1] === "[";
      this.#at += list ? 2 : 1;
      const keys = this.#keys();
      this.#at += list ? 2 : 1;
      table = [];
      keys.forEach((key, index) => {
        table.push(key);
        const name = keyOf(table);
        const count = counts.get(name);
        if (list && index === keys.length - 1) {
          const next = count === undefined ? 0 : count + 1;
          counts.set(name, next);
          this.#note(table, place);
          table.push(next);
        } else if (count !== undefined) table.push(count);
      });
      this.#note(table, place);
    }
  }

  /** `a.b = value` below a table. */
  #pair(table: readonly (string | number)[]): void {
    const place = this.#here();
    const path = [...table];
    for (const key of this.#keys()) {
      path.push(key);
      this.#note(path, place);
    }
    this.#skip(false);
    this.#at++; // the =
    this.#value(path);
  }

  #keys(): string[] {
    const keys: string[] = [];
    do {
      this.#skip(false);
      const first = this.#text[this.#at];
      if (first === '"' || first === "'") keys.push(this.#string());
      else {
        const start = this.#at;
        while (/[A-Za-z0-9_-]/.test(this.#text[this.#at] ?? "")) this.#at++;
        keys.push(this.#text.slice(start, this.#at));
      }
      this.#skip(false);
    } while (this.#text[this.#at] === "." && ++this.#at > 0);
    return keys;
  }

  #value(path: readonly (string | number)[]): void {
    this.#skip(false);
    const first = this.#text[this.#at];
    if (first === '"' || first === "'") this.#string();
    else if (first === "[") {
      this.#at++;
      for (let index = 0; this.#skip(true) && this.#text[this.#at] !== "]"; index++) {
        this.#note([...path, index], this.#here());
        this.#value([...path, index]);
        this.#skip(true);
        if (this.#text[this.#at] === ",") this.#at++;
      }
      this.#at++;
    } else if (first === "{") {
      this.#at++;
      while (this.#skip(true) && this.#text[this.#at] !== "}") {
        this.#pair(path);
        this.#skip(true);
        if (this.#text[this.#at] === ",") this.#at++;
      }
      this.#at++;
    } else while (this.#at < this.#text.length && !/[,\]}\n#]/.test(this.#text[this.#at] ?? "")) this.#at++;
  }

  /** A string of any of the four kinds; returns it with its simple escapes undone, which suffices for keys. */
  #string(): string {
    const quote = this.#text[this.#at] ?? "";
    const long = this.#text.startsWith(quote.repeat(3), this.#at);
    const end = long ? quote.repeat(3) : quote;
    this.#at += end.length;
    const start = this.#at;
    while (this.#at < this.#text.length && !this.#text.startsWith(end, this.#at)) {
      if (quote === '"' && this.#text[this.#at] === "\\") this.#at++;
      if (this.#text[this.#at] === "\n") this.#line++;
      this.#at++;
    }
    const body = this.#text.slice(start, this.#at);
    this.#at += end.length;
    // Up to two quotes may stand before the closing three.
    while (long && this.#text[this.#at] === quote) this.#at++;
    if (quote === "'" || !body.includes("\\")) return body;
    return body.replaceAll(
      /\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2})|(.))/g,
      (_, four, eight, two, one) => {
        const point = four ?? eight ?? two;
        return point === undefined
          ? (ESCAPES[one as string] ?? one)
          : String.fromCodePoint(Number.parseInt(point, 16));
      },
    );
  }

  /** Skips white space, comments and, where asked, line ends. Returns false at the end of the text. */
  #skip(lines: boolean): boolean {
    for (; this.#at < this.#text.length; this.#at++) {
      const character = this.#text[this.#at];
      if (character === "\n") {
        if (!lines) return true;
        this.#line++;
      } else if (character === "#") {
        while (this.#at + 1 < this.#text.length && this.#text[this.#at + 1] !== "\n") this.#at++;
      } else if (character !== " " && character !== "\t" && character !== "\r" && character !== "\uFEFF")
        return true;
    }
    return false;
  }

  #here(): TomlPlace {
    // Nothing is before the text: there lastIndexOf would clamp and find a line end at 0.
    const before = this.#at === 0 ? -1 : this.#text.lastIndexOf("\n", this.#at - 1);
    return { line: this.#line, column: this.#at - before };
  }

  #note(path: readonly (string | number)[], place: TomlPlace): void {
    const key = keyOf(path);
    if (!this.#places.has(key)) this.#places.set(key, place);
  }
}

const ESCAPES: Record<string, string> = { b: "\b", t: "\t", n: "\n", f: "\f", r: "\r", e: "\u001b" };

function keyOf(path: KeyPath): string {
  return JSON.stringify(path);
}

/** A TOML text as values with their lines, or the place where it stops being TOML: nothing else can be told then. */
export type ReadToml =
  | { readonly kind: "document"; readonly value: unknown; readonly lines: TomlLines }
  | {
      readonly kind: "fault";
      readonly line: number;
      readonly column: number;
      readonly problem: string;
      readonly cause: unknown;
    };

export function readToml(text: string): ReadToml {
  try {
    return { kind: "document", value: parse(text), lines: new TomlLines(text) };
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    const problem = cause.message.split("\n")[0]?.replace(/^Invalid TOML document: /, "") ?? "not TOML";
    return { kind: "fault", line: cause.line, column: cause.column, problem, cause };
  }
}

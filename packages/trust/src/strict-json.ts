/**
 * JSON as signed documents may be written: one text, one meaning.
 *
 * Two readers of one document must see the same, or one of them verifies what the other never uses. Parsers differ over
 * members that come twice, numbers that no double can hold, half characters and byte order marks; so all of those are
 * refused, before any other reader sees the bytes (A22). What passes is read alike by every parser there is.
 *
 * Numbers are whole numbers in plain digits: nothing that is signed here holds others, and canonical JSON knows none.
 */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [member: string]: Json };

export interface JsonBounds {
  readonly depthMax: number;
  /** Values of all kinds together: brackets alone become many times their length in memory. */
  readonly valuesMax: number;
}

export const SIGNED_DOCUMENT_BOUNDS: JsonBounds = { depthMax: 24, valuesMax: 400_000 };

/** A document, or why it is none. */
export type StrictJson = { readonly value: Json } | { readonly problem: string };

const FORBIDDEN_MEMBERS = new Set(["__proto__", "constructor", "prototype"]);
const WHITE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?![\d.eE])/y;
const STRING = /"(?:[^"\\]|\\.)*"/y;
const WORDS = new Map<string, Json>([
  ["true", true],
  ["false", false],
  ["null", null],
]);

/** Reads the bytes of a document. Never throws. */
export function readStrictJson(bytes: Uint8Array, bounds: JsonBounds = SIGNED_DOCUMENT_BOUNDS): StrictJson {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return { problem: "it is not UTF-8" };
  }
  const reader = new Reader(text, bounds);
  try {
    return { value: reader.document() };
  } catch (error) {
    if (error instanceof Refusal) return { problem: error.message };
    throw error;
  }
}

class Refusal extends Error {}

class Reader {
  readonly #text: string;
  readonly #bounds: JsonBounds;
  #at = 0;
  #values = 0;

  constructor(text: string, bounds: JsonBounds) {
    this.#text = text;
    this.#bounds = bounds;
  }

  document(): Json {
    const value = this.#value(0);
    if (this.#at < this.#text.length) throw this.#refuse("something follows the document");
    return value;
  }

  #value(depth: number): Json {
    if (++this.#values > this.#bounds.valuesMax) throw this.#refuse("it holds too many values");
    this.#white();
    const first = this.#text[this.#at];
    let value: Json;
    if (first === "{") value = this.#object(depth + 1);
    else if (first === "[") value = this.#array(depth + 1);
    else if (first === '"') value = this.#string();
    else value = this.#word();
    this.#white();
    return value;
  }

  #object(depth: number): Json {
    this.#open(depth);
    const members: Record<string, Json> = {};
    const seen = new Set<string>();
    if (this.#closes("}")) return members;
    do {
      this.#white();
      const name = this.#string();
      if (FORBIDDEN_MEMBERS.has(name)) throw this.#refuse(`a member is named ${name}`);
      if (seen.has(name)) throw this.#refuse(`the member ${JSON.stringify(name)} comes twice`);
      seen.add(name);
      this.#white();
      this.#expect(":");
      members[name] = this.#value(depth);
    } while (this.#goesOn("}"));
    return members;
  }

  #array(depth: number): Json {
    this.#open(depth);
    const items: Json[] = [];
    if (this.#closes("]")) return items;
    do items.push(this.#value(depth));
    while (this.#goesOn("]"));
    return items;
  }

  #open(depth: number): void {
    if (depth > this.#bounds.depthMax) throw this.#refuse(`it nests deeper than ${this.#bounds.depthMax}`);
    this.#at++;
  }

  #closes(end: string): boolean {
    this.#white();
    if (this.#text[this.#at] !== end) return false;
    this.#at++;
    return true;
  }

  #goesOn(end: string): boolean {
    if (this.#text[this.#at] === ",") {
      this.#at++;
      return true;
    }
    this.#expect(end);
    return false;
  }

  #string(): string {
    STRING.lastIndex = this.#at;
    const match = STRING.exec(this.#text);
    if (match === null) throw this.#refuse("a text is expected");
    this.#at = STRING.lastIndex;
    let value: unknown;
    try {
      value = JSON.parse(match[0]);
    } catch {
      throw this.#refuse("a text is no JSON");
    }
    if (typeof value === "string" && value.isWellFormed()) return value;
    throw this.#refuse("a text holds half a character");
  }

  #word(): Json {
    for (const [word, value] of WORDS)
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length;
        return value;
      }
    NUMBER.lastIndex = this.#at;
    const match = NUMBER.exec(this.#text);
    if (match === null) throw this.#refuse("a value is expected");
    const value = Number(match[0]);
    if (!Number.isSafeInteger(value) || Object.is(value, -0))
      throw this.#refuse("a number is no safe integer");
    this.#at = NUMBER.lastIndex;
    return value;
  }

  #expect(character: string): void {
    if (this.#text[this.#at] !== character) throw this.#refuse(`${character} is expected`);
    this.#at++;
  }

  #white(): void {
    WHITE.lastIndex = this.#at;
    WHITE.exec(this.#text);
    this.#at = WHITE.lastIndex;
  }

  #refuse(problem: string): Refusal {
    return new Refusal(`${problem} at character ${this.#at + 1}`);
  }
}

/** Whether a value is an object with members. */
export function isRecord(value: unknown): value is { readonly [member: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Glob patterns over paths of the repository, as `--assign`, `--exclude` and module descriptions use them.
 *
 *   *        any characters within one name          **       any characters, folders included; as a whole
 *   ?        one character, not /                             name before a slash: any folders, also none
 *   [a-z]    one character of a set, [!a-z] outside   {a,b}    one of several, may hold all of these
 *   \x       the special character x itself           bin/     everything below bin
 *
 * A pattern must match the whole path. A leading dot is nothing special: whoever writes `*` means every file.
 *
 * Patterns come from module files and from the network, so they must not be able to stop a hub: translating them to
 * regular expressions lets `*a*a*a*a*b` backtrack for hours. Here a pattern becomes a small automaton that reads the
 * path once; sets of its states are remembered as they occur, so that matching thousands of paths costs a table
 * look-up a character. Time is bounded by pattern length times path length, whatever both hold.
 */
export const GLOB_LENGTH_MAX = 4096;
const BRACE_DEPTH_MAX = 16;
/** More sets of states than this are forgotten and found again: memory stays small, time stays bounded. */
const STATES_KEPT_MAX = 500;

const SPECIAL = new Set(["*", "?", "[", "]", "{", "}", ",", "\\", "!"]);
const SLASH = 0x2f;

/** Why a pattern cannot be used. */
export interface GlobFault {
  readonly problem: string;
}

/** Whether a compiled pattern is in fact a refusal. */
export function isGlobFault(value: Glob | GlobFault): value is GlobFault {
  return !(value instanceof Glob);
}

type Test =
  | { readonly kind: "point"; readonly point: number }
  | { readonly kind: "within" }
  | { readonly kind: "across" }
  | {
      readonly kind: "set";
      readonly outside: boolean;
      readonly ranges: readonly (readonly [number, number])[];
    };

type Part =
  | Test
  | { readonly kind: "repeat"; readonly test: Test }
  | { readonly kind: "folders" }
  | { readonly kind: "choice"; readonly options: readonly (readonly Part[])[] };

type Instruction =
  | { readonly op: "test"; readonly test: Test }
  | { op: "split"; first: number; second: number }
  | { op: "jump"; to: number }
  | { readonly op: "accept" };

interface State {
  readonly threads: readonly number[];
  readonly accepts: boolean;
  readonly next: Map<number, State | null>;
}

/**
 * Compiles a pattern. Returns a fault instead of throwing where it is none: a path that is not relative, an
 * unclosed set or brace, an escape of an ordinary character (most likely a Windows separator).
 */
export function compileGlob(pattern: string): Glob | GlobFault {
  if (pattern === "") return { problem: "the pattern is empty" };
  if (pattern.length > GLOB_LENGTH_MAX)
    return { problem: `the pattern is longer than ${GLOB_LENGTH_MAX} characters` };
  if (pattern.startsWith("/"))
    return { problem: "the pattern begins with /; patterns are relative to the base directory" };
  const text = pattern.normalize("NFC");
  const parser = new Parser([...(text.endsWith("/") ? `${text}**` : text)]);
  const parts = parser.parts(0);
  return parser.problem === null ? new Glob(pattern, parts) : { problem: parser.problem };
}

class Parser {
  problem: string | null = null;
  readonly #characters: readonly string[];
  #at = 0;
  /** Whether a name begins here, so that a folder wildcard may stand. */
  #fresh = true;

  constructor(characters: readonly string[]) {
    this.#characters = characters;
  }

  parts(depth: number): Part[] {
    const parts: Part[] = [];
    while (this.problem === null) {
      const character = this.#characters[this.#at];
      if (character === undefined) {
        if (depth > 0) this.problem = "a { is not closed";
        return parts;
      }
      if (depth > 0 && (character === "," || character === "}")) return parts;
      this.#at++;
      parts.push(this.#part(character, depth));
    }
    return parts;
  }

  #part(character: string, depth: number): Part {
    const fresh = this.#fresh;
    this.#fresh = character === "/";
    switch (character) {
      case "*":
        if (this.#characters[this.#at] !== "*") return { kind: "repeat", test: { kind: "within" } };
        while (this.#characters[this.#at] === "*") this.#at++;
        if (!fresh || this.#characters[this.#at] !== "/") return { kind: "repeat", test: { kind: "across" } };
        this.#at++;
        this.#fresh = true;
        return { kind: "folders" };
      case "?":
        return { kind: "within" };
      case "[":
        return this.#set();
      case "{":
        return this.#choice(depth, fresh);
      case "\\": {
        const next = this.#characters[this.#at++];
        if (next === undefined || !SPECIAL.has(next))
          this.problem = "a backslash may only stand before a special character; folders are separated by /";
        return { kind: "point", point: next?.codePointAt(0) ?? 0 };
      }
      default:
        return { kind: "point", point: character.codePointAt(0) ?? 0 };
    }
  }

  #choice(depth: number, fresh: boolean): Part {
    const options: Part[][] = [];
    if (depth >= BRACE_DEPTH_MAX) this.problem = `braces are nested more than ${BRACE_DEPTH_MAX} deep`;
    let freshAfter = false;
    while (this.problem === null) {
      this.#fresh = fresh;
      options.push(this.parts(depth + 1));
      freshAfter ||= this.#fresh;
      if (this.#characters[this.#at++] !== ",") break;
    }
    this.#fresh = freshAfter;
    return { kind: "choice", options };
  }

  #set(): Part {
    const ranges: [number, number][] = [];
    const outside = this.#characters[this.#at] === "!" || this.#characters[this.#at] === "^";
    if (outside) this.#at++;
    for (let first = true; ; first = false) {
      const from = this.#member(first);
      if (from === null) break;
      let to = from;
      if (this.#characters[this.#at] === "-" && this.#characters[this.#at + 1] !== "]") {
        this.#at++;
        to = this.#member(true) ?? from;
      }
      if (from > to) this.problem = "a range in [ ] runs backwards";
      ranges.push([from, to]);
    }
    return { kind: "set", outside, ranges };
  }

  /** The next member of a set, or null at its end. A `]` at the very beginning is a member. */
  #member(first: boolean): number | null {
    let character = this.#characters[this.#at++];
    if (character === "]" && !first) return null;
    if (character === "\\") character = this.#characters[this.#at++];
    if (character === undefined) {
      this.problem = "a [ is not closed";
      return null;
    }
    return character.codePointAt(0) ?? 0;
  }
}

/** A compiled pattern. Made by `compileGlob`. */
export class Glob {
  readonly pattern: string;
  /** The one path that it matches, when it holds no wildcard; else null. */
  readonly literal: string | null;
  readonly #program: Instruction[] = [];
  readonly #prefix: string;
  #states = new Map<string, State>();
  #start: State | null = null;

  constructor(pattern: string, parts: readonly Part[]) {
    this.pattern = pattern;
    this.#emit(parts);
    this.#program.push({ op: "accept" });
    this.#prefix = literalPrefix(parts);
    this.literal = parts.every((part) => part.kind === "point") ? this.#prefix : null;
  }

  /** Whether the pattern matches the whole path. */
  matches(path: string): boolean {
    // Most paths fail here, without the automaton.
    if (!path.startsWith(this.#prefix)) return false;
    let state = this.#start ?? this.#begin();
    for (let i = 0; i < path.length; i++) {
      const point = path.codePointAt(i) ?? 0;
      if (point > 0xffff) i++;
      let next = state.next.get(point);
      if (next === undefined) {
        next = this.#advance(state, point);
        state.next.set(point, next);
      }
      if (next === null) return false;
      state = next;
    }
    return state.accepts;
  }

  #begin(): State {
    const start = this.#intern(this.#close([0]));
    this.#start = start;
    return start;
  }

  #advance(state: State, point: number): State | null {
    const reached: number[] = [];
    for (const thread of state.threads) {
      const instruction = this.#program[thread];
      if (instruction?.op === "test" && passes(instruction.test, point)) reached.push(thread + 1);
    }
    return reached.length === 0 ? null : this.#intern(this.#close(reached));
  }

  /** All instructions that wait for a character, or accept, reachable without reading one. */
  #close(from: readonly number[]): number[] {
    const seen = new Set<number>();
    const open = [...from];
    const waiting: number[] = [];
    for (let at = open.pop(); at !== undefined; at = open.pop()) {
      if (seen.has(at)) continue;
      seen.add(at);
      const instruction = this.#program[at];
      if (instruction?.op === "split") open.push(instruction.first, instruction.second);
      else if (instruction?.op === "jump") open.push(instruction.to);
      else waiting.push(at);
    }
    return waiting.sort((a, b) => a - b);
  }

  #intern(threads: readonly number[]): State {
    const key = threads.join(",");
    let state = this.#states.get(key);
    if (state === undefined) {
      if (this.#states.size >= STATES_KEPT_MAX) {
        this.#states = new Map();
        this.#start = null;
      }
      const accepts = threads.some((thread) => this.#program[thread]?.op === "accept");
      state = { threads, accepts, next: new Map() };
      this.#states.set(key, state);
    }
    return state;
  }

  #emit(parts: readonly Part[]): void {
    for (const part of parts) {
      if (part.kind === "choice") this.#emitChoice(part.options);
      else if (part.kind === "repeat") this.#emitRepeat(part.test);
      else if (part.kind === "folders") {
        // Nothing, or anything that ends in a slash.
        const split: Instruction = { op: "split", first: this.#program.length + 1, second: 0 };
        this.#program.push(split);
        this.#emitRepeat({ kind: "across" });
        this.#program.push({ op: "test", test: { kind: "point", point: SLASH } });
        split.second = this.#program.length;
      } else this.#program.push({ op: "test", test: part });
    }
  }

  #emitRepeat(test: Test): void {
    const at = this.#program.length;
    this.#program.push({ op: "split", first: at + 1, second: at + 3 });
    this.#program.push({ op: "test", test }, { op: "jump", to: at });
  }

  #emitChoice(options: readonly (readonly Part[])[]): void {
    const jumps: { op: "jump"; to: number }[] = [];
    options.forEach((option, index) => {
      const last = index === options.length - 1;
      const split: Instruction = { op: "split", first: this.#program.length + 1, second: 0 };
      if (!last) this.#program.push(split);
      this.#emit(option);
      if (!last) {
        const jump: Instruction = { op: "jump", to: 0 };
        jumps.push(jump);
        this.#program.push(jump);
        split.second = this.#program.length;
      }
    });
    for (const jump of jumps) jump.to = this.#program.length;
  }
}

function passes(test: Test, point: number): boolean {
  switch (test.kind) {
    case "point":
      return test.point === point;
    case "across":
      return true;
    case "within":
      return point !== SLASH;
    case "set":
      // A set never steps out of its name, whether it names what is in or what is out.
      return (
        point !== SLASH && test.ranges.some(([from, to]) => point >= from && point <= to) !== test.outside
      );
  }
}

function literalPrefix(parts: readonly Part[]): string {
  let prefix = "";
  for (const part of parts) {
    if (part.kind !== "point") break;
    prefix += String.fromCodePoint(part.point);
  }
  return prefix;
}

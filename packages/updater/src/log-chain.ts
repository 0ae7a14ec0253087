import { hash } from "node:crypto";

/**
 * The records of update.log as a chain: each carries a digest over itself and the digest of the record before it, so that
 * a record which somebody changed, took out or put in shows in every record after it.
 *
 * A line that is no record breaks nothing: it is what a killed run or a power cut left of one, and the record after it follows the
 * last whole one. Not promised: that records which were taken off the end show, or that nobody can write a new chain. Whoever may
 * write the file may do both, and that shows only against links that were kept elsewhere (`lockstep log --json` gives them).
 */
export const CHAIN_BEGIN = "0".repeat(64);
const MEMBER = /^(.*),"chain":"([0-9a-f]{64})"\}$/s;

/** A record with its link. `line`: one JSON object, without a line end. */
export function addLink(line: string, former: string): { readonly line: string; readonly chain: string } {
  const chain = digest(line, former);
  return { line: `${line.slice(0, -1)},"chain":"${chain}"}`, chain };
}

/** The link of a line; null when it has none. */
export function linkOf(line: string): string | null {
  return MEMBER.exec(line)?.[2] ?? null;
}

/** What is wrong with a record. */
export interface ChainFault {
  readonly problem: string;
  /** The link that it has to have, by its own text and the record before it; null where nothing says which that is. */
  readonly expected: string | null;
  /** The link that it has; null: none. */
  readonly found: string | null;
}

/** Holds records against their links, oldest first. */
export class LogChain {
  #former: string | null;

  /** `former`: the link that the first record follows; null where older records went by rotation, so that it is not known. */
  constructor(former: string | null) {
    this.#former = former;
  }

  /** Takes the next line, without its end. Null: it follows the record before it, or is no record. */
  follow(line: string): ChainFault | null {
    const match = MEMBER.exec(line);
    if (match === null) {
      if (!isObject(line)) return null;
      const expected = this.#former === null ? null : digest(line, this.#former);
      return { problem: "it is a record without its link", expected, found: null };
    }
    const [, body = "", found = ""] = match;
    const expected = this.#former === null ? found : digest(`${body}}`, this.#former);
    this.#former = found;
    return expected === found
      ? null
      : { problem: "it was altered, or does not follow the record before it", expected, found };
  }
}

/** No beginning of an object is an object: what a killed run left of a record is none. */
function isObject(line: string): boolean {
  if (!line.startsWith("{")) return false;
  try {
    JSON.parse(line);
    return true;
  } catch {
    return false;
  }
}

function digest(line: string, former: string): string {
  return hash("sha256", `${former}\n${line}`, "hex");
}

import { LockstepError } from "./errors.ts";

/**
 * Reading JSON that a stranger wrote, within bounds.
 *
 * A parser makes objects of many times the size of their text from brackets alone: 16 MB of `[],[],[]` became half a
 * gigabyte in a hub, 8 MB of `[[[[` as much before they turned out to be no JSON. So the text is looked at first: how
 * deep it nests, how many arrays and objects it makes, how many values, how many members one object has. No message of
 * ours comes near these bounds, however long it is; a text that keeps them becomes a few times its length at most.
 */
const JSON_DEPTH_MAX = 32;
const MEMBERS_MAX = 1_000;
/** So many are always allowed; beyond them it must be worth so many bytes of text each. */
const FREE = 1_000;
const BYTES_PER_CONTAINER = 20;
const BYTES_PER_VALUE = 6;

const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;

/** Says what makes a JSON text too costly to parse, or null. It need not be JSON; whether it is, the parser says. */
export function findJsonExcess(text: Uint8Array): string | null {
  const containersMax = FREE + text.length / BYTES_PER_CONTAINER;
  const valuesMax = FREE + text.length / BYTES_PER_VALUE;
  /** Commas so far at each depth; -1 for an array. */
  const members = new Int32Array(JSON_DEPTH_MAX + 1).fill(-1);
  let depth = 0;
  let containers = 0;
  let values = 0;
  for (let at = 0; at < text.length; at++) {
    switch (text[at]) {
      case QUOTE:
        at = endOfString(text, at);
        break;
      case COMMA: {
        const count = members[depth] ?? -1;
        if (++values > valuesMax) return "it holds too many values for its length";
        if (count >= MEMBERS_MAX) return `an object has more than ${MEMBERS_MAX} members`;
        if (count >= 0) members[depth] = count + 1;
        break;
      }
      case 0x5b: // [
      case 0x7b: // {
        if (++depth > JSON_DEPTH_MAX) return `it nests deeper than ${JSON_DEPTH_MAX} levels`;
        if (++containers > containersMax) return "it holds too many arrays and objects for its length";
        members[depth] = text[at] === 0x7b ? 1 : -1;
        break;
      case 0x5d: // ]
      case 0x7d: // }
        if (depth > 0) depth--;
        break;
    }
  }
  return null;
}

/** Where the closing quote of a string stands whose opening one stands at `start`. */
function endOfString(text: Uint8Array, start: number): number {
  let end = text.indexOf(QUOTE, start + 1);
  while (end !== -1 && isEscaped(text, start, end)) end = text.indexOf(QUOTE, end + 1);
  return end === -1 ? text.length : end;
}

/** Whether an odd number of backslashes stands before a quote. */
function isEscaped(text: Uint8Array, start: number, quote: number): boolean {
  let at = quote - 1;
  while (at > start && text[at] === BACKSLASH) at--;
  return (quote - 1 - at) % 2 === 1;
}

/** Parses JSON in UTF-8 that keeps the bounds above. Throws REQUEST_INVALID; `what` names the text. */
export function parseBoundedJson(text: Uint8Array, what: string): unknown {
  const excess = findJsonExcess(text);
  if (excess !== null)
    throw new LockstepError("REQUEST_INVALID", `${what} is not what the hub expects: ${excess}`, {
      hint: "GET /openapi.json describes every request.",
    });
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text));
  } catch (cause) {
    throw new LockstepError("REQUEST_INVALID", `${what} is not JSON in UTF-8`, {
      found: cause instanceof SyntaxError ? cause.message.slice(0, 200) : "bytes that are not UTF-8",
      cause,
    });
  }
}

import type { Prng } from "@lockstep/testing";

/** What parsers stumble over: ends of strings and objects, numbers at every edge, names that mean something to JavaScript. */
const TOKENS = [
  ...[
    '"',
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\\",
    "\n",
    "\0",
    "-",
    "1e9",
    "1e999",
    "-0",
    "01",
    "0.5",
    "null",
    "true",
  ],
  ...[
    '{"toString":1}',
    '{"toString":1,"valueOf":1}',
    '"__proto__"',
    "[[[[[[[[",
    "{}",
    "[]",
    '""',
    "9007199254740993",
  ],
  ...[
    "../",
    "/etc/x",
    "C:\\x",
    "nul",
    "\u202e",
    "\ufeff",
    "\ud7ff",
    "%00",
    '","',
    '":"',
    "lockstep-manifest/1",
  ],
].map((text) => Buffer.from(text));
const BYTES = [0, 1, 0x7f, 0x80, 0xff, 0x22, 0x0a] as const;
const NUMBERS = [0, 1, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff] as const;
/** Longer than this nothing grows: the question is what a text says, not how long it is. */
const GROWN_MAX = 64 * 1024;

/** One to four changes of `bytes`, anywhere; the result is other bytes. `others`: what pieces are taken from besides. */
export function mutate(bytes: Uint8Array, prng: Prng, others: readonly Uint8Array[] = []): Buffer {
  let result: Buffer = Buffer.from(bytes);
  do {
    for (let turn = prng.below(4); turn >= 0; turn--) result = change(result, prng, others);
  } while (result.equals(bytes));
  return result;
}

function change(bytes: Buffer, prng: Prng, others: readonly Uint8Array[]): Buffer {
  const at = prng.below(bytes.length + 1);
  const length = prng.chance(0.8) ? prng.below(24) : prng.below(bytes.length + 1);
  const splice = (cut: number, ...put: Uint8Array[]) =>
    Buffer.concat([bytes.subarray(0, at), ...put, bytes.subarray(at + cut)]).subarray(0, GROWN_MAX);
  const inPlace = (write: (copy: Buffer) => void) => {
    const copy = Buffer.from(bytes);
    write(copy);
    return copy;
  };
  switch (prng.below(9)) {
    case 0:
      return inPlace((copy) => {
        if (at < copy.length) copy[at] = (copy[at] ?? 0) ^ (1 << prng.below(8));
      });
    case 1:
      return splice(1, Uint8Array.of(prng.pick(BYTES)));
    case 2:
      return splice(1, Uint8Array.of(prng.below(256)));
    case 3:
      return splice(length);
    case 4:
      return splice(0, bytes.subarray(at, at + length));
    case 5:
      return splice(prng.chance(0.5) ? 0 : length, prng.pick(TOKENS) ?? new Uint8Array());
    case 6:
      return inPlace((copy) => {
        if (at + 4 <= copy.length) copy.writeUInt32LE(prng.pick(NUMBERS), at);
      });
    case 7: {
      const other = prng.pick([bytes, ...others]);
      const from = prng.below(other.length + 1);
      return splice(prng.chance(0.5) ? 0 : length, other.subarray(from, from + length));
    }
    default:
      return prng.chance(0.3) ? bytes.subarray(0, at) : splice(2, bytes.subarray(at, at + 2).toReversed());
  }
}

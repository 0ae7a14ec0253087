import zlib from "pako/lib/zlib/deflate.js";
import ZStream from "pako/lib/zlib/zstream.js";

/** The most usual first. Level 0 stores, and needs no search. */
const LEVELS = [6, 9, 1, 8, 7, 5, 4, 3, 2] as const;

/** How an entry was compressed: what zlib was told. */
export interface DeflateSetting {
  readonly level: (typeof LEVELS)[number];
  /** 8 or 9. */
  readonly memLevel: number;
}

const SETTINGS: readonly DeflateSetting[] = LEVELS.flatMap((level) =>
  [8, 9].map((memLevel) => ({ level, memLevel })),
);

/** One number for a setting, as it is written into a recipe. */
export const settingCode = ({ level, memLevel }: DeflateSetting): number => 2 * level + (memLevel - 8);

/** The setting that a number stands for, or null. */
export function settingOf(code: number): DeflateSetting | null {
  const level = LEVELS.find((known) => known === code >> 1);
  return level === undefined ? null : { level, memLevel: 8 + (code & 1) };
}

const METHOD_DEFLATE = 8;
/** Without a header. */
const RAW_WINDOW_BITS = -15;
const STRATEGY_DEFAULT = 0;
const FLUSH_NONE = 0;
const FLUSH_FINISH = 4;
const STATUS_END = 1;
const OUTPUT_BYTES = 64 * 1024;

/**
 * Compresses as zlib does, by a port that gives the same bytes on every machine. The zlib of Node does not: it is tuned for
 * the processor that it runs on, and finds other matches. One is for many contents, one after the other: its tables are
 * 300 KB, and most entries of an archive are much smaller.
 */
export class Deflater {
  readonly #stream = new ZStream();
  #write: (bytes: Uint8Array) => void = () => {};

  constructor({ level, memLevel }: DeflateSetting) {
    this.#stream.output = new Uint8Array(OUTPUT_BYTES);
    zlib.deflateInit2(this.#stream, level, METHOD_DEFLATE, RAW_WINDOW_BITS, memLevel, STRATEGY_DEFAULT);
  }

  /** Forgets what it was given, and gives the next content to `write`; pieces are valid until it returns. */
  begin(write: (bytes: Uint8Array) => void): void {
    resetDeflate(this.#stream);
    this.#write = write;
  }

  push(bytes: Uint8Array, isLast: boolean): void {
    const stream = this.#stream;
    stream.input = bytes;
    stream.next_in = 0;
    stream.avail_in = bytes.length;
    for (;;) {
      stream.next_out = 0;
      stream.avail_out = stream.output.length;
      const status = zlib.deflate(stream, isLast ? FLUSH_FINISH : FLUSH_NONE);
      if (stream.next_out > 0) this.#write(stream.output.subarray(0, stream.next_out));
      if (isLast ? status === STATUS_END : stream.avail_out > 0) return;
    }
  }
}

const NO_HEADS = new Uint16Array(0);

/**
 * As deflateReset. The port empties the table of hash chains number by number, 32,768 or 65,536 of them, which is a tenth of the
 * time that most entries of a jar take. So it gets to see a table without any, and ours is filled at once.
 */
function resetDeflate(stream: ZStream): void {
  const { state } = stream;
  const { head } = state;
  state.head = NO_HEADS;
  zlib.deflateReset(stream);
  state.head = head.fill(0);
}

/** Deflaters by setting, made when they are needed first. */
export class Deflaters {
  readonly #made = new Map<number, Deflater>();

  of(setting: DeflateSetting): Deflater {
    const code = settingCode(setting);
    const deflater = this.#made.get(code) ?? new Deflater(setting);
    this.#made.set(code, deflater);
    return deflater;
  }
}

/** What is tried in vain with every setting, in bytes of one archive, before only those that were right are tried. */
const VAIN_BYTES = 2 * 1024 * 1024;

/**
 * Finds the settings of an archive's entries. Most archives were made by one program with one setting, which is tried
 * first; one whose program is none of ours would cost eighteen trials for each entry, so after a while they are given up.
 */
export class SettingSearch {
  readonly #deflaters = new Deflaters();
  /** Those that were right, the latest first. */
  #right: readonly DeflateSetting[] = [];
  #vainBytes = 0;

  /** The setting by which `inflated` becomes exactly `deflated`, or null. */
  find(inflated: Uint8Array, deflated: Uint8Array): DeflateSetting | null {
    const others = SETTINGS.filter((setting) => !this.#right.includes(setting));
    const order = this.#vainBytes > VAIN_BYTES ? this.#right : [...this.#right, ...others];
    const found = order.find((setting) => this.#reproduces(inflated, deflated, setting));
    if (found === undefined) {
      this.#vainBytes += inflated.length;
      return null;
    }
    if (found !== this.#right[0]) this.#right = [found, ...this.#right.filter((other) => other !== found)];
    return found;
  }

  #reproduces(inflated: Uint8Array, deflated: Uint8Array, setting: DeflateSetting): boolean {
    let at = 0;
    let isEqual = true;
    const deflater = this.#deflaters.of(setting);
    deflater.begin((bytes) => {
      isEqual &&= Buffer.compare(bytes, deflated.subarray(at, at + bytes.length)) === 0;
      at += bytes.length;
    });
    for (let from = 0; from < inflated.length && isEqual; from += PIECE_BYTES)
      deflater.push(inflated.subarray(from, from + PIECE_BYTES), from + PIECE_BYTES >= inflated.length);
    return isEqual && at === deflated.length;
  }
}

/** Small pieces, so that the first difference ends it. */
const PIECE_BYTES = 64 * 1024;

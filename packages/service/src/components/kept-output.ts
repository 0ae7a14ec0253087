import { MASK_MARGIN } from "./mask.ts";
import type { TextMask } from "./types.ts";

/**
 * What a program printed, up to a limit: the beginning and the end, because the one says what it was doing and the other
 * why it ended. Memory stays bounded whatever comes.
 */
export class KeptOutput {
  readonly #limitBytes: number;
  readonly #sideBytes: number;
  #head: Buffer[] = [];
  #headBytes = 0;
  #tail: Buffer[] = [];
  #tailBytes = 0;
  #totalBytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
    // Beyond each side of the cut a margin is kept until the text is masked, or half a hidden value would show.
    this.#sideBytes = Math.ceil(limitBytes / 2) + MASK_MARGIN;
  }

  get totalBytes(): number {
    return this.#totalBytes;
  }

  add(chunk: Buffer): void {
    this.#totalBytes += chunk.length;
    const room = this.#sideBytes - this.#headBytes;
    if (room > 0) {
      const part = chunk.subarray(0, room);
      this.#head.push(part);
      this.#headBytes += part.length;
    }
    const rest = chunk.subarray(Math.max(0, room));
    if (rest.length === 0) return;
    this.#tail.push(rest);
    this.#tailBytes += rest.length;
    for (let first = this.#tail[0]; first !== undefined; first = this.#tail[0]) {
      if (this.#tailBytes - first.length < this.#sideBytes) break;
      this.#tail.shift();
      this.#tailBytes -= first.length;
    }
    // Many small chunks of one megabyte would hold it many times over.
    if (this.#tail.length > 1_000) this.#tail = [Buffer.concat(this.#tail)];
  }

  /** Everything, as UTF-8; null where it was more than the limit. */
  whole(): string | null {
    return this.#totalBytes > this.#limitBytes
      ? null
      : Buffer.concat([...this.#head, ...this.#tail]).toString();
  }

  /** What is kept, masked; says how much was left out in the middle. */
  text(mask: TextMask): string {
    const whole = this.whole();
    if (whole !== null) return mask.text(whole);
    const side = Math.ceil(this.#limitBytes / 2);
    const head = Buffer.concat(this.#head);
    const tail = Buffer.concat(this.#tail);
    // A short end follows the beginning without a gap.
    const end = tail.length < this.#sideBytes ? Buffer.concat([head, tail]) : tail;
    return `${mask.start(head.toString(), side)}\n… ${this.#totalBytes - 2 * side} bytes left out …\n${mask.end(end.toString(), side)}`;
  }

  /** The end of it in about so many characters, masked. */
  ending(characters: number, mask: TextMask): string {
    const whole = this.whole();
    const text = (whole ?? Buffer.concat(this.#tail).toString()).trim();
    return text.length <= characters ? mask.text(text) : `…${mask.end(text, characters)}`;
  }
}

import { createHash } from "node:crypto";
import { closeSync, ftruncateSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import type { StepDeltas } from "@lockstep/delta";

/**
 * A step on its way to the disk: its deltas go into a file without a name as they are made, since they may be as large as the
 * contents; when the last one is there, the step gets its own file, with what stands before them, and its digest behind it.
 */
const BUFFER_BYTES = 256 * 1024;

export class StepOutput implements StepDeltas {
  readonly #target: string;
  readonly #deltas: number;
  /** Small pieces are gathered: there may be some for each of a hundred thousand files. */
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #buffered = 0;
  #written = 0;

  /** `target`: where the step is to be; nothing may be there. */
  constructor(target: string) {
    this.#target = target;
    const path = `${target}.deltas`;
    this.#deltas = openSync(path, "w+", 0o600);
    // However this process ends, nothing of it stays.
    rmSync(path);
  }

  readonly write = (piece: Uint8Array): void => {
    if (this.#buffered + piece.length > BUFFER_BYTES) this.#flush();
    if (piece.length > BUFFER_BYTES) this.#append(piece);
    else {
      this.#buffer.set(piece, this.#buffered);
      this.#buffered += piece.length;
    }
  };

  readonly cut = (bytes: number): void => {
    this.#flush();
    ftruncateSync(this.#deltas, bytes);
    this.#written = bytes;
  };

  /** Writes the step: the head, all deltas, and the digest of both, by which the hub knows later that it is whole. */
  finish(head: readonly Uint8Array[]): void {
    this.#flush();
    const hash = createHash("sha256");
    const file = openSync(this.#target, "wx", 0o600);
    try {
      const add = (bytes: Uint8Array) => {
        hash.update(bytes);
        writeAll(file, bytes, null);
      };
      for (const piece of head) add(piece);
      for (let at = 0; at < this.#written; ) {
        const length = readSync(this.#deltas, this.#buffer, 0, BUFFER_BYTES, at);
        if (length === 0)
          throw new RangeError(`${this.#written} bytes of deltas were written, and ${at} are there`);
        add(this.#buffer.subarray(0, length));
        at += length;
      }
      writeAll(file, hash.digest(), null);
    } finally {
      closeSync(file);
    }
  }

  close(): void {
    closeSync(this.#deltas);
  }

  #flush(): void {
    this.#append(this.#buffer.subarray(0, this.#buffered));
    this.#buffered = 0;
  }

  #append(bytes: Uint8Array): void {
    writeAll(this.#deltas, bytes, this.#written);
    this.#written += bytes.length;
  }
}

function writeAll(file: number, bytes: Uint8Array, position: number | null): void {
  for (let done = 0; done < bytes.length; )
    done += writeSync(file, bytes, done, bytes.length - done, position === null ? null : position + done);
}

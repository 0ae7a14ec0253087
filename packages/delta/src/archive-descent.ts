import { type DeflatedEntry, findDeflated } from "./archive-entries.ts";
import type { ByteSource } from "./delta-format.ts";
import type { Descent, Part } from "./segment-match.ts";
import { lengthOf, type Piece } from "./unfolded.ts";

/**
 * Which entry of the old archive each unfolded entry of the new one was most likely made of: the one of the same name, else
 * one whose name is the same but for numbers, since a version often stands in the name of a directory. Where there is none, or
 * a name misleads, it costs bytes, no more.
 */
export function findDescents(base: ByteSource, pieces: readonly Piece[]): Descent[] {
  const origins = new Origins(base);
  const descents: Descent[] = [];
  let at = 0;
  for (const piece of pieces) {
    const length = lengthOf(piece);
    const origin = piece.kind === "inflated" ? origins.find(piece.entry) : null;
    if (origin !== null) descents.push({ part: { at, length }, origin });
    at += length;
  }
  return descents;
}

/** Entries of an archive as they lie in it when it is unfolded: behind the file itself. */
class Origins {
  readonly #byName = new Map<string, Part>();
  readonly #byLikeness = new Map<string, Part>();

  constructor(base: ByteSource) {
    let at = base.size;
    for (const { name, inflatedLength } of findDeflated(base)) {
      const part = { at, length: inflatedLength };
      this.#byName.set(name, part);
      this.#byLikeness.set(likeness(name), part);
      at += inflatedLength;
    }
  }

  find({ name }: DeflatedEntry): Part | null {
    return this.#byName.get(name) ?? this.#byLikeness.get(likeness(name)) ?? null;
  }
}

const likeness = (name: string) => name.replace(/\d+/g, "#");

import { createHash } from "node:crypto";
import type { FileEntry } from "@lockstep/core";
import {
  applyArchiveDelta,
  applyDelta,
  type Content,
  makeArchiveDelta,
  makeDelta,
  makeStep,
  readStep,
  sourceOf,
} from "@lockstep/delta";
import { Prng } from "@lockstep/testing";
import { type FuzzTarget, Violation } from "./fuzz.ts";
import { mutate } from "./mutate.ts";
import { makeGzip, makeZip } from "./small-archives.ts";

const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** Text that does not compress well; `edit` changes a line here and there. */
function lines(count: number, edit: number): Buffer {
  const prng = new Prng(count);
  const made = Array.from({ length: count }, (_, i) => {
    const word = prng.uint32().toString(36);
    return i % 17 === edit ? `edited ${i}\n` : `${i} ${word} ${prng.uint32()}\n`;
  });
  return Buffer.from(made.join(""));
}

function noise(bytes: number, seed: number): Buffer {
  const prng = new Prng(seed);
  return Buffer.from(Array.from({ length: bytes }, () => prng.below(256)));
}

/** The same program, its addresses moved. */
function moved(bytes: Buffer, by: number): Buffer {
  const copy = Buffer.from(bytes);
  for (let at = 0; at + 4 <= copy.length; at += 12)
    copy.writeUInt32LE((copy.readUInt32LE(at) + by) >>> 0, at);
  return copy;
}

interface Case {
  readonly base: Buffer;
  readonly content: Buffer;
}

/** What comes out, or a violation when it is more than was asked for. */
function collect(bytesMax: number, run: (write: (bytes: Uint8Array) => void) => void): Buffer {
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  run((piece) => {
    bytes += piece.length;
    if (bytes <= bytesMax) pieces.push(Uint8Array.from(piece));
  });
  if (bytes > bytesMax) throw new Violation(`${bytes} bytes came out where ${bytesMax} were asked for`);
  return Buffer.concat(pieces);
}

const BASE_CASES: readonly Case[] = [
  { base: lines(100, 0), content: lines(100, 3) },
  { base: noise(6000, 1), content: moved(noise(6000, 1), 64) },
  { base: noise(500, 2), content: noise(500, 3) },
  { base: Buffer.alloc(0), content: lines(20, 0) },
  { base: lines(60, 0), content: Buffer.concat([lines(60, 0).subarray(900), noise(50, 4), lines(60, 0)]) },
];

/** A changed delta gives the right content or is refused, never more than its size. */
export const deltaTarget: FuzzTarget<Case & { readonly delta: Buffer }> = {
  name: "delta",
  share: 120,
  prepare: () => {
    const made = BASE_CASES.map(({ base, content }) => {
      const pieces = makeDelta(sourceOf(base), sourceOf(content), Number.POSITIVE_INFINITY);
      return { base, content, delta: Buffer.concat(pieces ?? []) };
    });
    const deltas = made.map(({ delta }) => delta);
    return {
      draw: (prng) => {
        const { base, content, delta } = prng.pick(made) as (typeof made)[number];
        return { base, content, delta: mutate(delta, prng, deltas) };
      },
      judge: ({ base, content, delta }) => {
        const result = collect(content.length, (write) =>
          applyDelta(sourceOf(base), sourceOf(delta), write, content.length),
        );
        if (digest(result) !== digest(content)) return "its digest";
        return null;
      },
    };
  },
};

const ARCHIVE_CASES: readonly Case[] = [
  {
    base: makeZip({ "a.txt": lines(30, 0), "b/c.class": noise(300, 5), "same.txt": lines(10, 1) }),
    content: makeZip({
      "a.txt": lines(30, 2),
      "b/c.class": moved(noise(300, 5), 8),
      "same.txt": lines(10, 1),
    }),
  },
  { base: makeGzip(lines(30, 0)), content: makeGzip(lines(30, 5)) },
  {
    base: makeZip({ "one.xml": lines(20, 0) }, 9),
    content: makeZip({ "two.xml": lines(20, 4), empty: Buffer.alloc(0) }, 1),
  },
];

export const archiveDeltaTarget: FuzzTarget<Case & { readonly delta: Buffer }> = {
  name: "archive-delta",
  share: 50,
  prepare: () => {
    const made = ARCHIVE_CASES.map(({ base, content }) => {
      const pieces = makeArchiveDelta(sourceOf(base), sourceOf(content), Number.POSITIVE_INFINITY);
      if (pieces === null) throw new Violation("no delta between archives");
      return { base, content, delta: Buffer.concat(pieces) };
    });
    const deltas = made.map(({ delta }) => delta);
    return {
      draw: (prng) => {
        const { base, content, delta } = prng.pick(made) as (typeof made)[number];
        return { base, content, delta: mutate(delta, prng, deltas) };
      },
      judge: ({ base, content, delta }) => {
        const pieces: Uint8Array[] = [];
        let bytes = 0;
        applyArchiveDelta(
          sourceOf(base),
          sourceOf(delta),
          (piece) => {
            bytes += piece.length;
            if (bytes <= content.length) pieces.push(Uint8Array.from(piece));
          },
          content.length,
        );
        if (digest(Buffer.concat(pieces)) !== digest(content)) return "its digest";
        return null;
      },
    };
  },
};

/** Archives that were damaged, on either side: the delta between them gives back what was there, to the byte. */
export const unfoldingTarget: FuzzTarget<Case> = {
  name: "unfolding",
  share: 6,
  prepare: () => {
    const samples = ARCHIVE_CASES.flatMap(({ base, content }) => [base, content]);
    const damage = (bytes: Buffer, prng: Prng) => (prng.chance(0.3) ? bytes : mutate(bytes, prng, samples));
    return {
      draw: (prng) => {
        const { base, content } = prng.pick(ARCHIVE_CASES) as Case;
        return { base: damage(base, prng), content: damage(content, prng) };
      },
      judge: ({ base, content }) => {
        const pieces = makeArchiveDelta(sourceOf(base), sourceOf(content), Number.POSITIVE_INFINITY);
        if (pieces === null) return "not unfolded";
        const delta = Buffer.concat(pieces);
        const result = collect(content.length, (write) =>
          applyArchiveDelta(sourceOf(base), sourceOf(delta), write, content.length),
        );
        if (!result.equals(content)) throw new Violation("another archive came back");
        return null;
      },
    };
  },
};

interface Tree {
  readonly entries: FileEntry[];
  readonly contents: Map<string, Buffer>;
}

function tree(files: Readonly<Record<string, Buffer>>): Tree {
  const contents = new Map<string, Buffer>();
  const entries = Object.entries(files).map(([path, bytes]) => {
    contents.set(digest(bytes), bytes);
    return { path, size: bytes.length, sha256: digest(bytes), mode: 0o644, backup: false };
  });
  return { entries: entries.sort((a, b) => (a.path < b.path ? -1 : 1)), contents };
}

/** A changed step names no content that is in neither manifest, and makes no more than it names. */
export const stepTarget: FuzzTarget<Buffer> = {
  name: "step",
  share: 65,
  prepare: () => {
    const archives = ARCHIVE_CASES[0] as Case;
    const from = tree({ a: lines(40, 0), b: lines(30, 1), "lib/x.jar": archives.base, same: noise(40, 9) });
    const to = tree({ a: lines(40, 2), c: lines(30, 5), "lib/x.jar": archives.content, same: noise(40, 9) });
    const source = (where: Tree) => (content: Content) => {
      const found = where.contents.get(content.sha256);
      if (found === undefined) throw new Violation(`the content ${content.sha256} is in no manifest`);
      return sourceOf(found);
    };
    const whole = ({ size }: Content) => size + 1000;
    const open = (content: Content) => (to.contents.has(content.sha256) ? source(to) : source(from))(content);
    const made = makeStep(from.entries, to.entries, open, whole);
    if (made === null) throw new Violation("no step");
    const step = Buffer.concat(made.pieces);
    return {
      draw: (prng) => mutate(step, prng),
      judge: (bytes) => {
        let right = 0;
        const parts = readStep(from.entries, to.entries, sourceOf(bytes));
        for (const part of parts) {
          const wanted = Buffer.concat(
            part.results.map(({ sha256 }) => to.contents.get(sha256) ?? Buffer.alloc(0)),
          );
          const pieces: Uint8Array[] = [];
          part.apply(source(from), (piece) => pieces.push(Uint8Array.from(piece)));
          if (digest(Buffer.concat(pieces)) === digest(wanted)) right++;
        }
        if (right < parts.length) return "digests";
        return null;
      },
    };
  },
};

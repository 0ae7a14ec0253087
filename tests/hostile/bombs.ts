import { writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  brotliCompressSync,
  brotliDecompressSync,
  constants,
  zstdCompressSync,
  zstdDecompressSync,
} from "node:zlib";
import type { FileEntry } from "@lockstep/core";
import { applyArchiveDelta, applyDelta, makeArchiveDelta, readStep, sourceOf } from "@lockstep/delta";
import {
  ContentStreamReader,
  encodeMagic,
  formatDelta,
  parseBoundedJson,
  parseDelta,
} from "@lockstep/protocol";
import { install, update } from "@lockstep/updater";
import { NumberWriter } from "../../packages/delta/src/number-stream.ts";
import { unpackArchive } from "../../packages/updater/src/update-archive.ts";
import { makeGzip, makeZip } from "../fuzz/small-archives.ts";
import { makeArchive } from "../updater/archives.ts";
import { SmallHub } from "../updater/small-hub.ts";

/** Little that becomes much, made and read in one process each; `harm` reads the same as somebody without limits would. */
export interface Bomb {
  readonly make: (place: string) => Promise<Armed> | Armed;
  /** What the reader says. */
  readonly says: RegExp;
  /** Whether there is somebody without limits to compare with. */
  readonly isCompared?: boolean;
  /** How much memory the reader may take for it. */
  readonly growthMiBMax?: number;
}

export interface Armed {
  /** Bytes that travel. */
  readonly bytes: number;
  readonly read: () => unknown;
  readonly harm?: () => unknown;
  readonly dispose?: () => Promise<void>;
}

const MIB = 1024 * 1024;
const LARGE = 256 * MIB;
const zeros = (bytes: number) => Buffer.alloc(bytes);
const nothing = sourceOf(new Uint8Array());

const frameOf = (bytes: number) =>
  zstdCompressSync(zeros(bytes), { params: { [constants.ZSTD_c_compressionLevel]: 1 } });
const brotliOf = (bytes: number) =>
  brotliCompressSync(zeros(bytes), {
    params: { [constants.BROTLI_PARAM_QUALITY]: 2, [constants.BROTLI_PARAM_LGWIN]: 24 },
  });

/** A delta out of numbers and bytes. */
function delta(magic: string, ...parts: readonly (number | Uint8Array)[]): Buffer {
  const pieces = parts.map((part) => {
    if (typeof part !== "number") return part;
    const writer = new NumberWriter();
    writer.add(part);
    return Uint8Array.from(writer.bytes());
  });
  return Buffer.concat([Buffer.from(magic), ...pieces]);
}

const apply = (base: Uint8Array, bytes: Uint8Array, resultBytes: number) =>
  applyDelta(sourceOf(base), sourceOf(bytes), () => {}, resultBytes);

const entry = (path: string, size: number, mark: string): FileEntry => ({
  path,
  size,
  sha256: mark.repeat(64),
  mode: 0o644,
  backup: false,
});

async function hubWith(
  content: string | Buffer,
): Promise<{ hub: SmallHub; options: (place: string) => Promise<unknown> }> {
  const hub = await SmallHub.start();
  hub.publish({ file: { content, targets: ["role:A"] } });
  const access = { environment: {}, url: hub.url };
  const options = (place: string) =>
    install(join(place, "a"), { access, roles: ["A"], selfUpdate: false, progress: () => {} });
  return { hub, options };
}

/** An installation whose hub sends this frame for its only file. */
async function liar(place: string, content: Buffer): Promise<Armed> {
  const { hub, options } = await hubWith(content);
  const frame = frameOf(LARGE);
  hub.faults.corruptFrame = () => frame;
  return {
    bytes: frame.length,
    read: () => options(place),
    harm: () => zstdDecompressSync(frame),
    dispose: () => hub[Symbol.asyncDispose](),
  };
}

const TAKEN = 8;

/** Two entries that do not fit into what is kept, and a delta that wants a few bytes of each in turn. */
function thrash(): Armed {
  const base = makeZip({ a: zeros(20 * MIB), b: zeros(20 * MIB) }, 1);
  const turns = 2_000;
  const taken = Buffer.alloc(turns, TAKEN);
  const seeks = new NumberWriter();
  for (let turn = 0; turn < turns; turn++)
    seeks.addSigned(turn % 2 === 0 ? (turn === 0 ? base.length : -20 * MIB - TAKEN) : 20 * MIB - TAKEN);
  const coded = (bytes: Uint8Array) => [0, bytes.length, bytes.length, bytes] as const;
  const empty = coded(new Uint8Array());
  const streams = [
    coded(taken),
    coded(zeros(turns)),
    coded(Uint8Array.from(seeks.bytes())),
    empty,
    empty,
    empty,
  ].flat();
  const bytes = Buffer.concat([
    delta("LSA1", ...empty),
    delta("LSD1", turns * TAKEN, turns * TAKEN, 4, ...streams, 0),
  ]);
  return {
    bytes: bytes.length,
    read: () => applyArchiveDelta(sourceOf(base), sourceOf(bytes), () => {}, turns * TAKEN),
  };
}

export const BOMBS: Readonly<Record<string, Bomb>> = {
  "a difference of manifests with 400,000 entries": {
    isCompared: true,
    says: /^nothing$/,
    make: async (place) => {
      const { hub, options } = await hubWith("x");
      await options(place);
      hub.publish({ file: { content: "y", targets: ["role:A"] } });
      const put = Array.from({ length: 400_000 }, (_, i) => entry(`d/${String(i).padStart(7, "0")}`, 1, "a"));
      const text = formatDelta({ removed: [], put });
      const body = zstdCompressSync(text);
      hub.faults.refuse = {
        status: 200,
        times: 1,
        match: /delta/,
        body: body as unknown as string,
        headers: { "content-encoding": "zstd" },
      };
      return {
        bytes: body.length,
        read: async () => {
          await update(join(place, "a"), {
            access: { environment: {} },
            selfUpdate: false,
            progress: () => {},
          });
          return "nothing";
        },
        harm: () => parseDelta(zstdDecompressSync(body).toString()),
        dispose: () => hub[Symbol.asyncDispose](),
      };
    },
  },
  "a body of brackets": {
    isCompared: true,
    says: /^REQUEST_INVALID/,
    make: () => {
      const text = Buffer.from(`[${"[],".repeat(5 * MIB)}[]]`);
      return {
        bytes: text.length,
        read: () => parseBoundedJson(text, "the body"),
        harm: () => JSON.parse(text.toString()),
      };
    },
  },
  "a stream of a delta, by brotli": {
    isCompared: true,
    says: /^DELTA_INVALID/,
    make: () => {
      const packed = brotliOf(LARGE);
      const bytes = delta("LSD1", 100, 100, 1, 1, 100, packed.length, packed, 0);
      return {
        bytes: bytes.length,
        read: () => apply(zeros(0), bytes, 100),
        harm: () => brotliDecompressSync(packed),
      };
    },
  },
  "a stream of a delta, by zstd": {
    isCompared: true,
    says: /^DELTA_INVALID/,
    make: () => {
      const packed = frameOf(LARGE);
      const bytes = delta("LSD1", 100, 100, 1, 2, 100, packed.length, packed, 0);
      return {
        bytes: bytes.length,
        read: () => apply(zeros(0), bytes, 100),
        harm: () => zstdDecompressSync(packed),
      };
    },
  },
  "streams longer than what they tell of": {
    isCompared: true,
    says: /^DELTA_INVALID/,
    make: () => {
      const size = 16 * MIB;
      const packed = frameOf(8 * size);
      const stream = [2, 8 * size, packed.length, packed];
      const bytes = delta(
        "LSD1",
        size,
        size,
        4,
        ...stream,
        ...stream,
        ...stream,
        ...stream,
        ...stream,
        ...stream,
        0,
      );
      const harm = () => Array.from({ length: 3 }, () => zstdDecompressSync(packed));
      return { bytes: bytes.length, read: () => apply(zeros(0), bytes, size), harm };
    },
  },
  "a result of eight petabytes": {
    says: /^DELTA_INVALID/,
    make: () => {
      const bytes = delta("LSD1", Number.MAX_SAFE_INTEGER, 32 * MIB, 1, 2, 32 * MIB, 5, zeros(5));
      return { bytes: bytes.length, read: () => apply(zeros(0), bytes, 1000) };
    },
  },
  "a dictionary of 16 MiB for each byte": {
    says: /^DELTA_INVALID.*more work/,
    make: () => {
      const base = zeros(16 * MIB);
      const frame = zstdCompressSync(Buffer.from("x"));
      const segment = [1, 2, 0, base.length, frame.length, frame];
      const bytes = delta("LSD1", 2000, ...Array.from({ length: 2000 }, () => segment).flat(), 0);
      return { bytes: bytes.length, read: () => apply(base, bytes, 2000) };
    },
  },
  "an archive that is inflated anew for each byte": {
    says: /^DELTA_INVALID.*more work/,
    growthMiBMax: 96,
    make: thrash,
  },
  "an archive of 1 GiB in a delta of a few bytes": {
    says: /^DELTA_INVALID/,
    make: () => {
      const recipe = delta("", 0, 1024 * MIB, 12);
      const packed = frameOf(32 * MIB);
      const segment = [32 * MIB, 1, 2, 32 * MIB, packed.length, packed];
      const segments = Array.from({ length: 32 }, () => segment).flat();
      const inner = delta("LSD1", 1024 * MIB, ...segments, 0);
      const bytes = Buffer.concat([delta("LSA1", 0, recipe.length, recipe.length, recipe), inner]);
      return {
        bytes: bytes.length,
        read: () => applyArchiveDelta(nothing, sourceOf(bytes), () => {}, 4096),
      };
    },
  },
  "a jar that says to hold 32 MiB in each of its entries": {
    says: /^nothing$/,
    make: () => {
      const lie = (text: string) => {
        const zip = makeZip(
          Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`entry${i}`, Buffer.from(`${text}${i}`)])),
        );
        // The sizes in the central directory, by which entries are found.
        for (let at = zip.indexOf("PK\x01\x02"); at >= 0; at = zip.indexOf("PK\x01\x02", at + 4))
          zip.writeUInt32LE(31 * MIB, at + 24);
        return zip;
      };
      const [base, content] = [lie("one"), lie("two")];
      return {
        bytes: content.length,
        read: () =>
          makeArchiveDelta(sourceOf(base), sourceOf(content), 1e9) === null ? "nothing" : "unfolded",
      };
    },
  },
  "an archive in an archive in a gzip file": {
    says: /^nothing$/,
    growthMiBMax: 96,
    make: () => {
      const inner = makeGzip(zeros(16 * MIB));
      const base = makeGzip(makeZip({ "inner.gz": inner }, 9));
      const content = makeGzip(makeZip({ "inner.gz": inner, more: Buffer.from("x") }, 9));
      return {
        bytes: content.length,
        read: () => {
          const made = makeArchiveDelta(sourceOf(base), sourceOf(content), 1e9);
          return made === null || Buffer.concat(made).length < 100_000 ? "nothing" : "unfolded";
        },
      };
    },
  },
  "a step that makes one content again and again": {
    says: /^DELTA_INVALID/,
    make: () => {
      const units = Buffer.concat(Array.from({ length: 100_000 }, () => delta("", 0, 0, 1, 0, 0)));
      const packed = zstdCompressSync(units);
      const bytes = delta("LSS1", 2, units.length, packed.length, packed);
      const from = [entry("a", 10, "a")];
      const to = [entry("a", 10, "b")];
      return { bytes: bytes.length, read: () => readStep(from, to, sourceOf(bytes)).length };
    },
  },
  "a small content as a frame of 256 MiB": {
    isCompared: true,
    says: /^CONTENT_MISMATCH/,
    make: (place) => liar(place, Buffer.from("small ".repeat(100))),
  },
  "a large content as a frame of 256 MiB": {
    isCompared: true,
    says: /^CONTENT_MISMATCH/,
    make: (place) => liar(place, Buffer.from("large ".repeat(500_000))),
  },
  "an entry of Update.zip that holds more than it says": {
    says: /^UPDATE_ARCHIVE_INVALID/,
    make: async (place) => {
      const describe = (text: string) => text.replace(`"size": ${200 * MIB}`, '"size": 1000');
      const zip = await makeArchive({ updater: zeros(200 * MIB), deflated: true, describe });
      const size = Buffer.alloc(4);
      size.writeUInt32LE(200 * MIB);
      const small = Buffer.alloc(4);
      small.writeUInt32LE(1000);
      for (let at = zip.indexOf(size); at >= 0; at = zip.indexOf(size, at)) small.copy(zip, at);
      writeFileSync(join(place, "zip"), zip);
      return { bytes: zip.length, read: () => unpackArchive(join(place, "zip"), join(place, "out")) };
    },
  },
  "a part of 60 MB in Update.zip, which is allowed": {
    says: /^nothing$/,
    make: async (place) => {
      const zip = await makeArchive({ updater: zeros(60_000_000), deflated: true });
      writeFileSync(join(place, "zip"), zip);
      return {
        bytes: zip.length,
        read: () => unpackArchive(join(place, "zip"), join(place, "out")).then(() => "nothing"),
      };
    },
  },
  "an Update.zip of 60,000 empty parts": {
    says: /^UPDATE_ARCHIVE_INVALID/,
    make: async (place) => {
      const smuggled = Object.fromEntries(Array.from({ length: 60_000 }, (_, i) => [`p${i}.update.mjs`, ""]));
      const zip = await makeArchive({ updater: "x", smuggled });
      writeFileSync(join(place, "zip"), zip);
      return { bytes: zip.length, read: () => unpackArchive(join(place, "zip"), join(place, "out")) };
    },
  },
  "a manifest of 10^6 entries": {
    says: /^MANIFEST_TOO_LARGE/,
    make: async (place) => {
      const { hub, options } = await hubWith("x");
      Object.assign(hub.document(1).manifests[0] ?? {}, { files: 1_000_000, size: 130_000_000 });
      return { bytes: 300, read: () => options(place), dispose: () => hub[Symbol.asyncDispose]() };
    },
  },
  "a document of 4 GiB in a stream of contents": {
    says: /^CONTENT_TOO_LARGE/,
    make: () => {
      const bytes = Buffer.concat([encodeMagic(), Buffer.from([2, 255, 255, 255, 255])]);
      const reader = new ContentStreamReader({ documentBytesMax: MIB, contentBytesMax: MIB });
      return { bytes: bytes.length, read: () => [...reader.push(bytes)].length };
    },
  },
};

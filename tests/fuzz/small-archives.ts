import { crc32 } from "node:zlib";
import { makeZip as zipOf } from "@lockstep/testing";
import { Deflater } from "../../packages/delta/src/deflate-setting.ts";

/** As zlib writes it everywhere; the one of Node is tuned for the processor. */
function deflate(content: Buffer, level: 1 | 6 | 9): Buffer {
  const pieces: Uint8Array[] = [];
  const deflater = new Deflater({ level, memLevel: 8 });
  deflater.begin((bytes) => pieces.push(Uint8Array.from(bytes)));
  deflater.push(content, true);
  return Buffer.concat(pieces);
}

export function makeGzip(content: Buffer): Buffer {
  const head = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
  const tail = Buffer.alloc(8);
  tail.writeUInt32LE(crc32(content), 0);
  tail.writeUInt32LE(content.length, 4);
  return Buffer.concat([head, deflate(content, 6), tail]);
}

/** A zip of these contents by name. */
export function makeZip(entries: Readonly<Record<string, Buffer>>, level: 1 | 6 | 9 = 6): Buffer {
  return zipOf(
    Object.entries(entries).map(([name, content]) => ({ name, content, deflated: deflate(content, level) })),
  );
}

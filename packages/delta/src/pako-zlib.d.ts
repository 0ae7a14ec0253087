/** The part of pako below its interface: the port of zlib itself, whose state can be used for one content after the other. */
declare module "pako/lib/zlib/zstream.js" {
  export default class ZStream {
    input: Uint8Array;
    next_in: number;
    avail_in: number;
    output: Uint8Array;
    next_out: number;
    avail_out: number;
    /** Of the deflate that was begun with it; `head`: where the chain of each hash begins. */
    state: { head: Uint16Array };
  }
}

declare module "pako/lib/zlib/deflate.js" {
  import type ZStream from "pako/lib/zlib/zstream.js";

  /** As in zlib.h; answers are its codes: 0 is well, 1 the end, below is an error. */
  function deflateInit2(
    stream: ZStream,
    level: number,
    method: number,
    windowBits: number,
    memLevel: number,
    strategy: number,
  ): number;
  function deflateReset(stream: ZStream): number;
  function deflate(stream: ZStream, flush: number): number;
  const zlib: {
    deflateInit2: typeof deflateInit2;
    deflateReset: typeof deflateReset;
    deflate: typeof deflate;
  };
  export default zlib;
}

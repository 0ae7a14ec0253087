import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import {
  type ContentEvent,
  ContentStreamReader,
  encodeContentHeader,
  encodeDocument,
  encodeEnd,
  encodeMagic,
  parseUpdateArchive,
} from "@lockstep/protocol";
import { measureFrame } from "../../packages/hub/src/repository/zstd-frame.ts";
import { unpackArchive } from "../../packages/updater/src/update-archive.ts";
import { makeArchive } from "../updater/archives.ts";
import { type FuzzTarget, Violation } from "./fuzz.ts";
import { mutate } from "./mutate.ts";

const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** Nothing is written outside, and what is written is what the description says. */
export const updateZipTarget: FuzzTarget<Buffer> = {
  name: "update-zip",
  share: 25,
  prepare: async () => {
    const parts = {
      updater: "export {};\n",
      plugins: { "a/b.update.mjs": "1", "c.update.mjs": "export const probe = 2;" },
    };
    const samples = [await makeArchive(parts), await makeArchive({ ...parts, deflated: true })];
    const place = mkdtempSync(join(tmpdir(), "lockstep-fuzz-"));
    const inside = join(place, "inside");
    const zip = join(place, "Update.zip");
    return {
      draw: (prng) => mutate(prng.pick(samples) ?? Buffer.alloc(0), prng, samples),
      judge: async (bytes) => {
        rmSync(inside, { recursive: true, force: true });
        mkdirSync(inside);
        writeFileSync(zip, bytes);
        const refusal = await unpackArchive(zip, inside).then(
          () => null,
          (error: unknown) => error,
        );
        if (readdirSync(place).length !== 2)
          throw new Violation(`written outside: ${readdirSync(place).join()}`);
        if (refusal !== null) throw refusal;
        const described = parseUpdateArchive(readFileSync(join(inside, "update.json"), "utf8"));
        const files = readdirSync(inside, { recursive: true, encoding: "utf8" }).filter((name) =>
          statSync(join(inside, name)).isFile(),
        );
        if (files.length !== described.parts.length + 1) throw new Violation("a part that is not described");
        for (const { path, sha256 } of described.parts)
          if (digest(readFileSync(join(inside, path))) !== sha256)
            throw new Violation(`${path} is not as described`);
        // Which archive it may be, its digest in the signed targets says.
        if (!samples.some((sample) => digest(sample) === digest(bytes))) return "its digest";
        return null;
      },
      dispose: () => rmSync(place, { recursive: true, force: true }),
    };
  },
};

export const updateDescriptionTarget: FuzzTarget<string> = {
  name: "update-json",
  share: 50,
  prepare: () => {
    const part = (path: string) => ({ path, size: 10, sha256: "ab".repeat(32) });
    const parts = [part("a/x.update.mjs"), part("updater.mjs")];
    const sample = Buffer.from(JSON.stringify({ format: "lockstep-update-archive/1", version: "1", parts }));
    return {
      draw: (prng) => mutate(sample, prng).toString(),
      judge: (text) => {
        const { parts: found } = parseUpdateArchive(text);
        if (found.some(({ path }) => path.startsWith("/") || path.split("/").includes("..")))
          throw new Violation("a part outside");
        return null;
      },
    };
  },
};

const summary = (event: ContentEvent) =>
  event.kind === "bytes" ? Buffer.from(event.bytes).toString("hex") : `<${JSON.stringify(event)}>`;

/** A stream means the same however it is cut into chunks. */
export const contentStreamTarget: FuzzTarget<{ readonly bytes: Buffer; readonly piece: number }> = {
  name: "content-stream",
  share: 80,
  prepare: () => {
    const one = Buffer.from("the first content\n".repeat(20));
    const packed = zstdCompressSync(one);
    const sample = Buffer.concat([
      encodeMagic(),
      encodeDocument({ module: { id: "M", version: "1" }, files: [{ path: "a" }] }),
      encodeContentHeader({
        sha256: digest(one),
        encoding: "identity",
        size: one.length,
        stored: one.length,
      }),
      one,
      encodeContentHeader({ sha256: digest(one), encoding: "zstd", size: one.length, stored: packed.length }),
      packed,
      encodeEnd(2),
    ]);
    const read = (bytes: Buffer, piece: number): { said: string; error: unknown } => {
      const reader = new ContentStreamReader({ documentBytesMax: 4096, contentBytesMax: 1 << 20 });
      let said = "";
      try {
        for (let at = 0; at < bytes.length; at += piece)
          for (const event of reader.push(bytes.subarray(at, at + piece))) said += summary(event);
        return { said, error: reader.complete ? null : "it was cut" };
      } catch (error) {
        return { said, error };
      }
    };
    return {
      draw: (prng) => ({ bytes: mutate(sample, prng), piece: 1 + prng.below(64) }),
      judge: ({ bytes, piece }) => {
        const whole = read(bytes, Math.max(1, bytes.length));
        const pieces = read(bytes, piece);
        if (whole.said !== pieces.said || String(whole.error) !== String(pieces.error))
          throw new Violation("chunks change what it means");
        if (typeof whole.error === "string") return whole.error;
        if (whole.error !== null) throw whole.error;
        return null;
      },
    };
  },
};

/** What is measured of a frame without decoding it is what decoding finds. */
export const zstdFrameTarget: FuzzTarget<Buffer> = {
  name: "zstd-frame",
  share: 24,
  prepare: () => {
    const texts = ["", "short", "a line again and again\n".repeat(100)].map((text) => Buffer.from(text));
    const samples = texts.map((text) => zstdCompressSync(text));
    return {
      draw: (prng) => mutate(prng.pick(samples) ?? Buffer.alloc(0), prng, samples),
      judge: (bytes) => {
        const measured = measureFrame(bytes);
        if (measured === null || measured.length !== bytes.length) return "no frame";
        if (measured.windowBytes > 8 * 1024 * 1024) return "its window";
        let decoded: Buffer;
        try {
          decoded = zstdDecompressSync(bytes, { maxOutputLength: 1 << 20 });
        } catch {
          return "broken";
        }
        if (measured.contentBytes !== null && decoded.length !== measured.contentBytes)
          throw new Violation(`${decoded.length} bytes of ${measured.contentBytes}`);
        if (!texts.some((text) => digest(text) === digest(decoded))) return "its digest";
        return null;
      },
    };
  },
};

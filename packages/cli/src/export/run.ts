import { createZstdDecompress } from "node:zlib";
import type { HubClient } from "@lockstep/client";
import { listenForInterruption, systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { withHub } from "../connect.ts";
import type { HubArguments } from "../hub-address.ts";
import { counted } from "../screen/format.ts";
import { Output } from "../screen/output.ts";
import { Progress } from "../screen/progress.ts";
import { TargetDirectory } from "./target-directory.ts";
import { type ExportSelection, listWanted, type WantedFile } from "./wanted.ts";

export interface ExportOptions extends HubArguments, ExportSelection {
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** Contents under way at once: enough to hide the way to the hub, few enough for its memory and ours. */
const PARALLEL = 8;

/**
 * `lockstep files export`: writes stored files into a directory (behaviour 46). Existing files are updated, missing
 * ones created, all others left alone; the directory does not become an installation.
 */
export async function exportFiles(directory: string, options: ExportOptions): Promise<void> {
  const output = new Output(options);
  using interruption = listenForInterruption();
  const { signal } = interruption;
  await withHub(options, async (hub) => {
    const wanted = await listWanted(hub, options, signal);
    const target = new TargetDirectory(directory);
    const differing = wanted.filter((file) => !target.isEqual(file));
    const progress = output.quiet ? null : new Progress("exporting", output.remarks, systemClock);
    try {
      await fetchAll(hub, target, differing, progress, signal);
      progress?.finish(differing.length === 0 ? null : undefined);
    } catch (error) {
      progress?.finish(null);
      throw signal.aborted ? signal.reason : error;
    }
    output.document({
      directory,
      written: differing.map((file) => file.path),
      equal: wanted.length - differing.length,
    });
    output.line(
      `${counted(differing.length, "file")} written, ${wanted.length - differing.length} equal already`,
    );
  });
}

async function fetchAll(
  hub: HubClient,
  target: TargetDirectory,
  files: readonly WantedFile[],
  progress: Progress | null,
  signal: AbortSignal,
): Promise<void> {
  const bytesTotal = files.reduce((sum, file) => sum + file.size, 0);
  let bytes = 0;
  let done = 0;
  const queue = files.values();
  const stop = new AbortController();
  const all = AbortSignal.any([signal, stop.signal]);
  const worker = async () => {
    for (const file of queue) {
      await fetchOne(hub, target, file, all, (count) => {
        bytes += count;
        progress?.update({ bytes, bytesTotal, files: done, filesTotal: files.length });
      });
      done++;
      progress?.update({ bytes, bytesTotal, files: done, filesTotal: files.length });
    }
  };
  try {
    await Promise.all(Array.from({ length: PARALLEL }, worker));
  } catch (error) {
    stop.abort(error);
    throw error;
  }
}

async function fetchOne(
  hub: HubClient,
  target: TargetDirectory,
  file: WantedFile,
  signal: AbortSignal,
  onBytes: (count: number) => void,
): Promise<void> {
  const answer = await hub.content(file.sha256, { signal });
  const writer = target.begin(file);
  let left = file.size;
  try {
    for await (const chunk of answer.encoding === "zstd" ? decoded(answer.chunks) : answer.chunks) {
      left -= chunk.length;
      // Whatever a hub sends, never more than was promised reaches the disk.
      if (left < 0) break;
      writer.write(chunk);
      onBytes(chunk.length);
    }
  } catch (error) {
    writer.discard();
    throw named(error, file);
  }
  writer.finish();
}

async function* decoded(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void> {
  const { Readable } = await import("node:stream");
  const zstd = createZstdDecompress();
  const source = Readable.from(chunks);
  source.on("error", (error) => zstd.destroy(error));
  source.pipe(zstd);
  try {
    yield* zstd as AsyncIterable<Buffer>;
  } finally {
    source.destroy();
  }
}

/** A broken frame is a content that does not match; a full disk is told as what it is. */
function named(error: unknown, file: WantedFile): unknown {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (!code.startsWith("ZSTD_") && code !== "ERR_STREAM_PREMATURE_CLOSE") return error;
  return new LockstepError("CONTENT_MISMATCH", `the hub sent no usable content for ${file.path}`, {
    cause: error,
  });
}

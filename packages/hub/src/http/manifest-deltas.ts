import { promisify } from "node:util";
import { zstdCompress } from "node:zlib";
import type { Sha256 } from "@lockstep/core";
import { diffEntries, formatDelta, LockstepError, parseManifest } from "@lockstep/protocol";
import { readContent } from "./contents.ts";
import type { HubServices } from "./services.ts";

export interface Delta {
  readonly plain: Buffer;
  /** The same as one zstd frame. */
  readonly packed: Buffer;
}

const KEPT_MAX = 64;
const KEPT_BYTES_MAX = 32 * 2 ** 20;
const compress = promisify(zstdCompress);

/**
 * Differences of manifests. After a release every installation of a role asks for the same one, so the last ones are
 * kept in memory, and whoever asks while one is being made waits for it.
 */
export function createDeltas(services: HubServices): (from: Sha256, to: Sha256) => Promise<Delta> {
  const kept = new Map<string, Promise<Delta>>();
  let keptBytes = 0;

  async function make(from: Sha256, to: Sha256): Promise<Delta> {
    const [before, after] = await Promise.all([readContent(services, from), readContent(services, to)]);
    if (before === null || after === null)
      throw new LockstepError("NOT_FOUND", "the hub no longer has both manifests", {
        found: before === null ? from : to,
        hint: "Fetch the whole manifest instead.",
      });
    const { from: old, to: now } = changedLines(before.toString("utf8"), after.toString("utf8"));
    const plain = Buffer.from(
      formatDelta(diffEntries(parseManifest(old).entries, parseManifest(now).entries)),
    );
    return { plain, packed: await compress(plain) };
  }

  return (from, to) => {
    const key = `${from} ${to}`;
    const known = kept.get(key);
    if (known !== undefined) {
      // Last in is last out.
      kept.delete(key);
      kept.set(key, known);
      return known;
    }
    const made = services.gates.comparisons.through(() => make(from, to));
    kept.set(key, made);
    made.then(
      ({ plain, packed }) => {
        keptBytes += plain.length + packed.length;
        for (const [oldest, delta] of kept) {
          if (kept.size <= KEPT_MAX && keptBytes <= KEPT_BYTES_MAX) break;
          kept.delete(oldest);
          void delta.then(
            (dropped) => {
              keptBytes -= dropped.plain.length + dropped.packed.length;
            },
            () => {},
          );
        }
      },
      () => kept.delete(key),
    );
    return made;
  };
}

/**
 * Leaves out the lines that both texts have: with 43,000 files and four changes, comparing lines is all the work, and
 * parsing every entry would be twenty times that. The headers stay.
 */
export function changedLines(before: string, after: string): { from: string; to: string } {
  const old = before.split("\n");
  const now = after.split("\n");
  const inOld = new Set(old);
  const inNow = new Set(now);
  const keep = (lines: readonly string[], other: ReadonlySet<string>) =>
    `${[lines[0] ?? "", ...lines.slice(1).filter((line) => line !== "" && !other.has(line))].join("\n")}\n`;
  return { from: keep(old, inNow), to: keep(now, inOld) };
}

import type { Sha256 } from "@lockstep/core";
import {
  type ContentEvent,
  type ContentHeader,
  ContentStreamReader,
  LockstepError,
} from "@lockstep/protocol";
import type pg from "pg";
import { atLeast, type BodyRate } from "./body-rate.ts";
import { ContentIntake } from "./content-intake.ts";
import { type ContentRow, ENCODING_IDENTITY, ENCODING_ZSTD, insertContents } from "./content-write.ts";
import { PartsCopy } from "./copy-parts.ts";

/** The body of a load as it arrives: a document, then contents that go into the database while they are verified. */
export interface StreamLimits {
  /** Largest content in bytes, decoded or stored. */
  readonly contentBytesMax: number;
  /** Longest document in bytes. */
  readonly documentBytesMax: number;
  /** How fast the body must arrive. */
  readonly rate: BodyRate;
}

export type ContentEvents = AsyncGenerator<ContentEvent, void, undefined>;

/** Takes the body apart. Throws LOAD_INTERRUPTED when it is cut or silent, REQUEST_INVALID, CONTENT_TOO_LARGE. */
export async function* readEvents(
  body: AsyncIterable<Uint8Array>,
  limits: StreamLimits,
  signal: AbortSignal | undefined,
): ContentEvents {
  const reader = new ContentStreamReader(limits);
  for await (const chunk of atLeast(limits.rate, body, interrupted)) {
    if (signal?.aborted === true) throw signal.reason;
    yield* reader.push(chunk);
    if (reader.complete) return;
  }
  throw interrupted("the stream ended before its end mark");
}

/**
 * Takes the contents into the transaction of `client`: those that are `missing`; others of the load are read past.
 * Throws LOAD_CONTENT_MISMATCH, LOAD_CONFLICT when some did not come along, and what reading throws.
 */
export async function takeContents(
  client: pg.PoolClient,
  events: ContentEvents,
  missing: ReadonlyMap<Sha256, number>,
  offered: ReadonlySet<Sha256>,
): Promise<ContentRow[]> {
  const rows: ContentRow[] = [];
  const taken = new Set<Sha256>();
  const copy = new PartsCopy(client);
  const intake = new ContentIntake(copy);
  let wanted = false;
  try {
    // By hand, not `for await`: leaving that would end the generator, which the caller still owns.
    for (let next = await events.next(); next.done !== true; next = await events.next()) {
      const event = next.value;
      switch (event.kind) {
        case "document":
          throw new LockstepError("REQUEST_INVALID", "a load holds one document", { expected: 1, found: 2 });
        case "content":
          wanted = isWanted(event.header, missing, offered, taken);
          intake.begin(event.header, wanted);
          break;
        case "bytes":
          await intake.bytes(event.bytes);
          break;
        case "content-end":
          await intake.end();
          if (!wanted) break;
          taken.add(event.header.sha256);
          rows.push(toRow(event.header));
          break;
        case "end":
          break;
      }
    }
    await intake.finish();
    const lacking = [...missing.keys()].filter((sha256) => !taken.has(sha256));
    if (lacking.length > 0)
      throw new LockstepError(
        "LOAD_CONFLICT",
        "contents that this load needs are no longer in the repository",
        {
          expected: missing.size,
          found: taken.size,
          hint: "Nothing was loaded. Load again: it compares anew and sends what is missing.",
          faults: lacking.slice(0, 100).map((where) => ({ where, problem: "it did not come along" })),
        },
      );
    await copy.finish();
    await insertContents(client, rows);
    return rows;
  } catch (error) {
    intake.abort();
    await copy.abort();
    throw error;
  }
}

function isWanted(
  header: ContentHeader,
  missing: ReadonlyMap<Sha256, number>,
  offered: ReadonlySet<Sha256>,
  taken: ReadonlySet<Sha256>,
): boolean {
  const size = missing.get(header.sha256);
  if (size === undefined && !offered.has(header.sha256))
    throw new LockstepError("REQUEST_INVALID", `no file of this load has the content ${header.sha256}`, {
      found: header.sha256,
    });
  // It has come into the repository since the comparison, or travels twice: harmless.
  if (size === undefined || taken.has(header.sha256)) return false;
  if (size !== header.size)
    throw new LockstepError(
      "LOAD_CONTENT_MISMATCH",
      `the content ${header.sha256} has another size than its file`,
      {
        expected: size,
        found: header.size,
        hint: "Nothing was loaded. Load again.",
      },
    );
  return true;
}

function toRow(header: ContentHeader): ContentRow {
  const encoding = header.encoding === "zstd" ? ENCODING_ZSTD : ENCODING_IDENTITY;
  return { sha256: header.sha256, size: header.size, encoding, stored: header.stored };
}

/** An upload that ended too early. */
export function interrupted(found: string, cause?: unknown): LockstepError {
  return new LockstepError("LOAD_INTERRUPTED", "the upload was cut off", {
    expected: "the whole content stream",
    found,
    hint: "Nothing was loaded. Load again.",
    cause,
  });
}

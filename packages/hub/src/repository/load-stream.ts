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
import { type ContentRow, drawContentIds, ENCODING_IDENTITY, ENCODING_ZSTD } from "./content-write.ts";
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
 * Takes the parts of contents into the transaction of `client`: of those that are `missing`; others of the load are read
 * past. Returns the rows that are to be inserted for them. Throws LOAD_CONTENT_MISMATCH and what reading throws.
 */
export async function takeContents(
  client: pg.PoolClient,
  events: ContentEvents,
  missing: ReadonlyMap<Sha256, number>,
  offered: ReadonlySet<Sha256>,
): Promise<ContentRow[]> {
  const rows: ContentRow[] = [];
  const taken = new Set<Sha256>();
  // Before the COPY begins: until it ends the connection can do nothing else.
  const ids = await drawContentIds(client, missing.size);
  const copy = new PartsCopy(client);
  const intake = new ContentIntake(copy);
  let id: number | null = null;
  try {
    // By hand, not `for await`: leaving that would end the generator, which the caller still owns.
    for (let next = await events.next(); next.done !== true; next = await events.next()) {
      const event = next.value;
      switch (event.kind) {
        case "document":
          throw new LockstepError("REQUEST_INVALID", "a load holds one document", { expected: 1, found: 2 });
        case "content":
          id = isWanted(event.header, missing, offered, taken) ? (ids[taken.size] ?? null) : null;
          intake.begin(event.header, id);
          break;
        case "bytes":
          await intake.bytes(event.bytes);
          break;
        case "content-end":
          await intake.end();
          if (id === null) break;
          taken.add(event.header.sha256);
          rows.push(toRow(id, event.header));
          break;
        case "end":
          break;
      }
    }
    await intake.finish();
    await copy.finish();
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

function toRow(id: number, header: ContentHeader): ContentRow {
  const encoding = header.encoding === "zstd" ? ENCODING_ZSTD : ENCODING_IDENTITY;
  return { id, sha256: header.sha256, size: header.size, encoding, stored: header.stored };
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

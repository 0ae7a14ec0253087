import type { HubConnection, RequestDescription } from "./connection.ts";
import { invalidAnswer } from "./failures.ts";

/** A document on its way. */
export interface DocumentAnswer {
  /** Where the bytes begin: what was asked for, or 0. */
  readonly offset: number;
  readonly chunks: AsyncGenerator<Buffer, void>;
}

/**
 * Begins to fetch a document by its path, from byte `from` on, as the bytes that its author wrote. Null: there is none
 * (404). Nothing is verified and no length is held here. Throws HUB_UNREACHABLE, HUB_ANSWER_INVALID and what the hub says.
 */
export async function openDocument(
  connection: HubConnection,
  path: string,
  from: number,
  signal: AbortSignal | undefined,
): Promise<DocumentAnswer | null> {
  const description: RequestDescription = {
    method: "GET",
    path,
    headers: { "accept-encoding": "identity", ...(from > 0 ? { range: `bytes=${from}-` } : {}) },
    signal,
    accept: [404],
  };
  const response = await connection.send(description);
  if (response.statusCode === 404) {
    response.destroy();
    return null;
  }
  const encoding = response.headers["content-encoding"] ?? "identity";
  if (encoding !== "identity") {
    response.destroy();
    throw invalidAnswer(connection.url.origin, path, "its encoding", "identity", encoding);
  }
  const range = /^bytes (\d+)-/.exec(response.headers["content-range"] ?? "");
  const offset = response.statusCode === 206 && range?.[1] !== undefined ? Number(range[1]) : 0;
  return { offset, chunks: connection.chunks(response, signal) };
}

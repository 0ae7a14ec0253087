import type { ClientRequest, IncomingMessage } from "node:http";
import {
  CONTENT_STREAM_TYPE,
  type ContentHeader,
  encodeContentHeader,
  encodeDocument,
  encodeEnd,
  encodeMagic,
  isLockstepError,
  LockstepError,
} from "@lockstep/protocol/wire";
import type { HubConnection } from "./connection.ts";

/** One content to send: exactly `header.stored` bytes must come out of `bytes`. */
export interface UploadContent {
  readonly header: ContentHeader;
  readonly bytes: Uint8Array | AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/**
 * Many contents that stand in the form of the stream already: headers and stored bytes, one behind the other. The memory
 * is the sender's again as soon as the next part is asked for.
 */
export interface UploadFrames {
  readonly frames: Uint8Array;
  /** How many contents they are. */
  readonly contents: number;
}

export type UploadPart = UploadContent | UploadFrames;

export interface UploadOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called after each piece, with the bytes sent so far, headers included. */
  readonly onProgress?: (progress: { readonly contents: number; readonly bytes: number }) => void;
}

const GATHER_BYTES = 64 * 1024;
const ANSWER_BYTES_MAX = 64 * 1024 * 1024;
/** How long the answer of a hub is waited for that stopped reading: it says why, if it says anything. */
const LAST_WORDS_MS = 2000;

/** Ends the sending because the hub has answered already. */
class AnsweredEarly extends Error {}

/**
 * Sends a document and contents as one content stream and returns the body of the answer.
 *
 * No more is held than one piece: the next one is asked for when the system has taken it. A hub that refuses
 * answers before it has read everything and closes; then sending stops at once and its answer is what counts, not
 * the broken pipe. Throws LOAD_SOURCE_CHANGED when a content yields another number of bytes than announced.
 */
export async function uploadContents(
  connection: HubConnection,
  path: string,
  document: unknown,
  contents: AsyncIterable<UploadPart> | Iterable<UploadPart>,
  options: UploadOptions,
): Promise<Buffer> {
  const description = {
    method: "POST",
    path,
    // A connection of its own: on a reused one a broken pipe could mean two things.
    headers: { "content-type": CONTENT_STREAM_TYPE, connection: "close" },
    signal: options.signal,
  } as const;
  const { request, answer } = await connection.open(description);
  let answered = false;
  const noteAnswer = () => {
    answered = true;
  };
  answer.then(noteAnswer, noteAnswer);
  try {
    await sendAll(request, document, contents, options, () => answered);
    request.end();
  } catch (error) {
    const said =
      error instanceof AnsweredEarly ? await answer.then(tooEarly) : await lastWords(answer, request);
    request.destroy();
    throw said ?? connection.fault(error, options.signal);
  }
  return await connection.readBody(await answer, ANSWER_BYTES_MAX, description);
}

/** A hub that agrees before it has seen everything is no hub; a refusal has been thrown by the answer itself. */
function tooEarly(response: IncomingMessage): LockstepError {
  response.destroy();
  return new LockstepError("HUB_ANSWER_INVALID", "the hub agreed before everything had been sent", {
    hint: "Check what stands between this machine and the hub.",
  });
}

/** What the hub said before it closed, or null when it closed without a word. */
async function lastWords(
  answer: Promise<IncomingMessage>,
  request: ClientRequest,
): Promise<LockstepError | null> {
  if (request.destroyed && request.socket === null) return null;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(resolve, LAST_WORDS_MS, null);
  });
  try {
    await Promise.race([answer, late]);
    return null;
  } catch (error) {
    return isLockstepError(error) && error.code !== "HUB_UNREACHABLE" ? error : null;
  } finally {
    clearTimeout(timer);
  }
}

async function sendAll(
  request: ClientRequest,
  document: unknown,
  contents: AsyncIterable<UploadPart> | Iterable<UploadPart>,
  options: UploadOptions,
  answered: () => boolean,
): Promise<void> {
  const broken = new AbortController();
  const fail = (error: Error) => broken.abort(error);
  request.once("error", fail);
  request.once("response", () => broken.abort(new AnsweredEarly()));
  let bytes = 0;
  let count = 0;
  // Most contents are smaller than a packet: gathered, they cost a fraction of the writes, here and at the hub.
  let gathered: Uint8Array[] = [];
  let gatheredBytes = 0;
  const send = async (piece: Uint8Array) => {
    bytes += piece.length;
    // What is large goes out from where it lies: joined with what is gathered it would be copied.
    if (piece.length >= GATHER_BYTES && gatheredBytes > 0) await flush();
    gathered.push(piece);
    gatheredBytes += piece.length;
    if (gatheredBytes >= GATHER_BYTES) await flush();
  };
  const flush = async () => {
    if (broken.signal.aborted) throw broken.signal.reason;
    if (answered()) throw new AnsweredEarly();
    const [first] = gathered;
    const whole = gathered.length === 1 && first !== undefined ? first : Buffer.concat(gathered);
    gathered = [];
    gatheredBytes = 0;
    if (whole.length > 0) await written(request, whole, broken.signal);
  };
  await send(encodeMagic());
  const text = encodeDocument(document);
  await send(text);
  await flush();
  // A document of a large load is some megabytes; now, since the collector would come for it when all has been sent.
  (text.buffer as ArrayBuffer).transfer(0);
  for await (const content of contents) {
    if ("frames" in content) {
      await send(content.frames);
      await flush();
      count += content.contents;
      options.onProgress?.({ contents: count, bytes });
      continue;
    }
    await send(encodeContentHeader(content.header));
    let sent = 0;
    const pieces = content.bytes instanceof Uint8Array ? [content.bytes] : content.bytes;
    for await (const piece of pieces) {
      sent += piece.length;
      if (sent > content.header.stored) break;
      await send(piece);
      options.onProgress?.({ contents: count, bytes });
    }
    if (sent !== content.header.stored) throw sourceChanged(content.header, sent);
    count++;
    options.onProgress?.({ contents: count, bytes });
  }
  await send(encodeEnd(count));
  await flush();
}

/** Writes bytes and waits until the system has taken them, or until the signal aborts. */
function written(request: ClientRequest, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    request.write(bytes, (error) => {
      signal.removeEventListener("abort", abort);
      if (error === null || error === undefined) resolve();
      else reject(signal.aborted ? signal.reason : error);
    });
  });
}

function sourceChanged(header: ContentHeader, found: number): LockstepError {
  return new LockstepError("LOAD_SOURCE_CHANGED", "a file changed while it was being sent", {
    expected: header.stored,
    found,
    hint: "Nothing was loaded. Make sure that nobody writes to the directory, then load again.",
  });
}

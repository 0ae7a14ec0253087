import { readFile } from "node:fs/promises";
import type { ClientRequest, IncomingHttpHeaders, IncomingMessage, RequestOptions } from "node:http";

/** One request and its answer, without redirects, proxies or kept connections. */
export interface HttpQuestion {
  readonly url: URL;
  readonly method: string;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer | null;
  readonly answerBytesMax: number;
  readonly caFile: string | null;
  readonly signal: AbortSignal;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** There was more than asked for; the rest was not read. */
  readonly isCut: boolean;
}

/** Sends it. Throws what the network or TLS says, by their codes. */
export async function requestOnce(question: HttpQuestion): Promise<HttpAnswer> {
  const { url, signal, body } = question;
  const isTls = url.protocol === "https:";
  const ca = isTls && question.caFile !== null ? await readFile(question.caFile) : undefined;
  const { request } = isTls ? await import("node:https") : await import("node:http");
  const options: RequestOptions & { ca?: Buffer } = {
    method: question.method,
    headers: {
      ...question.headers,
      "accept-encoding": "identity",
      ...(body === null ? {} : { "content-length": String(body.length) }),
    },
    // A step is one request; a kept connection would only be one that may be broken.
    agent: false,
    signal,
    ...(ca === undefined ? {} : { ca }),
  };
  return await new Promise<HttpAnswer>((resolve, reject) => {
    const sent: ClientRequest = request(url, options, (response) => {
      readAnswer(response, question.answerBytesMax).then(resolve, reject);
    });
    sent.on("error", reject);
    sent.end(body ?? undefined);
  });
}

async function readAnswer(response: IncomingMessage, bytesMax: number): Promise<HttpAnswer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  let isCut = false;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    const part = chunk.subarray(0, bytesMax - bytes);
    chunks.push(part);
    bytes += part.length;
    if (part.length < chunk.length) {
      isCut = true;
      // Leaving the loop destroys the answer and its connection.
      break;
    }
  }
  return { status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks), isCut };
}

/** Requests as any client may send them: by hand, so that a test can also send what no client of ours would. */
import assert from "node:assert/strict";
import { request as httpRequest, type IncomingHttpHeaders } from "node:http";
import type { TestHub } from "./test-hub.ts";

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly json: () => Record<string, unknown>;
}

export interface RequestOptions {
  readonly headers?: Record<string, string>;
  /** Undefined: the hub's own. Null: none. */
  readonly token?: string | null;
  /** An object is sent as JSON. */
  readonly body?: unknown;
  /** Sent as the body, piece by piece. */
  readonly stream?: AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
  /** Does not end the request's body. */
  readonly open?: boolean;
}

/** Sends a request and reads the whole answer. */
export async function ask(
  hub: Pick<TestHub, "url" | "token">,
  method: string,
  path: string,
  options: RequestOptions = {},
): Promise<Answer> {
  const headers: Record<string, string> = { ...options.headers };
  const token = options.token === undefined ? hub.token : options.token;
  if (token !== null && token !== "") headers.authorization = `Bearer ${token}`;
  const body =
    options.body === undefined || Buffer.isBuffer(options.body) ? options.body : JSON.stringify(options.body);
  if (body !== undefined && headers["content-type"] === undefined)
    headers["content-type"] = "application/json";
  return await new Promise<Answer>((resolve, reject) => {
    const request = httpRequest(new URL(path, hub.url), { method, headers, agent: false });
    request.on("error", reject);
    request.on("response", (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const bytes = Buffer.concat(chunks);
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: bytes,
          json: () => JSON.parse(bytes.toString("utf8")) as Record<string, unknown>,
        });
        request.destroy();
      });
    });
    if (options.stream !== undefined) {
      void sendAll(request, options.stream, options.open === true).catch(reject);
      return;
    }
    if (body !== undefined) request.write(body as string | Buffer);
    if (options.open === true) request.flushHeaders();
    else request.end();
  });
}

async function sendAll(
  request: ReturnType<typeof httpRequest>,
  pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  open: boolean,
): Promise<void> {
  for await (const piece of pieces) {
    if (request.destroyed) return;
    if (!request.write(piece))
      await new Promise<void>((resolve) => {
        const go = () => {
          request.off("drain", go).off("close", go);
          resolve();
        };
        request.on("drain", go).on("close", go);
      });
  }
  if (!open) request.end();
}

/** Sends a request and expects 200 and JSON. */
export async function askJson<T>(
  hub: Pick<TestHub, "url" | "token">,
  method: string,
  path: string,
  body?: unknown,
): Promise<T> {
  const answer = await ask(hub, method, path, body === undefined ? {} : { body });
  assert.equal(answer.status, 200, answer.body.toString("utf8"));
  return answer.json() as T;
}

/** The code of an error answer. */
export function codeOf(answer: Answer): string {
  const body = answer.json() as { error?: { code?: string } };
  return body.error?.code ?? `no error, but status ${answer.status}`;
}

import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";

/** What something that only looks like a relay does with an answer of the hub. Undefined: gives it as it is. */
export type Mischief = (
  path: string,
  answer: { readonly status: number; readonly headers: IncomingMessage["headers"]; readonly body: Buffer },
  response: ServerResponse,
) => Buffer | "taken" | undefined;

export interface HostileRelay {
  readonly url: string;
  readonly requests: string[];
  /** Every Authorization header that was shown to it. */
  readonly tokens: Set<string>;
  close(): Promise<void>;
}

/** Hands requests on to a hub and does something to the answers. */
export async function startHostileRelay(
  t: Pick<TestContext, "after">,
  hub: string,
  mischief: Mischief,
): Promise<HostileRelay> {
  const requests: string[] = [];
  const tokens = new Set<string>();
  const server = createServer((incoming, response) => {
    const path = incoming.url ?? "/";
    requests.push(`${incoming.method} ${path}`);
    if (incoming.headers.authorization !== undefined) tokens.add(incoming.headers.authorization);
    const onward = request(
      `${hub}${path}`,
      { method: incoming.method ?? "GET", headers: { ...incoming.headers, "accept-encoding": "identity" } },
      (answer) => {
        const chunks: Buffer[] = [];
        answer.on("data", (chunk: Buffer) => chunks.push(chunk));
        answer.once("end", () => {
          const body = Buffer.concat(chunks);
          const status = answer.statusCode ?? 0;
          const changed = mischief(path, { status, headers: answer.headers, body }, response);
          if (changed === "taken") return;
          const { "content-length": _, "transfer-encoding": __, ...headers } = answer.headers;
          response.writeHead(status, headers);
          response.end(changed ?? body);
        });
        answer.once("error", () => response.destroy());
      },
    );
    onward.once("error", () => response.destroy());
    incoming.pipe(onward);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const close = async () => {
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
  };
  t.after(close);
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests, tokens, close };
}

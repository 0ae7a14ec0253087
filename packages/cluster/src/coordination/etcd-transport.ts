import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";

/** What proves to etcd's members who we are, and to us who they are; PEM. */
export interface EtcdTls {
  /** Null: the certificates that the machine trusts. */
  readonly ca: string | null;
  /** Both or none: a certificate of our own, where the members ask for one. */
  readonly cert: string | null;
  readonly key: string | null;
}

/** Requests to the members over connections that are kept. Answers are read no further than `bytesMax`. */
export class EtcdTransport {
  readonly #plain = new HttpAgent({ keepAlive: true });
  readonly #secure: HttpsAgent;

  constructor(tls: EtcdTls | null) {
    this.#secure = new HttpsAgent({
      keepAlive: true,
      ...(tls?.ca == null ? {} : { ca: tls.ca }),
      ...(tls?.cert == null || tls.key == null ? {} : { cert: tls.cert, key: tls.key }),
    });
  }

  /** Posts JSON. Resolves with the answer when its head is there; rejects with the system's error. */
  post(
    url: URL,
    body: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<IncomingMessage> {
    const isSecure = url.protocol === "https:";
    return new Promise((resolve, reject) => {
      const request = (isSecure ? httpsRequest : httpRequest)(url, {
        method: "POST",
        agent: isSecure ? this.#secure : this.#plain,
        headers: {
          "content-type": "application/json",
          "content-length": Buffer.byteLength(body),
          ...headers,
        },
        signal,
      });
      request.on("response", resolve);
      // Also after the answer began: then its reader learns of it by the stream.
      request.on("error", reject);
      request.end(body);
    });
  }

  /** Ends every connection, also those in use. */
  close(): void {
    this.#plain.destroy();
    this.#secure.destroy();
  }
}

/** An answer as text. Throws when it is longer than `bytesMax`. */
export async function readText(response: IncomingMessage, bytesMax: number): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > bytesMax) throw new Error(`the answer is longer than ${bytesMax} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

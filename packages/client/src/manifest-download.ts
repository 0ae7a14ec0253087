import { createHash } from "node:crypto";
import { promisify } from "node:util";
import { zstdDecompress } from "node:zlib";
import type { Sha256 } from "@lockstep/core";
import { LockstepError } from "@lockstep/protocol/wire";
import type { HubConnection, RequestDescription } from "./connection.ts";
import { invalidAnswer } from "./failures.ts";

const DELTA_BYTES_MAX = 64 * 1024 * 1024;
const decompress = promisify(zstdDecompress);

async function readText(
  connection: HubConnection,
  description: RequestDescription,
  bytesMax: number,
): Promise<{ status: number; body: Buffer }> {
  const answer = await connection.read(description, bytesMax);
  if (answer.headers["content-encoding"] !== "zstd") return answer;
  try {
    // The cap on the decoded length: a few bytes of zstd can stand for gigabytes.
    return { status: answer.status, body: await decompress(answer.body, { maxOutputLength: bytesMax }) };
  } catch (cause) {
    const problem = "its compression is broken or it is longer than promised";
    throw invalidAnswer(
      connection.url.origin,
      description.path,
      problem,
      bytesMax,
      answer.body.length,
      cause,
    );
  }
}

/** Fetches a manifest's text and verifies it. Throws MANIFEST_INVALID when length or digest differ. */
export async function readManifest(
  connection: HubConnection,
  path: string,
  promised: { readonly sha256: Sha256; readonly size: number },
  target: string,
  signal: AbortSignal | undefined,
): Promise<string> {
  const headers = { "accept-encoding": "zstd" };
  const description: RequestDescription = { method: "GET", path, headers, signal };
  const { body } = await readText(connection, description, Math.max(promised.size, 1024));
  const found = createHash("sha256").update(body).digest("hex");
  if (found !== promised.sha256)
    throw new LockstepError(
      "MANIFEST_INVALID",
      `the manifest of ${target} is not the one that was promised`,
      {
        expected: promised.sha256,
        found,
        hint: "Nothing was changed. Look at the hub's log; a proxy between may have altered the answer.",
      },
    );
  return body.toString("utf8");
}

/** Fetches the difference of two manifests; null when the hub does not know one of them any more. */
export async function readDelta(
  connection: HubConnection,
  path: string,
  bytesMax: number,
  signal: AbortSignal | undefined,
): Promise<string | null> {
  const headers = { "accept-encoding": "zstd" };
  const description: RequestDescription = { method: "GET", path, headers, signal, accept: [404] };
  const { status, body } = await readText(connection, description, Math.min(bytesMax, DELTA_BYTES_MAX));
  return status === 404 ? null : body.toString("utf8");
}

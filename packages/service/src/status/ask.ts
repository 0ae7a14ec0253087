import { join } from "node:path";
import { isLoopback } from "@lockstep/platform";
import { isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import type { Environment } from "../config/load.ts";
import type { ServiceConfig } from "../config/types.ts";
import { MADE_UP_FILE, MADE_UP_USER, readPassword } from "./authentication.ts";
import type { StatusDocument } from "./server.ts";
import { readStatusUrl } from "./url-file.ts";

export interface StatusAddress {
  readonly url: string;
  readonly credentials: { readonly user: string; readonly password: string } | null;
}

const TIMEOUT_MS = 10_000;

/** Where the page of the service with this configuration is, and how to get in; on the same machine. */
export async function findStatusPage(
  config: ServiceConfig,
  environment: Environment,
): Promise<StatusAddress> {
  const { address, port, authentication } = config.status;
  const { stateDirectory } = config.service;
  const configured = `http://${isV6(address) ? `[${address}]` : address}:${port}/`;
  const url = URL.parse((await readStatusUrl(stateDirectory)) ?? configured);
  if (url === null || (url.port === "0" && port === 0))
    throw unreachable(configured, "the port is any free one, and no service has left word");
  // What listens everywhere listens here too.
  if (url.hostname === "0.0.0.0") url.hostname = "127.0.0.1";
  if (url.hostname === "[::]") url.hostname = "[::1]";
  if (authentication === null && isLoopback(address)) return { url: url.href, credentials: null };
  const user = authentication?.user ?? MADE_UP_USER;
  const source = authentication?.password ?? { file: join(stateDirectory, MADE_UP_FILE) };
  const password =
    "file" in source ? await readPassword(source.file) : (environment[source.environment] ?? null);
  return { url: url.href, credentials: password === null ? null : { user, password } };
}

const isV6 = (address: string) => address.includes(":") && !address.startsWith("[");

/** Asks a status page. Throws SERVICE_UNREACHABLE. */
export async function askStatus({ url, credentials }: StatusAddress): Promise<StatusDocument> {
  try {
    const authorization =
      credentials === null
        ? null
        : Buffer.from(`${credentials.user}:${credentials.password}`).toString("base64");
    const response = await fetch(new URL("status.json", url), {
      headers: authorization === null ? {} : { Authorization: `Basic ${authorization}` },
      signal: AbortSignal.timeout(TIMEOUT_MS),
      // A password goes to where it was meant for.
      redirect: "error",
    });
    if (response.status === 401) throw unreachable(url, "it asks for another user or password");
    if (!response.ok) throw unreachable(url, `status ${response.status}`);
    const document: unknown = await response.json();
    if (isStatus(document)) return document;
    throw unreachable(url, "an answer that is none of a job service");
  } catch (cause) {
    if (isLockstepError(cause)) throw cause;
    const inner =
      cause instanceof Error && cause.cause instanceof Error ? cause.cause.message : String(cause);
    throw unreachable(url, inner, cause);
  }
}

function isStatus(value: unknown): value is StatusDocument {
  if (typeof value !== "object" || value === null || !("service" in value)) return false;
  const { service } = value;
  return typeof service === "object" && service !== null && "phase" in service && "queues" in service;
}

function unreachable(url: string, found: string, cause?: unknown): LockstepError {
  return new LockstepError("SERVICE_UNREACHABLE", `the status page ${url} does not answer as it should`, {
    found,
    cause,
    hint: "Does the service run? Is --config the file that it runs with?",
  });
}

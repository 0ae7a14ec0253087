import type { IncomingMessage } from "node:http";
import { fromErrorBody, LockstepError } from "@lockstep/protocol/wire";

/**
 * What can go wrong between us and a hub, in words that an administrator can act on. Each error names the hub, what
 * was found and what to do next; the cause keeps the system's own error.
 */
const REASONS: Record<string, { problem: string; hint: string }> = {
  ECONNREFUSED: {
    problem: "nothing listens there",
    hint: "Check that the hub runs and that the port is right.",
  },
  ENOTFOUND: {
    problem: "the name is unknown",
    hint: "Check the spelling of the address and this machine's name resolution.",
  },
  EAI_AGAIN: {
    problem: "the name could not be resolved just now",
    hint: "Check this machine's name resolution, then try again.",
  },
  ETIMEDOUT: {
    problem: "it does not answer in time",
    hint: "Check the network and firewall between this machine and the hub, then try again.",
  },
  EHOSTUNREACH: { problem: "there is no route to it", hint: "Check the network of this machine." },
  ENETUNREACH: { problem: "there is no network to it", hint: "Check the network of this machine." },
  ECONNRESET: {
    problem: "the connection was cut",
    hint: "Try again; what has arrived already is not fetched twice.",
  },
  EPIPE: {
    problem: "the connection was cut",
    hint: "Try again; what has arrived already is not fetched twice.",
  },
  EPROTO: {
    problem: "it does not speak TLS there",
    hint: "Use http:// for a hub without certificate, https:// for one with.",
  },
};

function codeOf(error: unknown): string {
  if (error instanceof AggregateError) return codeOf(error.errors[0]);
  const code = (error as { code?: unknown } | null)?.code;
  if (code === "ERR_STREAM_PREMATURE_CLOSE" || code === "ERR_STREAM_DESTROYED") return "ECONNRESET";
  if (typeof code === "string") return code;
  return (error as { message?: unknown } | null)?.message === "aborted" ? "ECONNRESET" : "UNKNOWN";
}

/** Of faults that no authority's certificate mends. */
const CERTIFICATE_HINTS: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED:
    "Renew the certificate there and restart what serves with it; else correct this machine's clock.",
  CERT_NOT_YET_VALID: "Correct this machine's clock, or the certificate there.",
  ERR_TLS_CERT_ALTNAME_INVALID:
    "Use the name that the certificate bears, or add this one to the certificate.",
};

function isCertificateFault(code: string): boolean {
  return /CERT|SIGNATURE|ALTNAME|UNABLE_TO_VERIFY|CRL|ISSUER/.test(code) && !code.startsWith("ECONN");
}

/** A connection that did not come about or broke. */
export function connectionError(url: URL, error: unknown): LockstepError {
  const code = codeOf(error);
  if (isCertificateFault(code))
    return new LockstepError("HUB_CERTIFICATE_REFUSED", `the certificate of ${url.origin} is not trusted`, {
      expected: `a certificate for ${url.hostname} from a trusted authority`,
      found: code,
      hint: CERTIFICATE_HINTS[code] ?? "Give the authority's certificate by --ca-file FILE or LOCKSTEP_CA.",
      cause: error,
    });
  const reason = REASONS[code];
  const detail = reason?.problem ?? (error instanceof Error ? error.message : String(error));
  return new LockstepError("HUB_UNREACHABLE", `the hub at ${url.origin} cannot be reached: ${detail}`, {
    expected: url.origin,
    found: code,
    hint: reason?.hint ?? "Check the address, the network and the hub's log.",
    cause: error,
  });
}

/** The caller's own signal ended it. */
export function interrupted(signal: AbortSignal): LockstepError {
  if (signal.reason instanceof LockstepError) return signal.reason;
  return new LockstepError("INTERRUPTED", "stopped before it was done", {
    hint: "Run it again: it goes on where it stopped.",
    cause: signal.reason,
  });
}

/** An answer that no hub of ours would give. */
export function invalidAnswer(
  origin: string,
  path: string,
  problem: string,
  expected: string | number,
  found: string | number,
  cause?: unknown,
): LockstepError {
  return new LockstepError(
    "HUB_ANSWER_INVALID",
    `${origin} gave an unusable answer to ${path.split("?")[0]}: ${problem}`,
    {
      expected,
      found,
      hint: "Check that the address is that of a hub of this version and that no proxy between alters answers.",
      cause,
    },
  );
}

/** Seconds of a Retry-After header; dates are not written by the hub and count as absent. */
export function retryAfterSeconds(header: string | undefined): number | undefined {
  if (header === undefined || !/^\d{1,7}$/.test(header.trim())) return undefined;
  return Number(header);
}

/** What a refusing answer says: the hub's own error, or what can be told from the status of something between. */
export function answerError(
  origin: string,
  path: string,
  response: IncomingMessage,
  body: Buffer,
): LockstepError {
  const status = response.statusCode ?? 0;
  const retry = retryAfterSeconds(response.headers["retry-after"]);
  try {
    const said = fromErrorBody(JSON.parse(body.toString("utf8")), retry);
    if (said !== null) return said;
  } catch {
    // Not the hub's own words: a proxy's page, or nothing.
  }
  const details = { found: status, ...(retry === undefined ? {} : { retryAfterSeconds: retry }) };
  if (status === 401)
    return new LockstepError("AUTHENTICATION_REQUIRED", `${origin} asks for a token`, {
      ...details,
      hint: "Set LOCKSTEP_TOKEN or name a token file.",
    });
  if (status === 403)
    return new LockstepError("AUTHENTICATION_FAILED", `${origin} does not accept the token`, {
      ...details,
      hint: "Check the token against the file `token` in the hub's data directory.",
    });
  if (status === 429 || status === 502 || status === 503 || status === 504)
    return new LockstepError("HUB_BUSY", `${origin} cannot answer just now (status ${status})`, {
      ...details,
      hint: "Try again later; if it stays, look at the hub and at the proxy before it.",
    });
  return invalidAnswer(origin, path, `status ${status} without a reason`, "an answer of a hub", status);
}

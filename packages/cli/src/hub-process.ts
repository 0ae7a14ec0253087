import {
  createLogger,
  type LogLevel,
  listenForInterruption,
  parseLogLevel,
  systemClock,
} from "@lockstep/platform";
import { usage } from "./options.ts";

export interface HubProcessOptions {
  readonly data?: string;
  readonly database?: string;
  readonly listen?: string;
  readonly dev?: boolean;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly logLevel?: string;
  readonly migrate?: boolean;
}

/**
 * `lockstep hub`: serves until SIGTERM or SIGINT. When it serves it says `ready URL` on standard output, once; its log
 * goes to standard error. The first signal drains (requests and tasks under way come to their end), a second one ends
 * at once; what was acknowledged is safe either way.
 */
export async function serveHub(options: HubProcessOptions): Promise<void> {
  if (options.data === undefined)
    throw usage(
      "the hub needs a directory of its own",
      "--data DIR",
      undefined,
      "It keeps database, token and cache there.",
    );
  if ((options.tlsCert === undefined) !== (options.tlsKey === undefined))
    throw usage("--tls-cert and --tls-key belong together");
  const { startHub } = await import("@lockstep/hub");
  using interruption = listenForInterruption();
  const hub = await startHub({
    dataDirectory: options.data,
    database: options.database ?? null,
    development: options.dev === true,
    migrate: options.migrate === true,
    // Only where somebody encrypted the key files of the data directory.
    keyPassphrase: process.env.LOCKSTEP_KEY_PASSPHRASE ?? null,
    tls:
      options.tlsCert === undefined || options.tlsKey === undefined
        ? null
        : { certFile: options.tlsCert, keyFile: options.tlsKey },
    log: createLogger({
      level: readLevel(options.logLevel),
      // A person reads it where there is a terminal; where there is none, something collects it.
      format: process.stderr.isTTY === true ? "text" : "json",
      write: (line) => process.stderr.write(line),
      clock: systemClock,
    }),
    ...(options.listen === undefined ? {} : { listen: options.listen }),
  });
  try {
    process.stdout.write(`ready ${hub.url}\n`);
    await untilAborted(interruption.signal);
  } finally {
    await hub.stop();
  }
}

function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

function readLevel(text: string | undefined): LogLevel {
  const level = parseLogLevel(text ?? "info");
  if (level === null) throw usage("--log-level takes a level", "debug, info, warn or error", text);
  return level;
}

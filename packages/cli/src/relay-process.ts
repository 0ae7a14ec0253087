import {
  createLogger,
  type LogLevel,
  listenForInterruption,
  parseLogLevel,
  systemClock,
} from "@lockstep/platform";
import { demandHub } from "./connect.ts";
import type { HubArguments } from "./hub-address.ts";
import { usage } from "./options.ts";

export interface RelayProcessOptions extends HubArguments {
  readonly data?: string;
  readonly listen?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly cacheSize?: number;
  readonly stepWait?: number;
  readonly reportWait?: number;
  readonly carried?: boolean;
  readonly logLevel?: string;
}

/**
 * `lockstep relay`: serves until SIGTERM or SIGINT. When it serves it says `ready URL` on standard output, once; its log
 * goes to standard error.
 */
export async function serveRelay(options: RelayProcessOptions): Promise<void> {
  const { data, listen, tlsCert, tlsKey, cacheSize, stepWait, reportWait } = options;
  if (data === undefined)
    throw usage(
      "the relay needs a directory of its own",
      "--data DIR",
      undefined,
      "It keeps its cache there.",
    );
  if ((tlsCert === undefined) !== (tlsKey === undefined))
    throw usage("--tls-cert and --tls-key belong together");
  const url = options.carried === true ? null : demandHub(options);
  const { startCarriedRelay, startRelay } = await import("@lockstep/relay");
  using interruption = listenForInterruption();
  const common = {
    dataDirectory: data,
    tls: tlsCert === undefined || tlsKey === undefined ? null : { certFile: tlsCert, keyFile: tlsKey },
    log: createLogger({
      level: readLevel(options.logLevel),
      format: process.stderr.isTTY === true ? "text" : "json",
      write: (line) => process.stderr.write(line),
      clock: systemClock,
    }),
    ...(listen === undefined ? {} : { listen }),
  };
  const relay =
    url === null
      ? await startCarriedRelay(common)
      : await startRelay({
          ...common,
          hub: { url, caFile: options.caFile ?? (process.env.LOCKSTEP_CA || null) },
          ...(cacheSize === undefined ? {} : { cacheBytesMax: cacheSize * 2 ** 20 }),
          ...(stepWait === undefined ? {} : { stepWaitSeconds: stepWait }),
          ...(reportWait === undefined ? {} : { gathering: { holdMs: reportWait * 1000 } }),
        });
  try {
    process.stdout.write(`ready ${relay.url}\n`);
    await new Promise<void>((done) => {
      if (interruption.signal.aborted) done();
      else interruption.signal.addEventListener("abort", () => done(), { once: true });
    });
  } finally {
    await relay.stop();
  }
}

function readLevel(text: string | undefined): LogLevel {
  const level = parseLogLevel(text ?? "info");
  if (level === null) throw usage("--log-level takes a level", "debug, info, warn or error", text);
  return level;
}

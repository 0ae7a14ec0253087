import {
  createLogger,
  listenForInterruption,
  parseLogLevel,
  ServiceManager,
  systemClock,
} from "@lockstep/platform";
import type { Command } from "commander";
import { usage } from "../options.ts";
import { PRODUCT_VERSION } from "../version.ts";
import { defineNodeInstall } from "./node-install.ts";

const CONFIG_DEFAULT = "/etc/lockstep/node.toml";

interface NodeArguments {
  readonly config?: string;
  readonly logLevel?: string;
}

/** `lockstep node`: the daemon of a cluster's node. */
export function define(command: Command): void {
  command
    .option("--config <file>", `the node configuration (else LOCKSTEP_NODE_CONFIG, else ${CONFIG_DEFAULT})`)
    .option("--log-level <level>", "debug, info, warn or error")
    .action(runTheNode);
  defineNodeInstall(command, CONFIG_DEFAULT);
}

/**
 * Runs until SIGTERM or SIGINT; then everything goes offline in order and every lease is given back. When it hears the
 * others it says `ready NAME ADDRESS` on standard output, once; its log goes to standard error.
 */
async function runTheNode({ config, logLevel }: NodeArguments): Promise<void> {
  const level = parseLogLevel(logLevel ?? "info");
  if (level === null) throw usage("--log-level takes a level", "debug, info, warn or error", logLevel);
  const { runNode } = await import("@lockstep/cluster");
  using interruption = listenForInterruption();
  const manager = new ServiceManager(process.env);
  interruption.signal.addEventListener("abort", () => manager.stopping(), { once: true });
  try {
    await runNode({
      configFile: config ?? (process.env.LOCKSTEP_NODE_CONFIG || CONFIG_DEFAULT),
      version: PRODUCT_VERSION,
      log: createLogger({
        level,
        format: process.stderr.isTTY === true ? "text" : "json",
        write: (line) => process.stderr.write(line),
        clock: systemClock,
      }),
      signal: interruption.signal,
      ready: ({ node, address }) => {
        process.stdout.write(`ready ${node} ${address}\n`);
        manager.ready(`node ${node} at ${address}`);
        manager.watch(() => true);
      },
    });
  } finally {
    manager.close();
  }
}

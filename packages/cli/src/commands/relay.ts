import type { Command } from "commander";
import { wholeNumber } from "../options.ts";

/** `lockstep relay`: fetches what the installations of a site share once. */
export function define(command: Command): void {
  command
    .option("--hub <url>", "address of the hub (else LOCKSTEP_HUB)")
    .option("--carried", "without a hub: serve what `lockstep bundle import` brought into --data")
    .option("--ca-file <file>", "certificates in PEM to trust for the hub")
    .option("--data <directory>", "where the relay keeps its cache")
    .option("--listen <host:port>", "where to listen (else 127.0.0.1:8701; port 0: any free one)")
    .option("--tls-cert <file>", "certificate in PEM, to serve HTTPS")
    .option("--tls-key <file>", "its private key in PEM")
    .option(
      "--cache-size <mebibytes>",
      "how much the cache may hold (else 20480)",
      wholeNumber("--cache-size", 16, 2 ** 24),
    )
    .option(
      "--step-wait <seconds>",
      "how long to wait for a step that the hub still makes (else 20)",
      wholeNumber("--step-wait", 0, 30),
    )
    .option(
      "--report-wait <seconds>",
      "how long reports may wait for those of others (else 60; 0: not at all)",
      wholeNumber("--report-wait", 0, 300),
    )
    .option("--log-level <level>", "debug, info, warn or error")
    .action(async (options) => {
      const { serveRelay } = await import("../relay-process.ts");
      await serveRelay(options);
    });
}

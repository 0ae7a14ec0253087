import { resolve } from "node:path";
import type { Command } from "commander";
import { givenHubUrl, type HubArguments } from "../hub-address.ts";

/** `lockstep check DIR`, taken from the command line. */
export interface CheckRequest extends HubArguments {
  readonly directory: string;
  readonly json: boolean;
}

const BEHIND = 10;
const VALUES = { "--hub": "hub", "--token-file": "tokenFile", "--ca-file": "caFile" } as const;

/**
 * Reads the arguments of a check by hand, because loading the argument parser would take as long as the check itself.
 * Returns null for everything unusual (help, faults): that is left to the parser.
 */
export function parseCheck(argv: readonly string[]): CheckRequest | null {
  const given: { hub?: string; tokenFile?: string; caFile?: string } = {};
  let directory: string | null = null;
  let json = false;
  for (let index = 0; index < argv.length; index++) {
    const word = argv[index] ?? "";
    if (word === "--json") json = true;
    else if (Object.hasOwn(VALUES, word)) {
      const value = argv[++index];
      if (value === undefined || value.startsWith("-")) return null;
      given[VALUES[word as keyof typeof VALUES]] = value;
    } else if (word.startsWith("-") || word === "" || directory !== null) return null;
    else directory = word;
  }
  return directory === null ? null : { directory, json, ...given };
}

/**
 * Whether an installation is in step. Exit status 0: it is; 10: it is behind. Equal revisions: none of the product's
 * files is opened, nothing is written.
 */
export async function runCheck(request: CheckRequest): Promise<number> {
  const { check } = await import("@lockstep/updater");
  const result = await check(request.directory, {
    access: {
      url: givenHubUrl(request) ?? undefined,
      caFile: request.caFile,
      tokenFile: request.tokenFile,
      environment: process.env,
    },
  });
  const inStep = result.kind === "in-step";
  const installed = inStep ? result.revision : result.installed;
  const current = inStep ? result.revision : result.semaphore.revision;
  process.stdout.write(
    request.json
      ? `${JSON.stringify({ directory: resolve(request.directory), inStep, installed, current })}\n`
      : inStep
        ? `in step: software revision ${current}\n`
        : `behind: software revision ${installed ?? "unknown"}, the hub has ${current}\n`,
  );
  return inStep ? 0 : BEHIND;
}

/** The same for the argument parser: its help, and what `parseCheck` leaves to it. */
export function define(command: Command): void {
  command
    .argument("<directory>", "the installation")
    .option("--hub <url>", "address of the hub (else LOCKSTEP_HUB, else the one of the installation)")
    .option("--token-file <file>", "file with the hub's token (else LOCKSTEP_TOKEN)")
    .option("--ca-file <file>", "certificates in PEM to trust instead of the machine's own")
    .option("--json", "one JSON document on standard output")
    .action(async (directory: string, options: Omit<CheckRequest, "directory">) => {
      const { Finished } = await import("../failure.ts");
      throw new Finished(await runCheck({ ...options, directory, json: options.json === true }));
    });
}

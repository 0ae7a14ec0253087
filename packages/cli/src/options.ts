import { LockstepError } from "@lockstep/protocol/wire";
import type { Command } from "commander";

/** The options of every command that talks to a hub. */
export function addHubOptions(command: Command): Command {
  return command
    .option("--hub <url>", "address of the hub (else LOCKSTEP_HUB)")
    .option("--token-file <file>", "file with the hub's token (else LOCKSTEP_TOKEN)")
    .option("--ca-file <file>", "certificates in PEM to trust instead of the machine's own");
}

/** The option of every command that gives data. */
export function addJsonOption(command: Command): Command {
  return command.option("--json", "one JSON document on standard output");
}

/** Collects an option that may repeat; each value may be a comma list. */
export function collectList(value: string, before: string[] | undefined): string[] {
  const words = value
    .split(",")
    .map((word) => word.trim())
    .filter((word) => word !== "");
  return [...(before ?? []), ...words];
}

/** Collects an option that may repeat, as it is. */
export function collect(value: string, before: string[] | undefined): string[] {
  return [...(before ?? []), value];
}

/** Reads a whole number of an option. Throws USAGE. */
export function wholeNumber(name: string, min: number, max: number): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (/^[0-9]+$/.test(value) && number >= min && number <= max) return number;
    const range = max === Number.MAX_SAFE_INTEGER ? `${min} or more` : `${min} to ${max}`;
    throw usage(`${name} takes a whole number`, `${range}, in digits alone`, value);
  };
}

/** A fault of the command line that the parser cannot see. */
export function usage(message: string, expected?: string, found?: string, hint = NEXT_STEP): LockstepError {
  return new LockstepError("USAGE", message, {
    ...(expected === undefined ? {} : { expected }),
    // Nothing at all would be seen by nobody.
    ...(found === undefined ? {} : { found: found === "" ? "an empty text" : found }),
    hint,
  });
}

const NEXT_STEP =
  "Nothing was done. The command with --help behind it says what it takes; correct it and run it again.";

import { resolve } from "node:path";
import { EDITS_POLICIES, type EditsPolicy, parseEditsPolicy } from "@lockstep/core";
import type { HubAccess } from "@lockstep/updater";
import type { Command } from "commander";
import { givenHubUrl, type HubArguments } from "./hub-address.ts";
import { addHubOptions, addJsonOption, usage, wholeNumber } from "./options.ts";

/** What the commands that work on an installation have in common. */
export interface InstallationArguments extends HubArguments {
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** Those that change it. */
export interface ChangeArguments extends InstallationArguments {
  readonly waitLock?: number;
  readonly edits?: EditsPolicy;
}

const LOCK_WAIT_SECONDS_MAX = 86_400;

/** The argument and options of every command on an installation. The hub is the one that the installation names. */
export function addInstallationArguments(command: Command): Command {
  // Absolute from here on: what a script reads of it must not depend on where it was called.
  const absolute = (directory: string) => resolve(directory);
  return addJsonOption(addHubOptions(command.argument("<directory>", "the installation", absolute)))
    .option("--relay <url>", "a relay that is asked before the hub (else LOCKSTEP_RELAY); none: no relay")
    .option("--quiet", "no remarks and no progress");
}

/** Also those of the commands that change it. */
export function addChangeArguments(command: Command): Command {
  return addInstallationArguments(command).option(
    "--wait-lock <seconds>",
    "how long to wait for another update that works there",
    wholeNumber("--wait-lock", 0, LOCK_WAIT_SECONDS_MAX),
  );
}

/** The option of the commands that may meet edited files. */
export function addEditsOption(command: Command): Command {
  return command.option(
    "--edits <policy>",
    "what becomes of edited files: replace, keep or keep-and-report",
    readEdits,
  );
}

/** Reads a policy for edited files. Throws USAGE. */
export function readEdits(text: string): EditsPolicy {
  const policy = parseEditsPolicy(text);
  if (policy === null) throw usage("--edits takes a policy", EDITS_POLICIES.join(", "), text);
  return policy;
}

/** Reads an on or off. Throws USAGE. */
export function readSwitch(option: string): (text: string) => boolean {
  return (text) => {
    if (text === "on" || text === "true") return true;
    if (text === "off" || text === "false") return false;
    throw usage(`${option} takes a switch`, "on or off", text);
  };
}

/** How the updater reaches the hub: what was given here outranks what the installation says. */
export function accessOf(given: HubArguments): HubAccess {
  return {
    url: givenHubUrl(given) ?? undefined,
    caFile: given.caFile,
    tokenFile: given.tokenFile,
    relay: given.relay,
    environment: process.env,
  };
}

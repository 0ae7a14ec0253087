import { listenForInterruption, printable } from "@lockstep/platform";
import type { AgentEvent } from "@lockstep/updater";
import type { Command } from "commander";
import { accessOf, type InstallationArguments } from "../installation.ts";
import { addHubOptions, addJsonOption, wholeNumber } from "../options.ts";
import { counted, formatBytes, formatDuration, formatUtc } from "../screen/format.ts";
import { Output } from "../screen/output.ts";

interface AgentArguments extends InstallationArguments {
  readonly follow?: boolean;
  readonly once?: boolean;
  readonly verifyHours?: number;
}

/** `lockstep agent DIR...`: keeps installations in step until it is told to stop; with `--json` one event a line. */
export function define(command: Command): void {
  addJsonOption(addHubOptions(command.argument("<directory...>", "the installations")))
    .option("--no-follow", "ask at intervals instead of waiting at the hub for a change")
    .option("--once", "look at each installation once, then end")
    .option(
      "--verify-hours <hours>",
      "hours between two full verifications (else 24; 0: never)",
      wholeNumber("--verify-hours", 0, 8760),
    )
    .action(runTheAgent);
}

async function runTheAgent(directories: readonly string[], options: AgentArguments): Promise<void> {
  const { runAgent } = await import("@lockstep/updater");
  const output = new Output(options);
  using interruption = listenForInterruption();
  let failed = false;
  await runAgent({
    access: accessOf(options),
    directories,
    follow: options.follow !== false,
    once: options.once === true,
    signal: interruption.signal,
    ...(options.verifyHours === undefined ? {} : { verifyEveryMs: options.verifyHours * 3_600_000 }),
    onEvent: (event) => {
      failed ||= event.kind === "failed";
      // Amounts are for screens; an agent has none.
      if (event.kind === "progress" && event.event.kind !== "notice") return;
      output.document({ time: new Date().toISOString(), ...event });
      const words = describe(event, options.once === true);
      if (words !== null)
        output.line(`${formatUtc(Date.now())}  ${printable(event.directory)}  ${printable(words)}`);
    },
  });
  if (options.once === true && failed) {
    const { Finished } = await import("../failure.ts");
    throw new Finished(1);
  }
}

function describe(event: AgentEvent, once: boolean): string | null {
  switch (event.kind) {
    case "watching":
      return `watching, software revision ${event.revision ?? "unknown"}, hub ${event.hub}`;
    case "in-step":
      return `in step: software revision ${event.revision}`;
    case "updating":
      return `updating to software revision ${event.to}`;
    case "updated":
      return `software revision ${event.to} (before: ${event.from ?? "unknown"}): ${counted(event.changes, "change")}, ${formatBytes(event.receivedBytes)} received`;
    case "disabled":
      return `software revision ${event.to} is there, but automatic updates are switched off (${event.by})`;
    case "postponed":
      return `software revision ${event.to} waits for the time of large updates, for ${formatDuration(event.minutes * 60_000)}`;
    case "quarantined":
      return `software revision ${event.revision} failed ${counted(event.failures, "time")} here and is not tried again`;
    case "failed":
      return `failed: ${event.problem}${once ? "" : `; next try in ${formatDuration(event.retryMs)}`}`;
    case "damaged":
      return `${counted(event.files, "file was", "files were")} not as installed${event.repaired ? "; mending them" : ""}`;
    case "log-altered":
      return `update.log was altered: ${event.file}, line ${event.line} (lockstep log says more)`;
    case "progress":
      return event.event.kind === "notice" ? event.event.message : null;
    case "stopped":
      return "stopped";
  }
}

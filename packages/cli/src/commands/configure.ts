import type { EditsPolicy } from "@lockstep/core";
import { printable } from "@lockstep/platform";
import type { Command } from "commander";
import { addEditsOption, readSwitch } from "../installation.ts";
import { addJsonOption } from "../options.ts";
import { RunView } from "../screen/run-view.ts";

interface ConfigureArguments {
  readonly json?: boolean;
  readonly autoUpdate?: boolean;
  readonly edits?: EditsPolicy;
  readonly setHub?: string;
  readonly setTokenFile?: string;
  readonly setCaFile?: string;
}

/** `lockstep configure`: shows the settings of one installation, and changes them. */
export function define(command: Command): void {
  addJsonOption(addEditsOption(command.argument("<directory>", "the installation")))
    .option("--auto-update <switch>", "on or off: whether it follows by itself", readSwitch("--auto-update"))
    .option("--set-hub <url>", "another hub from now on")
    .option("--set-token-file <file>", "where its token stands; none: nowhere")
    .option("--set-ca-file <file>", "certificates to trust; none: the machine's own")
    .action(runConfigure);
}

async function runConfigure(directory: string, options: ConfigureArguments): Promise<void> {
  const { configure } = await import("@lockstep/updater");
  using view = new RunView(options);
  const { output } = view;
  const state = await configure(
    directory,
    {
      autoUpdate: options.autoUpdate,
      edits: options.edits,
      hubUrl: options.setHub,
      tokenFile: options.setTokenFile === "none" ? null : options.setTokenFile,
      caFile: options.setCaFile === "none" ? null : options.setCaFile,
    },
    view.session({}),
  );
  const { id, hub, settings, rolesChosen, packagesChosen } = state;
  output.document({ directory, id, hub, settings, roles: rolesChosen, packages: packagesChosen });
  const lines: [string, string][] = [
    ["installation", id],
    ["hub", hub.url],
    ["token file", hub.tokenFile ?? "-"],
    ["certificates", hub.caFile ?? "the machine's own"],
    ["machine roles", rolesChosen.join(", ") || "-"],
    ["packages", packagesChosen.join(", ") || "-"],
    ["auto-update", settings.autoUpdate ? "on" : "off"],
    ["edited files", settings.edits],
  ];
  for (const [name, value] of lines) output.line(`${name.padEnd(14)} ${printable(value)}`);
}

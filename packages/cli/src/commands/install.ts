import type { EditsPolicy } from "@lockstep/core";
import type { Command } from "commander";
import { demandHub } from "../connect.ts";
import { addChangeArguments, addEditsOption, type ChangeArguments, readSwitch } from "../installation.ts";
import { collectList } from "../options.ts";
import { readRootFile } from "../root-file.ts";
import { tellRun } from "../screen/run-text.ts";
import { RunView } from "../screen/run-view.ts";
import { readEnrolmentSecret } from "../secret-file.ts";

interface InstallArguments extends ChangeArguments {
  readonly role?: readonly string[];
  readonly package?: readonly string[];
  readonly edits?: EditsPolicy;
  readonly autoUpdate?: boolean;
  readonly root?: string;
  readonly enrol?: string;
}

/** `lockstep install`: builds an installation from the hub alone. */
export function define(command: Command): void {
  addEditsOption(addChangeArguments(command))
    .option(
      "--role <role>",
      "a machine role by its full path; repeatable or a comma list; parents come along",
      collectList,
    )
    .option("--package <package>", "an installation package; what it needs comes along", collectList)
    .option(
      "--root <file>",
      "the root of trust, from the owner of the release keys (else the first that the hub shows)",
    )
    .option(
      "--enrol <file>",
      "a secret of lockstep fleet enrol: the hub notes its key (else LOCKSTEP_ENROLMENT)",
    )
    .option("--auto-update <switch>", "on or off: whether it follows by itself", readSwitch("--auto-update"))
    .action(async (directory: string, options: InstallArguments) => {
      demandHub(options);
      const { install } = await import("@lockstep/updater");
      using view = new RunView(options);
      const result = await install(directory, {
        ...view.session(options),
        roles: options.role ?? [],
        packages: options.package ?? [],
        edits: options.edits,
        autoUpdate: options.autoUpdate,
        enrolment: await readEnrolmentSecret(options.enrol, false),
        root: options.root === undefined ? null : await readRootFile(options.root),
      });
      tellRun(view.output, directory, result);
    });
}

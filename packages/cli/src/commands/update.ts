import type { Command } from "commander";
import { addChangeArguments, addEditsOption, type ChangeArguments } from "../installation.ts";
import { tellRun } from "../screen/run-text.ts";
import { RunView } from "../screen/run-view.ts";

/** `lockstep update`: brings an installation to the current software revision. */
export function define(command: Command): void {
  addEditsOption(addChangeArguments(command)).action(async (directory: string, options: ChangeArguments) => {
    const { update } = await import("@lockstep/updater");
    using view = new RunView(options);
    const result = await update(directory, {
      ...view.session(options),
      edits: options.edits,
      trigger: "manual",
    });
    tellRun(view.output, directory, result);
  });
}

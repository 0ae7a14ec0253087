import type { Command } from "commander";
import { addChangeArguments, addEditsOption, type ChangeArguments } from "../installation.ts";
import { tellSums } from "../screen/run-text.ts";
import { RunView } from "../screen/run-view.ts";

/** `lockstep repair`: reads every file and brings back what is not as installed. */
export function define(command: Command): void {
  addEditsOption(addChangeArguments(command)).action(async (directory: string, options: ChangeArguments) => {
    const { repair } = await import("@lockstep/updater");
    using view = new RunView(options);
    const { revision, sums, run } = await repair(directory, {
      ...view.session(options),
      edits: options.edits,
    });
    view.output.document({ directory, revision, sums, kept: run.kept, notices: run.notices });
    tellSums(view.output, run);
    view.output.line(`software revision ${revision}: ${sums.add + sums.replace} mended`);
  });
}

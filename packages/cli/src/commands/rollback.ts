import type { Command } from "commander";
import { addChangeArguments, type ChangeArguments } from "../installation.ts";
import { RunView } from "../screen/run-view.ts";

/** `lockstep rollback`: takes the last update back, with what was kept of it. Needs no hub. */
export function define(command: Command): void {
  addChangeArguments(command).action(async (directory: string, options: ChangeArguments) => {
    const { rollback } = await import("@lockstep/updater");
    using view = new RunView(options);
    const { from, to, restored, removed, switchMs } = await rollback(directory, view.session(options));
    view.output.document({ directory, from, to, restored, removed, switchMs });
    view.output.note(`${restored} restored, ${removed} removed`);
    view.output.line(`software revision ${to} (before: ${from})`);
  });
}

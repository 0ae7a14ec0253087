import { printable } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { Command } from "commander";
import { Finished, formatFailure } from "../failure.ts";
import { addEditsOption, addInstallationArguments, type ChangeArguments } from "../installation.ts";
import { changesFiles, describeOperation, describeSums } from "../screen/plan-text.ts";
import { RunView } from "../screen/run-view.ts";

const PENDING = 10;
const REFUSED = 3;

/** `lockstep plan`: what an update would change, and why. Exit status 0: nothing; 10: changes are pending. */
export function define(command: Command): void {
  addEditsOption(addInstallationArguments(command)).action(
    async (directory: string, options: ChangeArguments) => {
      throw new Finished(await runPlan(directory, options));
    },
  );
}

async function runPlan(directory: string, options: ChangeArguments): Promise<number> {
  const { plan } = await import("@lockstep/updater");
  using view = new RunView(options);
  const found = await plan(directory, { ...view.session(options), edits: options.edits });
  const { output } = view;
  output.document(found);
  for (const operation of found.operations) output.line(describeOperation(operation));
  for (const notice of found.notices) output.note(printable(notice));
  const revisions =
    found.from === found.to
      ? `software revision ${found.to}`
      : `software revision ${found.from ?? "unknown"} to ${found.to}`;
  output.note(`${revisions}: ${describeSums(found.sums)}`);
  if (found.faults.length > 0) {
    // The plan is the answer; that it cannot be carried out is part of it.
    const failure = new LockstepError("INSTALLATION_CONFLICT", "an update would be refused", {
      faults: found.faults.map(({ path, problem }) => ({ where: path, problem })),
      hint: "Move away what is in the way.",
    });
    process.stderr.write(formatFailure(failure));
    return REFUSED;
  }
  return found.from !== found.to || changesFiles(found.sums) ? PENDING : 0;
}

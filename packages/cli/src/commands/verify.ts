import type { EditsPolicy } from "@lockstep/core";
import { printable } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { Damage, RepairResult, VerifyResult } from "@lockstep/updater";
import type { Command } from "commander";
import { adviseOnDamage } from "../damage-advice.ts";
import { addChangeArguments, addEditsOption, type ChangeArguments } from "../installation.ts";
import { counted, formatBytes } from "../screen/format.ts";
import { tellSums } from "../screen/run-text.ts";
import { RunView } from "../screen/run-view.ts";

interface VerifyArguments extends ChangeArguments {
  readonly repair?: boolean;
  readonly quick?: boolean;
}

/** `lockstep verify`: finds local damage; with --repair it mends it as well. */
export function define(command: Command): void {
  addEditsOption(addChangeArguments(command))
    .option("--repair", "mend what is found")
    .option("--quick", "read only files that look touched")
    .action(runVerify);
}

async function runVerify(directory: string, options: VerifyArguments): Promise<void> {
  const { notReadable, repair, verify } = await import("@lockstep/updater");
  using view = new RunView(options);
  const { output } = view;
  const found = await verify(directory, { ...view.session(options), quick: options.quick === true });
  const { damages, unreadable } = found;
  for (const damage of damages)
    output.line(
      `${printable(damage.path)}: ${damage.problem} (expected ${printable(damage.expected)}, found ${printable(damage.found)})`,
    );
  for (const { path, found: said } of unreadable)
    output.line(`${printable(path)}: not readable for this user (${said})`);
  // A repair reads every file, so it would be refused.
  const refused = await notReadable(directory, unreadable);
  const repaired =
    damages.length > 0 && refused === null && options.repair === true
      ? await repair(directory, { ...view.session(options), edits: options.edits })
      : null;
  output.document({ directory, ...found, repaired: repaired?.sums ?? null });
  if (repaired !== null) tellSums(output, repaired.run);
  output.line(describeFound(found, repaired));
  const { logBreak } = found;
  const { logAltered } = await import("@lockstep/updater");
  const failures = [
    ...(refused === null ? [] : [refused]),
    ...(damages.length > 0 && repaired === null
      ? [damaged(directory, damages, options.edits ?? found.edits)]
      : []),
    ...(logBreak === null ? [] : [await logAltered(directory, logBreak)]),
  ];
  if (failures.length > 0) await tell(failures);
}

function describeFound(found: VerifyResult, repaired: RepairResult | null): string {
  const { damages, unreadable } = found;
  const what = `${counted(found.files, "file")}, ${formatBytes(found.bytes)}`;
  if (damages.length > 0)
    return `${counted(damages.length, "file")} of ${what} ${damages.length === 1 ? "is" : "are"} not as installed${repaired === null ? "" : mended(repaired.sums.keep)}`;
  if (unreadable.length > 0)
    return `no damage in what this user may read of ${what}; ${counted(unreadable.length, "file")} could not be looked at`;
  return `sound: ${what}, software revision ${found.revision ?? "unknown"}`;
}

function mended(kept: number): string {
  return kept === 0
    ? "; mended"
    : `; mended, but for ${counted(kept, "edited file")} that ${kept === 1 ? "stays" : "stay"}`;
}

/** A script must be able to tell damage from soundness; the document has been written already. The last one decides how it ends. */
async function tell(failures: readonly LockstepError[]): Promise<never> {
  const { Finished, reportFailure } = await import("../failure.ts");
  const statuses = failures.map((each) => reportFailure(each, { json: false, stdout: process.stdout }));
  throw new Finished(statuses.at(-1) ?? 0);
}

function damaged(directory: string, damages: readonly Damage[], edits: EditsPolicy): LockstepError {
  const count = damages.length;
  return new LockstepError(
    "INSTALLATION_DAMAGED",
    `${counted(count, "file")} of ${directory} ${count === 1 ? "is" : "are"} not as installed`,
    {
      expected: "every file as it was installed",
      found: count,
      hint: adviseOnDamage(directory, damages, edits),
    },
  );
}

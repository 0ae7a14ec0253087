import { AT_ONCE_MAX, BYTES_PER_SECOND_MIN, type EditsPolicy, TRANSFER_CHECKS } from "@lockstep/core";
import { printable } from "@lockstep/platform";
import type { ReselectResult } from "@lockstep/updater";
import type { Command } from "commander";
import { Finished } from "../failure.ts";
import { addChangeArguments, addEditsOption, type ChangeArguments, readSwitch } from "../installation.ts";
import { collectList, usage } from "../options.ts";
import type { Output } from "../screen/output.ts";
import { changesFiles, describeOperation, describeSums } from "../screen/plan-text.ts";
import { tellSums } from "../screen/run-text.ts";
import { RunView } from "../screen/run-view.ts";

interface ConfigureArguments extends ChangeArguments {
  readonly autoUpdate?: boolean;
  readonly edits?: EditsPolicy;
  readonly setHub?: string;
  readonly setTokenFile?: string;
  readonly setCaFile?: string;
  readonly setRelay?: string;
  readonly rate?: number | null;
  readonly window?: string | null;
  readonly atOnce?: number | null;
  readonly role?: readonly string[];
  readonly package?: readonly string[];
  readonly dryRun?: boolean;
}

const PENDING = 10;
/** How many files are named before they are changed; `--dry-run` names all. */
const SHOWN_MAX = 20;

/** `lockstep configure`: shows what one installation is set to, and changes it: settings, or machine roles and packages. */
export function define(command: Command): void {
  addEditsOption(addChangeArguments(command))
    .option("--auto-update <switch>", "on or off: whether it follows by itself", readSwitch("--auto-update"))
    .option("--set-hub <url>", "another hub from now on")
    .option("--set-token-file <file>", "where its token stands; none: nowhere")
    .option("--set-ca-file <file>", "certificates to trust; none: the machine's own")
    .option("--set-relay <url>", "a relay that is asked before the hub; none: no relay")
    .option("--rate <bytes>", "bytes in a second at most; none: no limit; hub: as the hub says", readRate)
    .option(
      "--window <times>",
      "times of large updates, like 22:00-05:00; any; hub: as the hub says",
      readWindow,
    )
    .option("--at-once <number>", "answers that are read at the same time; hub: as the hub says", readAtOnce)
    .option(
      "--role <role>",
      "the machine roles that it has from now on; repeatable or a comma list; none: no role",
      collectList,
    )
    .option("--package <package>", "the packages that it has from now on; none: no package", collectList)
    .option("--dry-run", "only say what other roles and packages would change")
    .action(async (directory: string, options: ConfigureArguments) => {
      const chooses = options.role !== undefined || options.package !== undefined;
      if (chooses) throw new Finished(await changeChoice(directory, options));
      if (options.dryRun === true)
        throw usage("--dry-run says what other machine roles would change", "--role or --package", "neither");
      await changeSettings(directory, options);
    });
}

function readRate(text: string): number | null {
  if (text === "hub") return null;
  const rate = text === "none" ? 0 : /^[0-9]{1,15}$/.test(text) ? Number(text) : null;
  if (rate !== null && TRANSFER_CHECKS.bytesPerSecond(rate)) return rate;
  throw usage(
    "--rate takes bytes in a second",
    `none, hub, or a whole number of at least ${BYTES_PER_SECOND_MIN}, in digits alone`,
    text,
    "Nothing was changed. A megabyte in a second: --rate 1000000.",
  );
}

function readWindow(text: string): string | null {
  if (text === "hub") return null;
  if (text === "any") return "";
  if (text !== "" && TRANSFER_CHECKS.window(text)) return text;
  throw usage("--window takes times of the day", "22:00-05:00, several with commas, any or hub", text);
}

function readAtOnce(text: string): number | null {
  const count = /^[0-9]$/.test(text) ? Number(text) : null;
  if (text === "hub") return null;
  if (TRANSFER_CHECKS.atOnce(count)) return count;
  throw usage(
    "--at-once takes how many answers are read at the same time",
    `hub, or 1 to ${AT_ONCE_MAX}`,
    text,
  );
}

async function changeSettings(directory: string, options: ConfigureArguments): Promise<void> {
  const { configure } = await import("@lockstep/updater");
  using view = new RunView(options);
  const state = await configure(
    directory,
    {
      autoUpdate: options.autoUpdate,
      edits: options.edits,
      hubUrl: options.setHub,
      tokenFile: options.setTokenFile === "none" ? null : options.setTokenFile,
      caFile: options.setCaFile === "none" ? null : options.setCaFile,
      relay: options.setRelay === "none" ? null : options.setRelay,
      transfer: { bytesPerSecond: options.rate, window: options.window, atOnce: options.atOnce },
    },
    view.session(options),
  );
  const { id, hub, settings, rolesChosen, packagesChosen } = state;
  const { output } = view;
  output.document({ directory, id, hub, settings, roles: rolesChosen, packages: packagesChosen });
  const { bytesPerSecond, window, atOnce } = settings.transfer ?? {};
  const lines: [string, string][] = [
    ["installation", id],
    ["hub", hub.url],
    ["relay", hub.relay ?? "-"],
    ["token file", hub.tokenFile ?? "-"],
    ["certificates", hub.caFile ?? "the machine's own"],
    ["machine roles", rolesChosen.join(", ") || "-"],
    ["packages", packagesChosen.join(", ") || "-"],
    ["auto-update", settings.autoUpdate ? "on" : "off"],
    ["edited files", settings.edits],
    ["rate", bytesPerSecond === 0 ? "no limit" : `${bytesPerSecond ?? "as the hub says"}`],
    ["large updates", window === "" ? "at any time" : (window ?? "as the hub says")],
    ["at once", `${atOnce ?? "as the hub says"}`],
  ];
  for (const [name, value] of lines) output.line(`${name.padEnd(14)} ${printable(value)}`);
}

/** Another choice of roles and packages: an update of its own. Returns the exit status. */
async function changeChoice(directory: string, options: ConfigureArguments): Promise<number> {
  const { autoUpdate, edits, setHub, setTokenFile, setCaFile, setRelay, rate, window, atOnce } = options;
  const settings = [autoUpdate, edits, setHub, setTokenFile, setCaFile, setRelay, rate, window, atOnce];
  if (settings.some((value) => value !== undefined))
    throw usage(
      "machine roles and packages are changed by themselves, all or nothing",
      "--role and --package without other settings",
      "both",
    );
  const { reselect } = await import("@lockstep/updater");
  using view = new RunView(options);
  const found = await reselect(directory, {
    ...view.session(options),
    roles: chosen(options.role),
    packages: chosen(options.package),
    dryRun: options.dryRun,
  });
  const { output } = view;
  output.document({ directory, ...found });
  tellChoice(output, found, options.dryRun === true);
  return options.dryRun === true && changesFiles(found.plan.sums) ? PENDING : 0;
}

function chosen(names: readonly string[] | undefined): readonly string[] | undefined {
  return names?.length === 1 && names[0] === "none" ? [] : names;
}

function tellChoice(output: Output, { before, after, plan, run }: ReselectResult, dryRun: boolean): void {
  const list = (names: readonly string[]) => printable(names.join(", ") || "none");
  output.note(`machine roles: ${list(before.roles)} -> ${list(after.roles)}`);
  if (before.packages.length + after.packages.length > 0)
    output.note(`packages: ${list(before.packages)} -> ${list(after.packages)}`);
  if (dryRun) {
    for (const operation of plan.operations) output.line(describeOperation(operation));
    output.note(`software revision ${plan.to}: ${describeSums(plan.sums)}`);
    return;
  }
  for (const operation of plan.operations.slice(0, SHOWN_MAX)) output.note(describeOperation(operation));
  if (plan.operations.length > SHOWN_MAX) output.note(`... ${plan.operations.length} files in all`);
  if (run !== null) tellSums(output, run);
  output.line(
    run === null
      ? `nothing to change: software revision ${plan.to}`
      : `software revision ${run.to}: ${printable([...after.roles, ...after.packages].join(", "))}`,
  );
}

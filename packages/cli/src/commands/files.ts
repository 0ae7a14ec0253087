import { type DeployTarget, formatTarget, isGlobFault, parseAssignRule, parseTargets } from "@lockstep/core";
import { listenForInterruption, printable } from "@lockstep/platform";
import { type AssignRequest, type FileRow, LockstepError } from "@lockstep/protocol/wire";
import type { Command } from "commander";
import { withHub } from "../connect.ts";
import type { HubArguments } from "../hub-address.ts";
import { addHubOptions, addJsonOption, collectList, usage } from "../options.ts";
import { counted, formatBytes, formatMode, formatUtc } from "../screen/format.ts";
import { Output } from "../screen/output.ts";
import { askYesNo, canAsk } from "../screen/question.ts";
import { printTable } from "../screen/table.ts";

interface Common extends HubArguments {
  readonly json?: boolean;
}

/** `lockstep files`: the file revisions of the repository. */
export function define(command: Command): void {
  const list = command.command("list").description("stored files with size, module and deploy targets");
  addJsonOption(addHubOptions(list.argument("[glob]", "only those that match")))
    .option("--module <id>", "only those of a module")
    .option("--undistributed", "only those that belong to no machine role or package")
    .action(listFiles);

  const show = command.command("show").description("everything that is known of one stored file");
  addJsonOption(addHubOptions(show.argument("<path>"))).action(showFile);

  const files = command
    .command("export")
    .description("write stored files into a directory, to bring a machine up by hand");
  addJsonOption(addHubOptions(files.argument("<directory>")))
    .option(
      "--role <role>",
      "only the files of these machine roles and their parents; repeatable",
      collectList,
    )
    .option(
      "--package <package>",
      "only the files of these packages and those that they need; repeatable",
      collectList,
    )
    .option("--match <glob>", "only those whose path matches")
    .option("--quiet", "no remarks and no progress")
    .action(async (directory: string, options) => {
      const { exportFiles } = await import("../export/run.ts");
      await exportFiles(directory, options);
    });

  const assign = command
    .command("assign")
    .description("change to which machine roles and packages files belong");
  addJsonOption(
    addHubOptions(
      assign.argument(
        "<glob=role>",
        "a pattern and its machine roles; or a pattern alone, with --add or --remove",
      ),
    ),
  )
    .option("--add <roles>", "add these machine roles (package:ID for packages)")
    .option("--remove <roles>", "take these machine roles away")
    .option("--yes", "do not ask, not even at a terminal before files leave every installation")
    .action(assignFiles);

  const remove = command.command("remove").description("remove stored files, and so from every installation");
  addJsonOption(addHubOptions(remove.argument("<glob>")))
    .option("--yes", "do not ask")
    .action(removeFiles);
}

async function listFiles(
  match: string | undefined,
  options: Common & { readonly module?: string; readonly undistributed?: boolean },
): Promise<void> {
  const output = new Output(options);
  await withHub(options, async (hub) => {
    const rows: FileRow[] = [];
    for await (const row of hub.allFiles(match === undefined ? {} : { match })) {
      if (options.module !== undefined && row.module !== options.module) continue;
      if (options.undistributed === true && row.targets.length > 0) continue;
      rows.push(row);
    }
    output.document({ files: rows });
    printTable(
      output,
      [
        { title: "path" },
        { title: "size", align: "right" },
        { title: "module" },
        { title: "version" },
        { title: "belongs to" },
      ],
      rows.map((row) => [
        row.path,
        row.size === null
          ? "never loaded"
          : output.data.interactive
            ? formatBytes(row.size)
            : String(row.size),
        row.module,
        row.version ?? "",
        row.targets.map(shortTarget).join(" "),
      ]),
    );
  });
}

async function showFile(path: string, options: Common): Promise<void> {
  const output = new Output(options);
  await withHub(options, async (hub) => {
    const row = await findFile(hub.allFiles({ match: escapeGlob(path) }));
    if (row === null)
      throw new LockstepError("FILE_UNKNOWN", `the repository has no file ${JSON.stringify(path)}`, {
        hint: "lockstep files list shows what there is; paths are relative and case-sensitive.",
      });
    output.document(row);
    const lines: [string, string][] = [
      ["path", row.path],
      ["module", row.module],
      ["size", row.size === null ? "never loaded" : `${row.size} bytes`],
      ["sha256", row.sha256 ?? "-"],
      ["mode", formatMode(row.mode)],
      ["version", row.version ?? "-"],
      ["backup", row.backup ? "yes" : "no"],
      [
        "belongs to",
        row.targets.length === 0 ? "nothing: never distributed" : row.targets.map(shortTarget).join(", "),
      ],
      ["loaded", formatUtc(row.loadedAt)],
    ];
    for (const [name, value] of lines) output.line(`${name.padEnd(11)} ${printable(value)}`);
  });
}

async function findFile(rows: AsyncIterable<FileRow>): Promise<FileRow | null> {
  for await (const row of rows) return row;
  return null;
}

async function assignFiles(
  text: string,
  options: Common & { readonly add?: string; readonly remove?: string; readonly yes?: boolean },
): Promise<void> {
  const output = new Output(options);
  using interruption = listenForInterruption();
  const request = toAssignRequest(text, options.add, options.remove);
  await withHub(options, async (hub) => {
    // A slip of the pattern takes the whole product from every machine; scripts are trusted to mean what they say.
    if (options.yes !== true && canAsk()) {
      let left = 0;
      for await (const { targets } of hub.allFiles({ match: request.match }))
        if (targets.length > 0 && leavesNothing(request, targets)) left++;
      if (
        left > 0 &&
        !(await askYesNo(`Take ${counted(left, "file")} from every installation?`, interruption.signal))
      )
        throw new LockstepError("CANCELLED", "not assigned, as you wish", { hint: "Nothing was changed." });
    }
    const { paths } = await hub.assignFiles(request, { signal: interruption.signal });
    output.document({ paths });
    for (const path of paths) output.line(printable(path));
    output.note(`${counted(paths.length, "file")} changed`);
  });
}

/** Whether a file with these targets would belong to nothing afterwards. */
function leavesNothing(request: AssignRequest, targets: readonly string[]): boolean {
  const kept = request.only ? [] : targets.filter((target) => !request.remove.includes(target));
  return kept.length + request.add.length === 0;
}

function toAssignRequest(text: string, add: string | undefined, remove: string | undefined): AssignRequest {
  if (add !== undefined || remove !== undefined)
    return {
      match: text,
      add: readTargets("--add", add),
      remove: readTargets("--remove", remove),
      only: false,
    };
  const rule = parseAssignRule(text);
  if ("problem" in rule)
    throw usage(
      `${JSON.stringify(text)}: ${rule.problem}`,
      "'GLOB=ROLE', or GLOB with --add or --remove",
      text,
    );
  return { match: rule.glob.pattern, add: rule.targets.map(formatTarget), remove: [], only: true };
}

function readTargets(option: string, text: string | undefined): string[] {
  const targets: DeployTarget[] | { readonly problem: string } = parseTargets(text ?? "");
  if (!Array.isArray(targets))
    throw usage(`${option}: ${targets.problem}`, "Server/JobServer, package:MODULE/Package", text);
  return targets.map(formatTarget);
}

async function removeFiles(match: string, options: Common & { readonly yes?: boolean }): Promise<void> {
  const output = new Output(options);
  using interruption = listenForInterruption();
  const { compileGlob } = await import("@lockstep/core");
  const glob = compileGlob(match);
  if (isGlobFault(glob))
    throw usage(`${JSON.stringify(match)}: ${glob.problem}`, "a pattern such as 'bin/**'", match);
  await withHub(options, async (hub) => {
    if (options.yes !== true) {
      let files = 0;
      for await (const row of hub.allFiles({ match })) {
        if (files++ < 20) output.note(`  ${printable(row.path)}`);
      }
      if (files > 20) output.note(`  ... and ${files - 20} more`);
      await confirmRemoval(files, interruption.signal);
    }
    const { paths } = await hub.removeFiles(match, { signal: interruption.signal });
    output.document({ paths });
    for (const path of paths) output.line(printable(path));
    output.note(`${counted(paths.length, "file")} removed`);
  });
}

async function confirmRemoval(files: number, signal: AbortSignal): Promise<void> {
  if (files === 0) return;
  if (!canAsk())
    throw new LockstepError(
      "CONFIRMATION_REQUIRED",
      `${counted(files, "file")} would be removed, and nobody can be asked`,
      {
        hint: "Nothing was removed. Give --yes to remove without a question.",
      },
    );
  if (
    await askYesNo(
      `Remove ${counted(files, "file")} from the repository and from every installation?`,
      signal,
    )
  )
    return;
  throw new LockstepError("CANCELLED", "not removed, as you wish", { hint: "Nothing was changed." });
}

/** `role:Server` as people write it: the kind is named for packages alone. */
function shortTarget(target: string): string {
  return target.replace(/^role:/, "");
}

/** A pattern that matches one path and nothing else. */
function escapeGlob(path: string): string {
  return path.replaceAll(/[*?[\]{},\\!]/g, "\\$&");
}

import { listenForInterruption, printable } from "@lockstep/platform";
import { LockstepError, type RevisionDiff } from "@lockstep/protocol/wire";
import type { Command } from "commander";
import { awaitRevision } from "../await-revision.ts";
import { withHub } from "../connect.ts";
import type { HubArguments } from "../hub-address.ts";
import { addHubOptions, addJsonOption, usage, wholeNumber } from "../options.ts";
import { counted, formatBytes, formatUtc } from "../screen/format.ts";
import { Output } from "../screen/output.ts";
import { askYesNo, canAsk } from "../screen/question.ts";
import { printTable } from "../screen/table.ts";

interface Common extends HubArguments {
  readonly json?: boolean;
}

const number = wholeNumber("a software revision", 0, Number.MAX_SAFE_INTEGER);

/** `lockstep revision`: the values of the semaphore, and what each stands for. */
export function define(command: Command): void {
  const list = command.command("list").description("software revisions, the newest first");
  addJsonOption(addHubOptions(list))
    .option("--limit <count>", "at most so many", wholeNumber("--limit", 1, 100_000))
    .action(listRevisions);

  const show = command.command("show").description("one software revision with its manifests");
  addJsonOption(addHubOptions(show.argument("[number]", "else the current one", number))).action(
    showRevision,
  );

  const diff = command.command("diff").description("the files in which two software revisions differ");
  addJsonOption(addHubOptions(diff.argument("<from>", "", number).argument("<to>", "", number))).action(
    diffRevisions,
  );

  const revert = command
    .command("revert")
    .description("make a former revision's files the current ones again, as a new revision");
  addJsonOption(addHubOptions(revert.argument("<number>", "", number)))
    .option("--yes", "do not ask")
    .action(revertRevision);
}

async function listRevisions(options: Common & { readonly limit?: number }): Promise<void> {
  const output = new Output(options);
  await withHub(options, async (hub) => {
    const list = await hub.revisions(options.limit === undefined ? {} : { limit: options.limit });
    output.document(list);
    printTable(
      output,
      [
        { title: "revision", align: "right" },
        { title: "created" },
        { title: "files", align: "right" },
        { title: "size", align: "right" },
        { title: "added", align: "right" },
        { title: "changed", align: "right" },
        { title: "removed", align: "right" },
        { title: "releases" },
      ],
      list.revisions.map((revision) => [
        String(revision.number),
        output.data.interactive ? formatUtc(revision.createdAt) : new Date(revision.createdAt).toISOString(),
        String(revision.files),
        output.data.interactive ? formatBytes(revision.bytes) : String(revision.bytes),
        String(revision.added),
        String(revision.changed),
        String(revision.removed),
        revision.releases.join(", "),
      ]),
    );
  });
}

async function showRevision(wanted: number | undefined, options: Common): Promise<void> {
  const output = new Output(options);
  await withHub(options, async (hub) => {
    const revision = await hub.revision(wanted ?? (await hub.currentSemaphore()).revision);
    output.document(revision);
    output.line(`software revision ${revision.number}, ${formatUtc(revision.createdAt)}`);
    output.line(`digest ${revision.digest}`);
    const archive = revision.updateArchive;
    output.line(
      archive === null
        ? "Update.zip: not built yet"
        : `Update.zip ${archive.sha256} (${formatBytes(archive.size)})`,
    );
    printTable(
      output,
      [
        { title: "manifest" },
        { title: "files", align: "right" },
        { title: "size", align: "right" },
        { title: "sha256" },
      ],
      revision.manifests.map((manifest) => [
        manifest.target,
        String(manifest.files),
        output.data.interactive ? formatBytes(manifest.bytes) : String(manifest.bytes),
        manifest.sha256,
      ]),
    );
  });
}

const MARKS = { added: "+", changed: "~", removed: "-" } as const;

async function diffRevisions(from: number, to: number, options: Common): Promise<void> {
  const output = new Output(options);
  await withHub(options, async (hub) => {
    const diff = await hub.revisionDiff(from, to);
    output.document(diff);
    for (const file of diff.files)
      output.line(`${MARKS[file.kind]} ${printable(file.path)}${describeChange(file)}`);
    const count = (kind: keyof typeof MARKS) => diff.files.filter((file) => file.kind === kind).length;
    output.note(
      `${from} to ${to}: ${count("added")} added, ${count("changed")} changed, ${count("removed")} removed`,
    );
  });
}

function describeChange({ from, to }: RevisionDiff["files"][number]): string {
  if (from === null || to === null) {
    const one = to ?? from;
    return one === null ? "" : `  (${formatBytes(one.size)})`;
  }
  const said: string[] = [];
  if (from.sha256 !== to.sha256) said.push(`${formatBytes(from.size)} to ${formatBytes(to.size)}`);
  if (from.mode !== to.mode) said.push(`mode ${from.mode.toString(8)} to ${to.mode.toString(8)}`);
  if (from.targets.join() !== to.targets.join())
    said.push(
      `belongs to ${to.targets.join(" ") || "nothing"}, before to ${from.targets.join(" ") || "nothing"}`,
    );
  return said.length === 0 ? "" : `  (${printable(said.join("; "))})`;
}

async function revertRevision(wanted: number, options: Common & { readonly yes?: boolean }): Promise<void> {
  const output = new Output(options);
  using interruption = listenForInterruption();
  const { signal } = interruption;
  await withHub(options, async (hub) => {
    const { revision: current } = await hub.currentSemaphore({ signal });
    if (wanted === current)
      throw usage(`revision ${wanted} is the current one`, `a revision below ${current}`, String(wanted));
    if (options.yes !== true) {
      const diff = await hub.revisionDiff(current, wanted, { signal });
      const question = `${counted(diff.files.length, "file")} would change in the installations. Revert to revision ${wanted}?`;
      if (!canAsk())
        throw new LockstepError(
          "CONFIRMATION_REQUIRED",
          `reverting would change ${counted(diff.files.length, "file")}, and nobody can be asked`,
          {
            hint: `Nothing was changed. lockstep revision diff ${current} ${wanted} shows the files; --yes reverts without a question.`,
          },
        );
      if (!(await askYesNo(question, signal)))
        throw new LockstepError("CANCELLED", "not reverted, as you wish", {
          hint: "Nothing was changed.",
        });
    }
    const result = await hub.revertRevision(wanted, { signal });
    const revision = await awaitRevision(hub, result, {
      signal,
      onStopped: (remark) => output.warn(remark),
    });
    output.document({ ...result, revision });
    output.line(`software revision ${revision}${result.changes ? "" : " (nothing changed)"}`);
  });
}

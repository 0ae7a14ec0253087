import type { ReviewedFile } from "@lockstep/core";
import { printable } from "@lockstep/platform";
import { counted, formatBytes, formatCount, formatMode } from "../screen/format.ts";
import type { Output } from "../screen/output.ts";
import { printTable } from "../screen/table.ts";
import type { ShownFile, ShownRevision } from "./waiting.ts";

/** Files that are shown unless all are wanted. */
const SHOWN_MAX = 40;
const SIGNS = { added: "+", changed: "~", removed: "-" } as const;

/**
 * Prints what waits for a signature, for somebody who has to answer for it: what stands out first. Names come from the
 * documents and may hold anything; they are made safe to print. Returns how many files were not shown.
 */
export function tellWaiting(output: Output, shown: ShownRevision, all: boolean): number {
  const { former, files } = shown;
  output.line(`software revision ${shown.revision}, digest ${shown.digest}`);
  output.line(
    former === null
      ? "compared with nothing"
      : `compared with software revision ${former.revision}, signed by ${former.vouchedBy}`,
  );
  for (const problem of shown.problems) output.warn(problem);
  if (shown.releases.length > 0)
    output.line(`releases, as the hub says: ${printable(shown.releases.join(", "))}`);
  tellUpdater(output, shown);
  for (const target of shown.targets.added) output.line(`+ ${printable(target)}: new`);
  for (const target of shown.targets.removed) output.line(`- ${printable(target)}: no longer there`);
  for (const { what, from, to } of shown.choices)
    output.line(
      `~ ${printable(`${what}: ${to.join(", ") || "nothing"} (before: ${from.join(", ") || "nothing"})`)}`,
    );
  tellSummary(output, shown);
  const outstanding = files.filter(({ marks }) => marks.length > 0);
  if (outstanding.length > 0)
    output.line(
      output.paintData(
        "yellow",
        `! ${counted(outstanding.length, "file stands", "files stand")} out: ${reasons(outstanding)}`,
      ),
    );
  const ordered = [...outstanding, ...files.filter(({ marks }) => marks.length === 0)];
  const listed = all ? ordered : ordered.slice(0, SHOWN_MAX);
  tellFiles(output, listed);
  const left = files.length - listed.length;
  if (left > 0)
    output.line(`and ${counted(left, "more file")}: --all shows every one, --json with both whole digests`);
  return left;
}

/** It is no file of an installation, and yet runs on every one of them. */
function tellUpdater(output: Output, { updateArchive: { from, to } }: ShownRevision): void {
  if (from?.sha256 === to?.sha256) return;
  const describe = (archive: typeof to) =>
    archive === null ? "none" : `${archive.sha256.slice(0, 16)} (${formatBytes(archive.size)})`;
  output.line(
    output.paintData(
      "yellow",
      `! updater and plug-ins (Update.zip): ${describe(from)} -> ${describe(to)}; they run at every update of every installation`,
    ),
  );
}

function tellSummary(output: Output, { summary }: ShownRevision): void {
  if (summary.length === 0) output.line("no file differs");
  else
    printTable(
      output,
      [
        { title: "module, as the hub says" },
        { title: "" },
        { title: "files", align: "right" },
        { title: "size", align: "right" },
      ],
      summary.map(({ module, kind, files, bytes }) => [
        module ?? "-",
        kind,
        output.data.interactive ? formatCount(files) : String(files),
        size(output, bytes),
      ]),
    );
}

function reasons(files: readonly ShownFile[]): string {
  const counts = new Map<string, number>();
  for (const { marks } of files) for (const mark of marks) counts.set(mark, (counts.get(mark) ?? 0) + 1);
  return [...counts].map(([mark, count]) => `${count} ${mark}`).join(", ");
}

function tellFiles(output: Output, files: readonly ShownFile[]): void {
  if (files.length === 0) return;
  // Not cut where a terminal is narrow: what is not seen of a name is where somebody would put it.
  printTable(
    output,
    [
      { title: "" },
      { title: "file" },
      { title: "before", align: "right" },
      { title: "after", align: "right" },
      { title: "mode" },
      { title: "roles and packages" },
      { title: "sha256" },
      { title: "look at" },
    ],
    files.map((file) => {
      const { path, kind, from, to, marks } = file;
      return [
        SIGNS[kind],
        path,
        from === null ? "" : size(output, from.size),
        to === null ? "" : size(output, to.size),
        describeMode(file),
        describeTargets(file),
        (to ?? from)?.sha256.slice(0, 16) ?? "",
        marks.length === 0 ? "" : `! ${marks.join(", ")}`,
      ];
    }),
    (cell, column) => (column === 7 && cell !== "" ? output.paintData("yellow", cell) : cell),
  );
}

function size(output: Output, bytes: number): string {
  return output.data.interactive ? formatBytes(bytes) : String(bytes);
}

/** Where it changed, and of what is new and can be started. */
function describeMode({ from, to, marks }: ReviewedFile): string {
  const said: string[] = [];
  if (to !== null && from !== null && from.mode !== to.mode)
    said.push(`${formatMode(from.mode)} -> ${formatMode(to.mode)}`);
  else if (to !== null && marks.includes("executable")) said.push(formatMode(to.mode));
  if (to !== null && (from?.backup ?? false) !== to.backup)
    said.push(to.backup ? "copies kept" : "no copies kept");
  return said.join(", ");
}

function describeTargets({ from, to }: ReviewedFile): string {
  const now = (to ?? from)?.targets.join(" ") ?? "";
  const before = from?.targets.join(" ") ?? "";
  return from === null || to === null || before === now ? now : `${now} (before: ${before})`;
}

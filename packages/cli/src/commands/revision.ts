import type { HubClient } from "@lockstep/client";
import { listenForInterruption, printable } from "@lockstep/platform";
import { LockstepError, type RevisionDiff } from "@lockstep/protocol/wire";
import type { Command } from "commander";
import { awaitRevision } from "../await-revision.ts";
import { withHub } from "../connect.ts";
import type { HubArguments } from "../hub-address.ts";
import type { FormerArguments } from "../keys/former-revision.ts";
import { addKeyOptions } from "../keys/key-files.ts";
import { remarkOnLostKeys } from "../keys/remarks.ts";
import type { ShownRevision } from "../keys/waiting.ts";
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

  const sign = command
    .command("sign")
    .description("show the revision that waits for the release keys, and sign it");
  addKeyOptions(addJsonOption(addHubOptions(sign)))
    .option("--root <file>", "a root of trust that is known, for who signed the former revision")
    .option("--all", "show every file, not the first ones")
    .option("--show", "show it, and sign nothing")
    .option("--yes", "do not ask")
    .action(signRevision);

  const revert = command
    .command("revert")
    .description("make a former revision's files the current ones again, as a new revision");
  addJsonOption(addHubOptions(revert.argument("<number>", "", number)))
    .option("--yes", "do not ask")
    .action(revertRevision);
}

interface SignOptions extends Common, FormerArguments {
  readonly all?: boolean;
  readonly show?: boolean;
  readonly yes?: boolean;
}

/** Shows what waits for the release keys, asks, signs, and waits until it is current. */
async function signRevision(options: SignOptions): Promise<void> {
  const output = new Output(options);
  using interruption = listenForInterruption();
  const { signal } = interruption;
  const { readWaiting } = await import("../keys/waiting.ts");
  const { tellWaiting } = await import("../keys/waiting-text.ts");
  await withHub(options, async (hub) => {
    const waiting = await readWaiting(hub, options);
    const { shown } = waiting;
    const hidden = tellWaiting(output, shown, options.all === true);
    if (options.show === true) return output.document(shown);
    if (options.yes !== true) await confirmSigning(shown, hidden, signal);
    const { signWaiting } = await import("../keys/sign-revision.ts");
    const status = await signWaiting(hub, waiting, options);
    const { awaiting } = status;
    if (awaiting !== null && awaiting.signatures < awaiting.needed) {
      output.document({ ...status, shown });
      const left = awaiting.needed - awaiting.signatures;
      return output.line(`signed; ${counted(left, "more signature is", "more signatures are")} needed`);
    }
    const lost = remarkOnLostKeys(status);
    if (lost !== null) output.warn(`signed, but ${lost}. Then sign once more.`);
    const current = await untilRevision(hub, shown.revision, signal);
    // What waited when the signature came does so no longer.
    output.document({ ...(await hub.signingStatus({ signal })), revision: current, shown });
    output.line(`software revision ${current}`);
  });
}

async function confirmSigning(
  { revision, files, problems }: ShownRevision,
  hidden: number,
  signal: AbortSignal,
): Promise<void> {
  if (!canAsk())
    throw new LockstepError("CONFIRMATION_REQUIRED", "nobody can be asked whether to sign", {
      hint: "Nothing was signed. --show only shows it; --yes signs without a question.",
    });
  const count = (kind: string) => files.filter((file) => file.kind === kind).length;
  const unseen = hidden === 0 ? "" : `, ${counted(hidden, "file")} of them not shown`;
  const question =
    `${counted(count("added"), "file")} added, ${count("changed")} changed, ${count("removed")} removed${unseen}. ` +
    `Sign software revision ${revision}${problems.length > 0 ? " all the same" : ""}?`;
  if (await askYesNo(question, signal)) return;
  throw new LockstepError("CANCELLED", "not signed, as you wish", { hint: "Nothing was changed." });
}

const WAIT_SECONDS = 50;

async function untilRevision(hub: HubClient, wanted: number, signal: AbortSignal): Promise<number> {
  for (let known = (await hub.currentSemaphore({ signal })).revision; ; ) {
    if (known >= wanted) return known;
    const answer = await hub.semaphore(known, { signal, waitSeconds: WAIT_SECONDS });
    if (answer.kind === "different") known = answer.semaphore.revision;
  }
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

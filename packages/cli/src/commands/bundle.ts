import type { Command } from "commander";
import { withHub } from "../connect.ts";
import type { HubArguments } from "../hub-address.ts";
import { addHubOptions, addJsonOption, usage } from "../options.ts";
import { readRootFile } from "../root-file.ts";
import { counted, formatBytes, formatUtc } from "../screen/format.ts";
import { Output } from "../screen/output.ts";

interface ExportArguments extends HubArguments {
  readonly json?: boolean;
  readonly root?: string;
  readonly from?: readonly number[];
}

interface ImportArguments {
  readonly json?: boolean;
  readonly root?: string;
  readonly data?: string;
}

/** `lockstep bundle`: the signed objects of a revision on a disk, for sites that no network reaches. */
export function define(command: Command): void {
  const out = command
    .command("export <file>")
    .description("write the current software revision, signed as it is, into one file");
  addJsonOption(addHubOptions(out))
    .option("--root <file>", "the root of trust that it must hold under (else the one that the hub shows)")
    .option(
      "--from <revision>",
      "for installations at this revision: only what is new since; repeatable",
      collectRevision,
    )
    .action(exportFile);
  const into = command
    .command("import <file>")
    .description("take a bundle into the directory of a relay, which serves it: lockstep relay --carried");
  addJsonOption(into)
    .option("--data <directory>", "the directory of the relay")
    .option("--root <file>", "the root of trust to pin (else the one in the first bundle)")
    .action(importFile);
}

function collectRevision(text: string, before: readonly number[] | undefined): readonly number[] {
  if (!/^[1-9]\d{0,14}$/.test(text)) throw usage("--from takes a software revision", "a whole number", text);
  return [...(before ?? []), Number(text)];
}

async function exportFile(file: string, options: ExportArguments): Promise<void> {
  const output = new Output(options);
  const root = options.root === undefined ? null : await readRootFile(options.root);
  const { exportBundle } = await import("@lockstep/relay");
  await withHub(options, async (client) => {
    const done = await exportBundle({ client, file, root, from: options.from ?? [] });
    output.document(done);
    output.line(
      `software revision ${done.revision}: ${counted(done.contents, "content")}, ${counted(done.steps, "step")}, ${formatBytes(done.bytes)} in ${done.file}`,
    );
    output.note(`it is taken until ${formatUtc(done.expiresAt)}, when its signatures expire`);
  });
}

async function importFile(file: string, options: ImportArguments): Promise<void> {
  const output = new Output(options);
  if (options.data === undefined)
    throw usage("a bundle is taken into the directory of a relay", "--data DIR", undefined);
  const root = options.root === undefined ? null : await readRootFile(options.root);
  const { importBundle } = await import("@lockstep/relay");
  const done = await importBundle({ file, directory: options.data, root });
  output.document(done);
  for (const notice of done.notices) output.note(notice);
  output.line(
    `software revision ${done.revision}: ${counted(done.contents, "content")}, ${done.known} of them here before`,
  );
  if (done.leftOut > 0)
    output.note(
      `${counted(done.leftOut, "content is", "contents are")} not in it: it is for installations at the revisions it was exported from`,
    );
  output.note(
    `it is served until ${formatUtc(done.expiresAt)}, when its signatures expire: lockstep relay --carried --data ${options.data}`,
  );
}

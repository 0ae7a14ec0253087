import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { printable } from "@lockstep/platform";
import { fromErrorBody } from "@lockstep/protocol/wire";
import type { ProgressEvent } from "@lockstep/updater";
import type { Command } from "commander";
import { withHub } from "../connect.ts";
import { givenHubUrl, type HubArguments } from "../hub-address.ts";
import { accessOf, addInstallationArguments, type InstallationArguments } from "../installation.ts";
import { addHubOptions, addJsonOption } from "../options.ts";
import { readRootFile } from "../root-file.ts";
import { counted, formatUtc } from "../screen/format.ts";
import { Output } from "../screen/output.ts";
import { printTable } from "../screen/table.ts";
import type { NamedHead } from "../trust-compare.ts";

interface TrustArguments {
  readonly json?: boolean;
}

/** `lockstep trust`: whose signatures an installation believes, and what it has seen of them. */
export function define(command: Command): void {
  const show = command
    .command("show")
    .description("the pinned root and the history of releases of an installation");
  addJsonOption(show.argument("<directory>", "the installation")).action(showTrust);

  const check = command
    .command("check")
    .description("look at what is signed now: keys, versions, how long they are good, and what is wrong");
  addInstallationArguments(check).action(checkTrust);

  const compare = command
    .command("compare")
    .description("whether several installations were shown one history of releases, by their heads");
  addJsonOption(
    addHubOptions(
      compare.argument("<head...>", "EPOCH:SIZE:HEAD, an installation, or a file of trust show --json"),
    ),
  )
    .option("--log <file>", "the entries between them, from anywhere (else from the hub)")
    .action(compareTrust);

  const pin = command
    .command("pin")
    .description("pin another root of trust; what was trusted before is forgotten");
  addJsonOption(pin.argument("<directory>", "the installation"))
    .requiredOption("--root <file>", "the root, from the owner of the release keys and not from the hub")
    .action(pinRoot);
}

async function compareTrust(
  given: readonly string[],
  options: HubArguments & TrustArguments & { readonly log?: string },
): Promise<void> {
  const { showTrust: read } = await import("@lockstep/updater");
  const { compareHeads, entriesOfFile, entriesOfHub, readHead } = await import("../trust-compare.ts");
  const ofInstallation = async (directory: string) => (await read(directory)).history;
  const heads: NamedHead[] = [];
  for (const argument of given) heads.push(await readHead(argument, ofInstallation));
  const compared =
    options.log !== undefined
      ? await compareHeads(heads, entriesOfFile(await readFile(options.log, "utf8")))
      : givenHubUrl(options) === null
        ? await compareHeads(heads, null)
        : await withHub(options, async (hub) => await compareHeads(heads, entriesOfHub(hub)));
  const output = new Output(options);
  output.document(compared);
  for (const { name, epoch, size, head } of compared.heads)
    output.line(`${epoch}:${size}:${head}  ${printable(name)}`);
  output.line(
    compared.proof.length === 0
      ? "one history: all heads are equal"
      : `one history: each head continues the shorter ones, proven by ${counted(compared.proof.length, "entry", "entries")}`,
  );
}

/** Status 0: what is signed is as it must be; 3: it is not, which the document says as well. */
async function checkTrust(directory: string, options: InstallationArguments): Promise<void> {
  const { checkTrust: look } = await import("@lockstep/updater");
  const output = new Output(options);
  const progress = (event: ProgressEvent) => {
    if (event.kind === "notice") output.note(event.message);
  };
  const checked = await look(directory, { access: accessOf(options), progress });
  output.document({ directory, ...checked });
  const { documents, root, formerRoot, installed, announced, history, problem } = checked;
  printTable(
    output,
    [
      { title: "signed" },
      { title: "version", align: "right" },
      { title: "good until" },
      { title: "keys" },
      { title: "ids", shrinks: true },
    ],
    documents.map(({ role, version, expiresAt, expired, threshold, keys }) => [
      role,
      String(version),
      `${formatUtc(expiresAt)}${expired ? " (out of date)" : ""}`,
      `${threshold} of ${keys.length}`,
      keys.map((id) => id.slice(0, 12)).join(" "),
    ]),
  );
  output.line(
    `root version ${root.version}${formerRoot === root.version ? "" : ` (before: ${formerRoot})`}, SHA-256 ${root.sha256}`,
  );
  if (history !== null)
    output.line(
      `log of releases: ${counted(history.size, "entry", "entries")} of epoch ${history.epoch}, head ${history.head}`,
    );
  const as = installed.digest === null ? "" : `, signed as ${installed.digest.slice(0, 16)}`;
  output.line(`software revision ${installed.revision ?? "unknown"}${as}; the hub has ${announced}`);
  if (problem === null) output.line("what is signed is as it must be");
  else {
    const { Finished, reportFailure } = await import("../failure.ts");
    const failure = fromErrorBody({ error: problem });
    throw new Finished(reportFailure(failure, { json: false, stdout: process.stdout }));
  }
}

async function showTrust(directory: string, options: TrustArguments): Promise<void> {
  const { showTrust: read } = await import("@lockstep/updater");
  tell(new Output(options), directory, await read(directory));
}

async function pinRoot(
  directory: string,
  options: TrustArguments & { readonly root: string },
): Promise<void> {
  const { pinRoot: pin } = await import("@lockstep/updater");
  tell(new Output(options), directory, await pin(directory, await readRootFile(options.root)));
}

function tell(
  output: Output,
  directory: string,
  shown: Awaited<ReturnType<typeof import("@lockstep/updater")["showTrust"]>>,
): void {
  output.document({ directory: resolve(directory), ...shown });
  output.line(`root version ${shown.root.version}, SHA-256 ${shown.root.sha256}`);
  for (const { role, threshold, keys } of shown.root.roles)
    output.line(`${role.padEnd(10)} ${threshold} of ${keys.map((id) => id.slice(0, 12)).join(", ")}`);
  const { history, identity, order } = shown;
  output.line(
    identity === null
      ? "not enrolled: the hub does not know this installation by a key"
      : `enrolled as ${identity.installation}, key ${identity.public}, ${counted(identity.sessions, "session")}`,
  );
  if (order !== null)
    output.line(
      `order ${order.counter}: ${order.revision === null ? "the newest software revision" : `software revision ${order.revision}`}`,
    );
  output.line(
    history === null
      ? "no release was seen yet"
      : `log of releases: ${counted(history.size, "entry", "entries")} of epoch ${history.epoch}, head ${history.head}, software revision ${history.revision}`,
  );
  if (history !== null)
    output.line(`to compare: lockstep trust compare ${history.epoch}:${history.size}:${history.head} ...`);
}

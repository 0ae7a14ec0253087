import { readFile, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { printable, systemErrorCode } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { ConfigFault, ImportedConfig } from "@lockstep/service";
import type { Command } from "commander";
import { Finished, reportFailure } from "../failure.ts";
import { addJsonOption } from "../options.ts";
import { counted } from "../screen/format.ts";
import { Output } from "../screen/output.ts";
import { CONFIG_DEFAULT } from "./service-file.ts";

/** `lockstep service config check|show|import` */
export function defineConfig(service: Command): void {
  const config = service.command("config").description("check, show and import configurations");
  addJsonOption(
    config
      .command("check")
      .description("every fault of a configuration, with line and column")
      .argument("[file]", "the configuration", CONFIG_DEFAULT),
  ).action(check);
  addJsonOption(
    config
      .command("show")
      .description("every parameter with its value in force")
      .argument("[file]", "the configuration", CONFIG_DEFAULT)
      .option("--template", "no file: every parameter with its default, to begin with"),
  ).action(show);
  addJsonOption(
    config
      .command("import")
      .description("make a configuration of an original Jobservice.cfg")
      .argument("<xml>", "the XML file")
      .option("--hub <url>", "address of the hub, which the old file does not know")
      .option("--out <file>", "write it there, where nothing is yet; else to standard output"),
  ).action(importFile);
}

interface Common {
  readonly json?: boolean;
}

async function check(file: string, options: Common): Promise<void> {
  const { configInvalid, formatPlace, formatProblem, loadServiceConfig } = await import("@lockstep/service");
  const output = new Output(options);
  const { config, faults } = await loadServiceConfig(file, process.env);
  output.document({ file: resolve(file), valid: config !== null, faults });
  const rest = faults.filter(({ severity }) => severity !== "error");
  for (const fault of rest) {
    const style = fault.severity === "warning" ? "yellow" : "dim";
    const word = output.paintData(style, `${fault.severity}:`);
    output.line(`${formatPlace(file, fault)}: ${word} ${printable(formatProblem(fault))}`);
  }
  if (config !== null) {
    const queues = config.destinations.map(({ queue }) => queue).join(", ");
    output.line(printable(`${file} is in order${queues === "" ? "" : `: it serves ${queues}`}`));
    return;
  }
  // The document has been written already.
  throw new Finished(reportFailure(configInvalid(file, faults), { json: false, stdout: process.stdout }));
}

interface ShowArguments extends Common {
  readonly template?: boolean;
}

async function show(file: string, options: ShowArguments): Promise<void> {
  const { configInvalid, readConfigFile, tablesOf, templateTables, writeConfig } = await import(
    "@lockstep/service"
  );
  const output = new Output(options);
  if (options.template === true) {
    const text = writeConfig(templateTables(), { complete: true });
    output.document({ toml: text });
    output.line(text.trimEnd());
    return;
  }
  const { config, values, faults } = await readConfigFile(resolve(file), process.env);
  if (config === null || values === null) throw configInvalid(file, faults);
  output.document({ file: config.file, values });
  output.line(writeConfig(tablesOf(values), { complete: true }).trimEnd());
  tellWarnings(output, faults);
}

function tellWarnings(output: Output, faults: readonly ConfigFault[]): void {
  for (const { severity, line, problem } of faults)
    if (severity === "warning") output.warn(printable(`line ${line}: ${problem}`));
}

interface ImportArguments extends Common {
  readonly hub?: string;
  readonly out?: string;
}

async function importFile(xmlFile: string, options: ImportArguments): Promise<void> {
  const { importConfig } = await import("@lockstep/service");
  const output = new Output(options);
  const xml = decodeXml(await readFile(xmlFile), xmlFile);
  const imported = await importConfig(xml, { fileName: xmlFile, hub: options.hub ?? null });
  if (options.out !== undefined) await writeNew(options.out, imported.toml);
  output.document({ ...imported, file: options.out === undefined ? null : resolve(options.out) });
  if (options.out === undefined) output.line(imported.toml.trimEnd());
  if (!output.json) tellImport(output, imported);
}

/** Windows' tools write UTF-16 as readily as UTF-8. */
function decodeXml(bytes: Uint8Array, file: string): string {
  const encoding = bytes[0] === 0xff && bytes[1] === 0xfe ? "utf-16le" : "utf-8";
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new LockstepError("SERVICE_IMPORT_REFUSED", `${file} cannot be imported`, {
      expected: "a text in UTF-8 or UTF-16",
      cause,
      hint: "Save it in UTF-8 and import it again.",
    });
  }
}

async function writeNew(file: string, text: string): Promise<void> {
  try {
    await writeFile(file, text, { flag: "wx" });
  } catch (cause) {
    if (systemErrorCode(cause) !== "EEXIST") throw cause;
    throw new LockstepError("CONFIRMATION_REQUIRED", `${file} is there already and is not written over`, {
      hint: "Name another file by --out, or move that one away.",
    });
  }
}

function tellImport(output: Output, { taken, left, secrets, missing }: ImportedConfig): void {
  output.note(`${counted(taken.length, "parameter")} taken over`);
  for (const { from, why } of left) output.note(printable(`not taken over: ${from}: ${why}`));
  for (const { from, put } of secrets) output.warn(printable(`secret not copied: ${from}: put it ${put}`));
  for (const each of missing) output.warn(printable(`missing: ${each}`));
}

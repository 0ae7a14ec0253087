import type { Settings } from "@lockstep/protocol/wire";
import type { Command } from "commander";
import { withHub } from "../connect.ts";
import type { HubArguments } from "../hub-address.ts";
import { addHubOptions, addJsonOption, usage } from "../options.ts";
import { Output } from "../screen/output.ts";
import { printTable } from "../screen/table.ts";

interface Common extends HubArguments {
  readonly json?: boolean;
}

/** `lockstep settings`: the configuration parameters, such as Common/AutoUpdate. */
export function define(command: Command): void {
  const list = command.command("list", { isDefault: true }).description("all parameters with their values");
  addJsonOption(addHubOptions(list)).action(listSettings);
  const set = command.command("set").description("change parameters");
  addJsonOption(addHubOptions(set.argument("<name=value...>", "such as Common/AutoUpdate=false"))).action(
    setSettings,
  );
}

async function listSettings(options: Common): Promise<void> {
  await withHub(options, async (hub) => show(new Output(options), await hub.settings()));
}

async function setSettings(pairs: readonly string[], options: Common): Promise<void> {
  const changes: Settings = {};
  for (const pair of pairs) {
    const equals = pair.indexOf("=");
    if (equals <= 0) throw usage("settings set takes NAME=VALUE", "Common/AutoUpdate=false", pair);
    changes[pair.slice(0, equals)] = readValue(pair.slice(equals + 1));
  }
  await withHub(options, async (hub) => show(new Output(options), await hub.setSettings(changes)));
}

function readValue(text: string): string | number | boolean {
  if (text === "true" || text === "false") return text === "true";
  return /^-?[0-9]{1,15}$/.test(text) ? Number(text) : text;
}

function show(output: Output, settings: Settings): void {
  output.document(settings);
  const rows = Object.entries(settings).map(([name, value]) => [name, String(value)]);
  printTable(output, [{ title: "parameter" }, { title: "value" }], rows);
}

import type { Command } from "commander";
import { type HubArguments, withHub } from "../connect.ts";
import { addHubOptions, addJsonOption } from "../options.ts";
import { formatBytes, formatTime } from "../screen/format.ts";
import { Output } from "../screen/output.ts";

/** `lockstep hub`: runs the hub; `lockstep hub status` asks one. */
export function define(command: Command): void {
  const status = command
    .command("status")
    .description("version, database, software revision and sizes of a hub");
  addJsonOption(addHubOptions(status)).action(showStatus);
}

async function showStatus(options: HubArguments & { readonly json?: boolean }): Promise<void> {
  const output = new Output(options);
  await withHub(options, async (hub) => {
    const status = await hub.status();
    output.document(status);
    const lines: [string, string][] = [
      ["hub", hub.url],
      ["version", status.version],
      ["running since", formatTime(status.startedAt)],
      ["database", `${status.database}, schema ${status.schema}`],
      ["software revision", String(status.revision)],
      ["files", String(status.files)],
      ["contents", `${status.contents}, ${formatBytes(status.storedBytes)} stored`],
    ];
    for (const [name, value] of lines) output.line(`${name.padEnd(18)} ${value}`);
    if (status.development) output.warn("this hub runs with --dev: it asks nobody for credentials");
    for (const step of status.setup) output.warn(`lockstep setup has something to do: ${step}`);
  });
}

import type { Command } from "commander";
import { withHub } from "../connect.ts";
import type { HubArguments } from "../hub-address.ts";
import { addHubOptions, addJsonOption } from "../options.ts";
import { formatUtc } from "../screen/format.ts";
import { Output } from "../screen/output.ts";
import { printTable } from "../screen/table.ts";
import { defineFleetTrust } from "./fleet-trust.ts";

/** `lockstep fleet list`: the installations as they last reported themselves (observed). */
export function define(command: Command): void {
  defineFleetTrust(command);
  const list = command
    .command("list", { isDefault: true })
    .description("all installations with revision and outcome");
  addJsonOption(addHubOptions(list))
    .option("--behind", "only those whose revision is not the current one")
    .action(listInstallations);
}

async function listInstallations(
  options: HubArguments & { readonly json?: boolean; readonly behind?: boolean },
): Promise<void> {
  const output = new Output(options);
  await withHub(options, async (hub) => {
    const [list, semaphore] = await Promise.all([hub.installations(), hub.currentSemaphore()]);
    const installations = list.installations.filter(
      (each) => options.behind !== true || each.revision !== semaphore.revision,
    );
    output.document({ revision: semaphore.revision, installations });
    printTable(
      output,
      [
        { title: "id" },
        { title: "host" },
        { title: "directory" },
        { title: "revision", align: "right" },
        { title: "outcome" },
        { title: "roles" },
        { title: "seen" },
        { title: "problem" },
      ],
      installations.map((each) => [
        each.id,
        each.host,
        each.directory,
        each.revision === null ? "-" : String(each.revision),
        each.autoUpdate ? each.outcome : `${each.outcome} (update off)`,
        each.roles.join(" "),
        formatUtc(each.seenAt),
        each.problem ?? "",
      ]),
    );
  });
}

import type { Command } from "commander";
import { withHub } from "../connect.ts";
import type { HubArguments } from "../hub-address.ts";
import { addHubOptions, addJsonOption } from "../options.ts";
import { Output } from "../screen/output.ts";
import { printTable } from "../screen/table.ts";

/** `lockstep roles`: what an installation can be made of. */
export function define(command: Command): void {
  addJsonOption(addHubOptions(command)).action(listRoles);
}

async function listRoles(options: HubArguments & { readonly json?: boolean }): Promise<void> {
  const output = new Output(options);
  await withHub(options, async (hub) => {
    const targets = await hub.targets();
    output.document(targets);
    const chosen = (selectable: boolean) => (selectable ? "" : "not by hand");
    printTable(
      output,
      [
        { title: "kind" },
        { title: "name" },
        { title: "files", align: "right" },
        { title: "choice" },
        { title: "brings along" },
        { title: "description" },
      ],
      [
        ...targets.roles.map((role) => [
          "role",
          role.path,
          String(role.files),
          chosen(role.selectable),
          role.packages.join(" "),
          role.description,
        ]),
        ...targets.packages.map((each) => [
          "package",
          each.name,
          String(each.files),
          chosen(each.selectable),
          each.requires.join(" "),
          each.description,
        ]),
      ],
    );
  });
}

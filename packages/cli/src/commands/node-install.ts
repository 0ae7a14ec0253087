import { realpathSync } from "node:fs";
import { resolve } from "node:path";
import type { Command } from "commander";
import { addJsonOption } from "../options.ts";
import { Output } from "../screen/output.ts";

const NAME_DEFAULT = "lockstep-node";

interface InstallArguments {
  readonly config?: string;
  readonly name: string;
  readonly print?: boolean;
  readonly start: boolean;
  readonly json?: boolean;
}

/** `lockstep node install|uninstall`; `configDefault`: the node configuration where none is named. */
export function defineNodeInstall(node: Command, configDefault: string): void {
  const install = node
    .command("install")
    .description("register the node's daemon with systemd, so that it starts with the machine");
  addJsonOption(install)
    .option("--config <file>", `the node configuration (else LOCKSTEP_NODE_CONFIG, else ${configDefault})`)
    .option("--name <name>", "name of the service", NAME_DEFAULT)
    .option("--print", "only print the unit")
    .option("--no-start", "do not start it now")
    .action(async (options: InstallArguments, command: Command) => {
      // Known to the daemon as well, whose command this one belongs to.
      const { config } = command.optsWithGlobals<InstallArguments>();
      await installNode({ ...options, ...(config === undefined ? {} : { config }) }, configDefault);
    });
  const uninstall = node
    .command("uninstall")
    .description("stop the node's daemon and take it out of systemd again");
  addJsonOption(uninstall).option("--name <name>", "name of the service", NAME_DEFAULT).action(uninstallNode);
}

/** Throws NODE_CONFIG for a configuration that the daemon would refuse, SERVICE_INSTALL_FAILED. */
async function installNode(options: InstallArguments, configDefault: string): Promise<void> {
  const { nodeUnit, registerUnit, SYSTEM_UNITS } = await import("@lockstep/service");
  const { loadNodeConfig } = await import("@lockstep/cluster");
  const output = new Output(options);
  const configFile = resolve(options.config ?? (process.env.LOCKSTEP_NODE_CONFIG || configDefault));
  const config = await loadNodeConfig(configFile);
  const unit = nodeUnit({
    ...{ name: options.name, configFile },
    command: [process.execPath, realpathSync(resolve(process.argv[1] ?? ""))],
  });
  if (options.print === true) {
    output.document({ text: unit.text });
    output.line(unit.text.trimEnd());
    return;
  }
  const path = await registerUnit(unit, { ...SYSTEM_UNITS, now: options.start });
  output.document({ name: unit.name, unit: path, node: config.name, started: options.start });
  output.line(`${path} is written and enabled${options.start ? `, and node ${config.name} is started` : ""}`);
  output.note(`systemctl status ${unit.name} shows it, lockstep cluster status what it is to the others`);
}

async function uninstallNode(options: { readonly name: string; readonly json?: boolean }): Promise<void> {
  const { NODE_UNIT_MARK, SYSTEM_UNITS, unregisterService } = await import("@lockstep/service");
  const output = new Output(options);
  const unit = await unregisterService(options.name, SYSTEM_UNITS, NODE_UNIT_MARK);
  output.document({ name: options.name, unit });
  output.line(`${options.name} is stopped and ${unit} is removed`);
  output.note("it is still a member of the cluster: lockstep cluster leave");
}

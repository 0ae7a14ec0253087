import type { Command } from "commander";

export const CONFIG_DEFAULT = "JobService.toml";

/** The option by which the commands of the job service find its configuration. */
export function addConfigOption(command: Command): Command {
  return command.option("--config <file>", "the service's configuration", CONFIG_DEFAULT);
}

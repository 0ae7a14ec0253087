import type { Command } from "commander";
import { addHubOptions, addJsonOption, collect, wholeNumber } from "../options.ts";

/** `lockstep load`: the Software Loader. */
export function define(command: Command): void {
  command
    .argument("<directory>", "what to load; paths are kept relative to it")
    .option("--module <id>", "the module that the files belong to")
    .option("--version <version>", "the version of the module")
    .option("--kind <kind>", "version, service-pack, hotfix or custom")
    .option(
      "--assign <glob=role>",
      "machine role of the files that match; repeatable, the last match wins",
      collect,
    )
    .option(
      "--module-file <file>",
      "the module description (else module.toml in the directory; none: without)",
    )
    .option("--exclude <glob>", "leave out what matches; repeatable", collect)
    .option("--note <text>", "a remark that is kept with the release")
    .option("--dry-run", "show what would change, change nothing")
    .option("--yes", "do not ask; accept warnings, also a lower version")
    .option("--no-wait", "do not wait until the software revision has moved")
    .option(
      "--wait-seconds <seconds>",
      "wait at most so long for the software revision",
      wholeNumber("--wait-seconds", 1, 86_400),
    )
    .option("--verbose", "list every file")
    .option("--quiet", "no remarks and no progress");
  addJsonOption(addHubOptions(command)).action(async (directory: string, options) => {
    const { runLoad } = await import("../load/run.ts");
    await runLoad(directory, options);
  });
}

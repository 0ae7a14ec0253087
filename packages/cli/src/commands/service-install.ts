import { realpathSync, statSync } from "node:fs";
import { userInfo } from "node:os";
import { dirname, resolve } from "node:path";
import type { ServiceConfig, ServiceProgram } from "@lockstep/service";
import type { Command } from "commander";
import { addJsonOption, usage } from "../options.ts";
import { Output } from "../screen/output.ts";
import { addConfigOption } from "./service-file.ts";

const SYSTEMS = ["systemd", "windows", "launchd"] as const;
type System = (typeof SYSTEMS)[number];
const NAME_DEFAULT = "lockstep-service";

interface InstallArguments {
  readonly config: string;
  readonly name: string;
  readonly user?: string;
  readonly print?: boolean;
  readonly system?: System;
  readonly start: boolean;
  readonly json?: boolean;
}

/** `lockstep service install|uninstall` */
export function defineInstall(service: Command): void {
  const install = service
    .command("install")
    .description("register the service with systemd, so that it starts with the machine");
  addJsonOption(addConfigOption(install))
    .option("--name <name>", "name of the service", NAME_DEFAULT)
    .option("--user <account>", "the account it runs as (else the owner of the configuration's directory)")
    .option("--print", "only print what would be written")
    .option(
      "--system <system>",
      "with --print: systemd, windows or launchd (the last two are untested)",
      readSystem,
    )
    .option("--no-start", "do not start it now")
    .action(installService);
  const uninstall = service
    .command("uninstall")
    .description("stop the service and take it out of systemd again");
  addJsonOption(uninstall)
    .option("--name <name>", "name of the service", NAME_DEFAULT)
    .action(uninstallService);
}

function readSystem(text: string): System {
  const system = SYSTEMS.find((each) => each === text);
  if (system === undefined) throw usage("--system takes a system", SYSTEMS.join(", "), text);
  return system;
}

async function installService(options: InstallArguments): Promise<void> {
  const {
    formatLaunchdPlist,
    formatUnit,
    formatWindowsCommands,
    registerService,
    requireServiceConfig,
    SYSTEM_UNITS,
  } = await import("@lockstep/service");
  const output = new Output(options);
  const config = await requireServiceConfig(options.config, process.env);
  const program = await describeProgram(config, options);
  if (program.user === "root" || program.user === "0")
    output.warn("the service and every step would run as root; name another account by --user");
  const system = options.system ?? systemOfPlatform();
  if (options.print === true) {
    const format = { systemd: formatUnit, windows: formatWindowsCommands, launchd: formatLaunchdPlist };
    const text = format[system](program);
    output.document({ system, text });
    output.line(text.trimEnd());
    return;
  }
  if (system !== "systemd")
    throw usage(
      `the service can be registered with systemd alone, not with ${system}`,
      "--print",
      undefined,
      "With --print the commands or the file for this system are shown, to be carried out by hand; they are untested.",
    );
  const unit = await registerService(program, { ...SYSTEM_UNITS, now: options.start });
  output.document({ name: program.name, unit, started: options.start });
  output.line(`${unit} is written and enabled${options.start ? ", and the service is started" : ""}`);
  output.note(`systemctl status ${program.name} shows it`);
}

function systemOfPlatform(): System {
  return process.platform === "win32" ? "windows" : process.platform === "darwin" ? "launchd" : "systemd";
}

async function describeProgram(config: ServiceConfig, options: InstallArguments): Promise<ServiceProgram> {
  const { findInstallation } = await import("@lockstep/service");
  const directory = findInstallation(config.file)?.directory ?? dirname(config.file);
  const isInside = (path: string) => path === directory || path.startsWith(`${directory}/`);
  const used = [dirname(config.log.outputFile), config.log.jobLogDirectory, config.service.stateDirectory];
  return {
    name: options.name,
    command: [process.execPath, realpathSync(resolve(process.argv[1] ?? ""))],
    configFile: config.file,
    directory,
    writable: [...new Set(used.filter((path) => !isInside(path)))],
    user: options.user ?? ownerOf(directory),
    drainMs: config.service.drainMs,
    queues: config.destinations.map(({ queue }) => queue),
  };
}

/** The account to which the directory belongs, which is the one that may update it. A number is as good as a name. */
function ownerOf(directory: string): string {
  const { uid } = statSync(directory);
  const own = userInfo();
  return own.uid === uid ? own.username : String(uid);
}

interface UninstallArguments {
  readonly name: string;
  readonly json?: boolean;
}

async function uninstallService(options: UninstallArguments): Promise<void> {
  const { SYSTEM_UNITS, unregisterService } = await import("@lockstep/service");
  const output = new Output(options);
  const unit = await unregisterService(options.name, SYSTEM_UNITS);
  output.document({ name: options.name, unit });
  output.line(`${options.name} is stopped and ${unit} is removed; files and steps are as they were`);
}

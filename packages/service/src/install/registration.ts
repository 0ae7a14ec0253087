import { execFile } from "node:child_process";
import { chmod, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { systemErrorCode } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { formatUnit, type ServiceProgram, UNIT_MARK } from "./systemd-unit.ts";

/** A unit as it is to stand there. */
export interface Unit {
  /** Without `.service`. */
  readonly name: string;
  readonly text: string;
  /** The line of the text by which we know that a unit is one of ours. */
  readonly mark: string;
}

export interface RegistrationOptions {
  /** Where units are. */
  readonly unitDirectory: string;
  /** Start (`install`) or stop (`uninstall`) the service as well. */
  readonly now: boolean;
  /** The program that speaks to systemd. */
  readonly systemctl: string;
}

export const SYSTEM_UNITS: RegistrationOptions = {
  unitDirectory: "/etc/systemd/system",
  now: true,
  systemctl: "systemctl",
};

/** Registers a job service, as `registerUnit` does. */
export const registerService = (program: ServiceProgram, options: RegistrationOptions): Promise<string> =>
  registerUnit({ name: program.name, text: formatUnit(program), mark: UNIT_MARK }, options);

/**
 * Registers a unit with systemd: writes it, enables it, starts it where asked. Again with other values it writes the unit
 * anew. Returns the unit's path.
 *
 * Throws SERVICE_INSTALL_FAILED; a unit that we did not write is left alone.
 */
export async function registerUnit(unit: Unit, options: RegistrationOptions): Promise<string> {
  const path = unitPath(unit.name, options);
  const present = await readUnit(path);
  if (present !== null && !present.includes(unit.mark)) throw foreign(path, unit.mark);
  const temporary = `${path}.${process.pid}.new`;
  try {
    await writeFile(temporary, unit.text, { flag: "w" });
    await chmod(temporary, 0o644);
    await rename(temporary, path);
  } catch (cause) {
    await rm(temporary, { force: true });
    throw failed(`the unit ${path} cannot be written`, cause);
  }
  await systemctl(options, "daemon-reload");
  await systemctl(options, "enable", `${unit.name}.service`);
  if (options.now) await systemctl(options, "restart", `${unit.name}.service`);
  return path;
}

/** Stops and unregisters a service whose unit has this mark. Throws SERVICE_INSTALL_FAILED. */
export async function unregisterService(
  name: string,
  options: RegistrationOptions,
  mark: string = UNIT_MARK,
): Promise<string> {
  const path = unitPath(name, options);
  const present = await readUnit(path);
  if (present === null)
    throw new LockstepError("SERVICE_INSTALL_FAILED", `there is no service ${name}`, {
      expected: path,
      found: "nothing",
      hint: "systemctl list-unit-files 'lockstep*' shows which there are; name it by --name.",
    });
  if (!present.includes(mark)) throw foreign(path, mark);
  await systemctl(options, ...(options.now ? ["disable", "--now"] : ["disable"]), `${name}.service`);
  try {
    await rm(path);
  } catch (cause) {
    throw failed(`the unit ${path} cannot be removed`, cause);
  }
  await systemctl(options, "daemon-reload");
  return path;
}

function unitPath(name: string, { unitDirectory }: RegistrationOptions): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$/.test(name))
    throw new LockstepError("USAGE", "--name takes the name of a service", {
      expected: "letters, digits, and _ . -",
      found: name,
    });
  return join(unitDirectory, `${name}.service`);
}

async function readUnit(path: string): Promise<string | null> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return null;
    throw failed(`the unit ${path} cannot be read`, error);
  }
}

async function systemctl({ systemctl: program }: RegistrationOptions, ...args: string[]): Promise<void> {
  try {
    await promisify(execFile)(program, args);
  } catch (cause) {
    throw failed(`${program} ${args.join(" ")} failed`, cause);
  }
}

function failed(message: string, cause: unknown): LockstepError {
  const told = cause instanceof Error && "stderr" in cause && String(cause.stderr).trim();
  return new LockstepError("SERVICE_INSTALL_FAILED", message, {
    cause,
    ...(told ? { found: told } : {}),
    hint: "Run it as root; with --print the unit is shown, to be put in place by hand.",
  });
}

function foreign(path: string, mark: string): LockstepError {
  return new LockstepError("SERVICE_INSTALL_FAILED", `${path} is not one that lockstep wrote`, {
    expected: mark,
    hint: "Choose another name by --name, or remove that unit yourself.",
  });
}

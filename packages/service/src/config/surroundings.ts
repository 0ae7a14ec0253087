import { access, constants, stat } from "node:fs/promises";
import { dirname } from "node:path";
import type { Environment } from "./load.ts";
import type { ConfigValues } from "./parameters.ts";
import type { ServiceConfig } from "./types.ts";
import type { ValueFault } from "./values.ts";

/**
 * What the configuration names and the machine does not have: files, directories, environment variables. A missing
 * log directory is a warning, since the service works on without a log; a missing secret is an error.
 */
export async function findSurroundingFaults(
  config: ServiceConfig,
  values: ConfigValues,
  environment: Environment,
): Promise<ValueFault[]> {
  const { provider, service, log, status } = config;
  const password = status.authentication?.password;
  const faults = await Promise.all([
    provider.tokenFile === null ? [] : findSecretFault(provider.tokenFile, ["JobProvider", "TokenFile"]),
    provider.caFile === null ? [] : findFileFault(provider.caFile, ["JobProvider", "CaFile"]),
    ...service.plugins.map((path, index) => findFileFault(path, ["Service", "Plugins", index])),
    password === undefined || !("file" in password)
      ? []
      : findSecretFault(password.file, ["HTTPAuthentication", "PasswordFile"]),
    values.FileLogWriter.OutPutFile === "" ? [] : findDirectoryFault(dirname(log.outputFile)),
  ]);
  if (password !== undefined && "environment" in password && !environment[password.environment])
    faults.push([
      {
        severity: "error",
        at: ["HTTPAuthentication", "PasswordEnvironment"],
        problem: `the environment has no variable ${password.environment}, or an empty one`,
      },
    ]);
  return faults.flat();
}

async function findFileFault(path: string, at: ValueFault["at"]): Promise<ValueFault[]> {
  try {
    const found = await stat(path);
    if (!found.isFile()) return [{ severity: "error", at, problem: `${path} is no file` }];
    await access(path, constants.R_OK);
    return [];
  } catch (error) {
    return [{ severity: "error", at, problem: `${path} cannot be read (${codeOf(error)})` }];
  }
}

/** Who can read the file of a secret can use the secret. */
async function findSecretFault(path: string, at: ValueFault["at"]): Promise<ValueFault[]> {
  const faults = await findFileFault(path, at);
  if (faults.length > 0 || process.platform === "win32") return faults;
  const { mode } = await stat(path);
  return (mode & 0o077) === 0
    ? []
    : [{ severity: "warning", at, problem: `${path} can be read by others; set its mode to 0600` }];
}

async function findDirectoryFault(directory: string): Promise<ValueFault[]> {
  const at = ["FileLogWriter", "OutPutFile"];
  try {
    if ((await stat(directory)).isDirectory()) return [];
    return [{ severity: "warning", at, problem: `${directory} is no directory: there will be no log` }];
  } catch (error) {
    const problem = `the directory ${directory} is not there (${codeOf(error)}): there will be no log until it is`;
    return [{ severity: "warning", at, problem }];
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : String(error);
}

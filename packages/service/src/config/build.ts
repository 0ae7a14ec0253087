import { dirname, join, resolve } from "node:path";
import type { ConfigValues } from "./parameters.ts";
import type { DestinationConfig, LogSeverity, ServiceConfig, StatusAuthentication } from "./types.ts";

/** Makes the configuration of its values: paths absolute, units as the program counts. `host` is this machine's name. */
export function buildConfig(file: string, values: ConfigValues, host: string): ServiceConfig {
  const directory = dirname(file);
  const absolute = (path: string) => resolve(directory, path);
  const maybe = (path: string | null) => (path === null ? null : absolute(path));
  const { JobProvider, Service, FileLogWriter, HTTPStatus } = values;
  const outputFile = absolute(FileLogWriter.OutPutFile);
  return {
    file,
    provider: {
      hub: JobProvider.Hub,
      tokenFile: maybe(JobProvider.TokenFile),
      caFile: maybe(JobProvider.CaFile),
    },
    destinations: values.JobServiceDestination.map(buildDestination),
    service: {
      machine: Service.Machine ?? host,
      drainMs: Service.DrainSeconds * 1000,
      stateDirectory: absolute(Service.StateDirectory),
      plugins: (Service.Plugins ?? []).map(absolute),
      debugMode: Service.DebugMode,
      componentDebugMode: Service.ComponentDebugMode,
    },
    log: {
      outputFile,
      sizeBytesMax: Math.round(FileLogWriter.MaxLogSize * 1024 * 1024),
      historySize: FileLogWriter.HistorySize,
      severity: readSeverity(FileLogWriter.LogSeverity),
      paramLengthMax: FileLogWriter.ParamMaxLength,
      jobLogLifeTimeMs: FileLogWriter.JobLogLifeTime === 0 ? null : FileLogWriter.JobLogLifeTime * 3_600_000,
      jobLogDirectory: maybe(FileLogWriter.JobLogDirectory) ?? join(dirname(outputFile), "JobLogs"),
    },
    status: {
      enabled: HTTPStatus.Enabled,
      address: HTTPStatus.Address,
      port: HTTPStatus.Port,
      authentication: buildAuthentication(values.HTTPAuthentication, absolute),
    },
  };
}

function buildDestination(values: ConfigValues["JobServiceDestination"][number]): DestinationConfig {
  return {
    queue: values.Queue,
    requestIntervalMs: values.RequestInterval * 1000,
    internalSlots: values.InternalSlots,
    externalSlots: values.ExternalSlots,
    externalSlotEnvironment: values.ExternalSlotEnvironment ?? {},
    externalSlotReuseMax: values.MaxExternalSlotReuse,
    externalIdleMs: values.ExternalIdleSeconds * 1000,
    resultQueueLimit: values.ResultQueueLimit,
    requestQueueLimit: values.RequestQueueLimit,
  };
}

function readSeverity(text: string): LogSeverity {
  return text === "Info" || text === "Serious" ? text : "Warning";
}

function buildAuthentication(
  { User, PasswordFile, PasswordEnvironment }: ConfigValues["HTTPAuthentication"],
  absolute: (path: string) => string,
): StatusAuthentication | null {
  if (PasswordFile !== null) return { user: User, password: { file: absolute(PasswordFile) } };
  if (PasswordEnvironment !== null) return { user: User, password: { environment: PasswordEnvironment } };
  return null;
}

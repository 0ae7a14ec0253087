import type { ResourceDefinition } from "@lockstep/core";
import { SettingReader } from "./setting-reader.ts";

/** What a `generic-service` runs, and how it is known to be well. */
export interface ServiceSettings {
  readonly what:
    | {
        readonly kind: "program";
        readonly program: string;
        readonly arguments: readonly string[];
        readonly directory: string;
        readonly environment: Readonly<Record<string, string>>;
      }
    /** The job service of this project, by its configuration file. */
    | { readonly kind: "job-service"; readonly config: string }
    | { readonly kind: "unit"; readonly unit: string };
  /** The installation that it lies in; null: none. */
  readonly installation: string | null;
  /** Without a probe: it counts as started when it has lived for so long. */
  readonly readyMs: number;
  /** The longest start; a program that has not answered its probe by then has failed. */
  readonly startMs: number;
  readonly stopSignal: "SIGTERM" | "SIGINT" | "SIGHUP";
  /** How long it may take to end by itself. */
  readonly stopMs: number;
  readonly probe: ServiceProbe | null;
  readonly probeMs: number;
  /** A service that says that it updates itself is left alone for so long. */
  readonly updateMs: number;
}

export type ServiceProbe =
  | { readonly kind: "command"; readonly words: readonly [string, ...string[]] }
  | { readonly kind: "http"; readonly url: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

const HOUR_MS = 3_600_000;

export function readServiceSettings(settings: ResourceDefinition["settings"]): {
  readonly settings: ServiceSettings;
  readonly faults: readonly string[];
} {
  const reader = new SettingReader(settings);
  const what = readWhat(reader);
  const read: ServiceSettings = {
    what,
    installation: reader.path("installation", "") || null,
    readyMs: reader.count("readyMs", 200, 0, HOUR_MS),
    startMs: reader.count("startMs", 120_000, 1, HOUR_MS),
    stopSignal: readSignal(reader),
    // A job service drains: its own limits are DrainSeconds (60) and what its supervisor adds.
    stopMs: reader.count("stopMs", what.kind === "job-service" ? 90_000 : 30_000, 0, HOUR_MS),
    probe: readProbe(reader),
    probeMs: reader.count("probeMs", 5_000, 1, HOUR_MS),
    updateMs: reader.count("updateMs", 1_800_000, 0, 24 * HOUR_MS),
  };
  return { settings: read, faults: reader.faults() };
}

/** What is wrong, each in words; empty: nothing. */
export const checkGenericServiceSettings = (settings: ResourceDefinition["settings"]): readonly string[] =>
  readServiceSettings(settings).faults;

function readWhat(reader: SettingReader): ServiceSettings["what"] {
  const program = reader.path("program", "");
  const config = reader.path("jobService", "");
  const unit = reader.text("unit", "");
  const words = reader.list("arguments");
  const directory = reader.path("directory", "/");
  const environment = readEnvironment(reader);
  const given = [program, config, unit].filter((text) => text !== "");
  if (given.length !== 1) reader.fault("program", "exactly one of program, jobService and unit is needed");
  if (unit !== "" && !/^[A-Za-z0-9:_.@\\-]+\.service$/.test(unit))
    reader.fault("unit", `${unit} is no name of a systemd service like app.service`);
  if (program === "" && words.length > 0) reader.fault("arguments", "belongs to a program");
  if (config !== "") return { kind: "job-service", config };
  if (unit !== "") return { kind: "unit", unit };
  return { kind: "program", program, arguments: words, directory, environment };
}

function readEnvironment(reader: SettingReader): Readonly<Record<string, string>> {
  const entries = reader.list("environment").map((text) => {
    const at = text.indexOf("=");
    if (at <= 0) reader.fault("environment", `${text} is not of the form NAME=value`);
    return [text.slice(0, Math.max(at, 0)), text.slice(at + 1)] as const;
  });
  return Object.fromEntries(entries);
}

const SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP"] as const;

function readSignal(reader: SettingReader): ServiceSettings["stopSignal"] {
  const text = reader.text("stopSignal", "SIGTERM");
  const signal = SIGNALS.find((each) => each === text);
  if (signal === undefined) reader.fault("stopSignal", `must be one of ${SIGNALS.join(", ")}`);
  return signal ?? "SIGTERM";
}

function readProbe(reader: SettingReader): ServiceProbe | null {
  const words = reader.list("probeCommand");
  const url = reader.text("probeHttp", "");
  const tcp = reader.text("probeTcp", "");
  if ([words.length > 0, url !== "", tcp !== ""].filter(Boolean).length > 1)
    reader.fault("probeCommand", "only one of probeCommand, probeHttp and probeTcp can be given");
  const [program, ...args] = words;
  if (program !== undefined) {
    if (!program.startsWith("/")) reader.fault("probeCommand", "must begin with an absolute path");
    return { kind: "command", words: [program, ...args] };
  }
  if (url !== "") {
    if (!/^https?:$/.test(URL.parse(url)?.protocol ?? ""))
      reader.fault("probeHttp", "must be a URL of http or https");
    return { kind: "http", url };
  }
  if (tcp === "") return null;
  const [, host, port] = /^(?:\[?([^\]]+?)\]?:)?(\d{1,5})$/.exec(tcp) ?? [];
  if (port === undefined || Number(port) < 1 || Number(port) > 65_535)
    reader.fault("probeTcp", `${tcp} is not of the form host:port`);
  return { kind: "tcp", host: host ?? "127.0.0.1", port: Number(port ?? 0) };
}

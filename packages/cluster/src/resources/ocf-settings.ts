import type { ResourceDefinition } from "@lockstep/core";
import { SettingReader } from "./setting-reader.ts";

/** What the settings of an `ocf` resource say. */
export interface OcfSettings {
  readonly provider: string;
  readonly type: string;
  readonly root: string;
  readonly parameters: ReadonlyMap<string, string>;
  /** OCF_CHECK_LEVEL of the thorough check; null: the deepest that the agent declares. */
  readonly checkLevel: number | null;
  /** Null: what the agent advises. */
  readonly startMs: number | null;
  readonly stopMs: number | null;
  readonly monitorMs: number | null;
}

const HOUR_MS = 3_600_000;

export function readOcfSettings(settings: ResourceDefinition["settings"]): {
  readonly settings: OcfSettings;
  readonly faults: readonly string[];
} {
  const reader = new SettingReader(settings);
  const agent = reader.text("agent");
  // A provider and a type are one directory and one file: nothing in them leads anywhere else.
  const match = /^ocf:([A-Za-z0-9_][\w.-]*):([A-Za-z0-9_][\w.-]*)$/.exec(agent);
  if (match === null && agent !== "") reader.fault("agent", `${agent} does not read ocf:PROVIDER:TYPE`);
  const parameters = new Map<string, string>();
  for (const each of reader.list("parameters")) {
    const [, name, value] = /^([A-Za-z_]\w*)=(.*)$/s.exec(each) ?? [];
    if (name === undefined || value === undefined)
      reader.fault("parameters", `${each} does not read NAME=VALUE`);
    else if (parameters.has(name)) reader.fault("parameters", `${name} is there twice`);
    else parameters.set(name, value);
  }
  const checkLevel = reader.count("checkLevel", 0, 0, 100);
  const limit = (name: string) => reader.count(name, 0, 0, HOUR_MS) || null;
  return {
    settings: {
      provider: match?.[1] ?? "",
      type: match?.[2] ?? "",
      root: reader.path("root", "/usr/lib/ocf"),
      parameters,
      checkLevel: Object.hasOwn(settings, "checkLevel") ? checkLevel : null,
      startMs: limit("startMs"),
      stopMs: limit("stopMs"),
      monitorMs: limit("monitorMs"),
    },
    faults: reader.faults(),
  };
}

/** What is wrong with the settings of an `ocf` resource, without a look at the agent. */
export function checkOcfSettings(settings: ResourceDefinition["settings"]): readonly string[] {
  return readOcfSettings(settings).faults;
}

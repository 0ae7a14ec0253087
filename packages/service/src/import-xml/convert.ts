import { TABLES, type TableName } from "../config/parameters.ts";
import { type WrittenTable, writeConfig } from "../config/write.ts";
import { findModules, type ModuleKind, type OldModule } from "./modules.ts";
import { readXml } from "./read-xml.ts";

/** What became of a file of the original. */
export interface ImportedConfig {
  readonly toml: string;
  readonly taken: readonly { readonly from: string; readonly to: string }[];
  /** What has no counterpart, or could not be understood, and why. */
  readonly left: readonly { readonly from: string; readonly why: string }[];
  /** Secrets were not copied; where each belongs. */
  readonly secrets: readonly { readonly from: string; readonly put: string }[];
  /** What a person has to add before the service can start. */
  readonly missing: readonly string[];
}

export interface ImportOptions {
  /** Shown in faults. */
  readonly fileName: string;
  /** Address of the hub, which no file of the original knows. */
  readonly hub: string | null;
}

/**
 * Converts a Jobservice.cfg. Pure but for what it throws: SERVICE_IMPORT_REFUSED. No secret of the old file is in
 * anything that it returns.
 */
export async function importConfig(xml: string, { fileName, hub }: ImportOptions): Promise<ImportedConfig> {
  const conversion = new Conversion();
  for (const module of findModules(await readXml(xml, fileName))) conversion.take(module);
  return conversion.finish(hub);
}

interface Target {
  readonly table: TableName;
  readonly key: string;
  readonly convert: (text: string) => unknown;
}

const text = (value: string) => (value === "" ? undefined : value);
const integer = (value: string) => (/^-?\d{1,9}$/.test(value) ? Number(value) : undefined);
const flag = (value: string) =>
  /^(true|1|yes)$/i.test(value) ? true : /^(false|0|no)$/i.test(value) ? false : undefined;
const to = (table: TableName, key: string, convert: Target["convert"]): Target => ({ table, key, convert });

const SERVICE_TARGETS: Readonly<Record<string, Target>> = {
  debugmode: to("Service", "DebugMode", flag),
  componentdebugmode: to("Service", "ComponentDebugMode", flag),
  httpport: to("HTTPStatus", "Port", integer),
  port: to("HTTPStatus", "Port", integer),
};

/** Which parameter of the old file is which of ours. Names in lower case, as the old files have them. */
const TARGETS: Partial<Record<ModuleKind, Readonly<Record<string, Target>>>> = {
  destination: {
    queue: to("JobServiceDestination", "Queue", text),
    requestinterval: to("JobServiceDestination", "RequestInterval", seconds),
    internalslots: to("JobServiceDestination", "InternalSlots", integer),
    externalslots: to("JobServiceDestination", "ExternalSlots", integer),
    externalslotenvironment: to("JobServiceDestination", "ExternalSlotEnvironment", variables),
    maxexternalslotreuse: to("JobServiceDestination", "MaxExternalSlotReuse", integer),
    resultqueuelimit: to("JobServiceDestination", "ResultQueueLimit", integer),
    requestqueuelimit: to("JobServiceDestination", "RequestQueueLimit", integer),
  },
  log: {
    outputfile: to("FileLogWriter", "OutPutFile", path),
    maxlogsize: to("FileLogWriter", "MaxLogSize", integer),
    historysize: to("FileLogWriter", "HistorySize", integer),
    logseverity: to("FileLogWriter", "LogSeverity", severity),
    parammaxlength: to("FileLogWriter", "ParamMaxLength", integer),
    jobloglifetime: to("FileLogWriter", "JobLogLifeTime", hours),
  },
  service: SERVICE_TARGETS,
  plugin: { httpport: to("HTTPStatus", "Port", integer) },
  authentication: {
    user: to("HTTPAuthentication", "User", text),
    username: to("HTTPAuthentication", "User", text),
  },
};

const WITHOUT_COUNTERPART: Readonly<Record<ModuleKind, string>> = {
  provider: "steps come from a hub over HTTP, not from a database; give its address as [JobProvider] Hub",
  destination: "has no counterpart",
  log: "has no counterpart",
  "event-log":
    "there is no log writer for the event log; the service uses the system log where it cannot write its own",
  service: "has no counterpart",
  authentication: "has no counterpart: the status page knows a user and a password",
  gate: "services talk to the hub directly; there are no gates",
  dispatcher: "services do not ask on behalf of others",
  connection: "a service has no connection to the database",
  plugin: "plug-ins are modules of our own kind; see [Service] Plugins",
  unknown: "is not known",
};

const SECRET = /passw|pwd|secret|token|connect(ion)?string|authstring|privatekey|^key$|credential/;
/** What names a module and is not a parameter of it. */
const NAMING = ["type", "class", "module", "jobproviderid", "providerid"];
const PASSWORD_FILE = "http-password";

class Conversion {
  readonly #single = new Map<TableName, Record<string, unknown>>();
  readonly #destinations: Record<string, unknown>[] = [];
  readonly #taken: { from: string; to: string }[] = [];
  readonly #left: { from: string; why: string }[] = [];
  readonly #secrets: { from: string; put: string }[] = [];

  take(module: OldModule): void {
    const targets = TARGETS[module.kind] ?? {};
    const table: Record<string, unknown> = {};
    for (const [name, value] of module.values) {
      const from = `${module.path}/${name}`;
      const target = Object.hasOwn(targets, name) ? targets[name] : undefined;
      if (SECRET.test(name)) this.#secret(module, from, value);
      else if (NAMING.includes(name)) continue;
      else if (target === undefined) this.#left.push({ from, why: this.#whyLeft(module, name) });
      else this.#convert(target, from, value, table);
    }
    if (module.kind === "destination" && Object.keys(table).length > 0) this.#destinations.push(table);
    if ((module.kind === "provider" || module.kind === "event-log") && module.values.size > 0)
      this.#left.push({ from: module.path, why: WITHOUT_COUNTERPART[module.kind] });
  }

  finish(hub: string | null): ImportedConfig {
    const missing: string[] = [];
    if (hub === null) missing.push("[JobProvider] Hub: the address of the hub");
    if (this.#destinations.every(({ Queue }) => Queue === undefined))
      missing.push("[[JobServiceDestination]] Queue: the name of the queue");
    const log = this.#table("FileLogWriter");
    if (log.OutPutFile === undefined) missing.push("[FileLogWriter] OutPutFile: the file of the log");
    const tables: WrittenTable[] = [
      { name: "JobProvider", values: hub === null ? {} : { Hub: hub } },
      ...this.#destinations.map((values) => ({ name: "JobServiceDestination", values }) as const),
      ...[...this.#single].map(([name, values]) => ({ name, values })),
    ];
    const head = `# Imported. Compare with docs/reference/service-config.md and run: lockstep service config check\n${missing.map((each) => `# Missing: ${each}\n`).join("")}\n`;
    return {
      toml: head + writeConfig(tables, { complete: false }),
      taken: this.#taken,
      left: this.#left,
      secrets: this.#secrets,
      missing,
    };
  }

  #table(name: TableName): Record<string, unknown> {
    const table = this.#single.get(name) ?? {};
    this.#single.set(name, table);
    return table;
  }

  #secret(module: OldModule, from: string, value: string): void {
    if (value === "") return;
    if (module.kind !== "authentication") {
      const put =
        module.kind === "provider" || module.kind === "connection"
          ? "nowhere: the service shows the hub's token, from the file that [JobProvider] TokenFile names"
          : "nowhere: no parameter of ours needs it";
      this.#secrets.push({ from, put });
      return;
    }
    this.#table("HTTPAuthentication").PasswordFile = PASSWORD_FILE;
    this.#secrets.push({
      from,
      put: `into the first line of the file ${PASSWORD_FILE} beside the configuration, with mode 0600`,
    });
  }

  #convert(target: Target, from: string, value: string, destination: Record<string, unknown>): void {
    if (value === "") return;
    const converted = target.convert(value);
    const shown = target.key === "User" ? "" : ` (${JSON.stringify(value.slice(0, 100))})`;
    if (converted === undefined) {
      this.#left.push({ from, why: `its value${shown} was not understood` });
      return;
    }
    const known = isSplit(converted) ? converted.kept : converted;
    if (isSplit(converted))
      for (const name of converted.secret)
        this.#secrets.push({ from: `${from} ${name}`, put: "into the environment of the service" });
    const table = target.table === "JobServiceDestination" ? destination : this.#table(target.table);
    table[target.key] = known;
    this.#taken.push({
      from,
      to: `${TABLES[target.table].many ? `[[${target.table}]]` : `[${target.table}]`} ${target.key}`,
    });
    if (target.key === "OutPutFile" && /^[A-Za-z]:/.test(value))
      this.#left.push({
        from,
        why: "names a drive: on another system than Windows write the path of that system",
      });
  }

  #whyLeft({ kind, values }: OldModule, name: string): string {
    if (kind === "authentication" && [...values.values()].some((value) => /windowshttp/i.test(value)))
      return "groups of Windows cannot log on to the status page; a user and a password can";
    if (kind === "destination" && /32/.test(name)) return "there are no external slots of 32 bits";
    return WITHOUT_COUNTERPART[kind];
  }
}

interface Split {
  readonly kept: Record<string, string>;
  readonly secret: string[];
}
const isSplit = (value: unknown): value is Split =>
  typeof value === "object" && value !== null && "kept" in value && "secret" in value;

/** `Name=Value|Name=Value` */
function variables(value: string): Split | undefined {
  const kept: Record<string, string> = {};
  const secret: string[] = [];
  for (const pair of value.split("|")) {
    const match = /^\s*([A-Za-z_]\w*)\s*=(.*)$/.exec(pair);
    if (match === null) return undefined;
    const name = match[1] ?? "";
    if (SECRET.test(name.toLowerCase())) secret.push(name);
    else kept[name] = match[2] ?? "";
  }
  return { kept, secret };
}

function severity(value: string): string | undefined {
  return TABLES.FileLogWriter.parameters.LogSeverity.choices.find(
    (each) => each.toLowerCase() === value.toLowerCase(),
  );
}

/** A path of Windows that is not absolute means the same with slashes, on every system. */
function path(value: string): string | undefined {
  if (value === "") return undefined;
  return /^([A-Za-z]:|\\\\)/.test(value) ? value : value.replaceAll("\\", "/");
}

/** `90`, or `00:01:30` */
function seconds(value: string): number | undefined {
  const span = spanSeconds(value);
  return span === null ? integer(value) : span;
}

/** `24`, or `1.00:00:00`; never less than one hour, since 0 would mean no logs at all. */
function hours(value: string): number | undefined {
  const span = spanSeconds(value);
  return span === null ? integer(value) : Math.max(1, Math.round(span / 3600));
}

/** `d.hh:mm:ss` */
function spanSeconds(value: string): number | null {
  const match = /^(?:(\d{1,5})\.)?(\d{1,2}):(\d\d)(?::(\d\d))?$/.exec(value);
  if (match === null) return null;
  const [, days = "0", hour = "0", minute = "0", second = "0"] = match;
  return ((Number(days) * 24 + Number(hour)) * 60 + Number(minute)) * 60 + Number(second);
}

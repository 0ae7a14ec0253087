/**
 * The configuration of one job service, as the rest of the service sees it: read, checked, with every default filled in
 * and every path absolute (relative ones in the file count from the file's own directory).
 *
 * docs/reference/service-config.md describes the file; `parameters.ts` beside this is the one table of its keys.
 */
export interface ServiceConfig {
  /** The absolute path of the file that this was read from. */
  readonly file: string;
  readonly provider: ProviderConfig;
  /** One for each queue. May be empty: the service then only shows its status page (a warning says so). */
  readonly destinations: readonly DestinationConfig[];
  readonly service: ServiceSettings;
  readonly log: LogConfig;
  readonly status: StatusConfig;
}

/** [JobProvider]: where steps come from. */
export interface ProviderConfig {
  readonly hub: string;
  /** Null: LOCKSTEP_TOKEN or LOCKSTEP_TOKEN_FILE, or the token file that the installation names, or none. */
  readonly tokenFile: string | null;
  readonly caFile: string | null;
}

/** [[JobServiceDestination]]: a queue that this service serves. */
export interface DestinationConfig {
  readonly queue: string;
  /** The longest pause between two requests. */
  readonly requestIntervalMs: number;
  readonly internalSlots: number;
  readonly externalSlots: number;
  /** Added to the environment of external workers. */
  readonly externalSlotEnvironment: Readonly<Record<string, string>>;
  /** An external worker ends after so many steps. */
  readonly externalSlotReuseMax: number;
  readonly externalIdleMs: number;
  /** Results that wait for the hub; when full, no further step is asked for. */
  readonly resultQueueLimit: number;
  /** Steps that were fetched and have not begun. */
  readonly requestQueueLimit: number;
}

/** [Service] */
export interface ServiceSettings {
  /** The name of the physical machine; queues with the same one wait for each other during an update. */
  readonly machine: string;
  /** How long running steps may go on after the service was told to stop. */
  readonly drainMs: number;
  /** Journal, worker directories, made-up credentials; made with mode 0700. */
  readonly stateDirectory: string;
  /** ESM files that export `components`. */
  readonly plugins: readonly string[];
  /** Parameters and results of every step into the log. */
  readonly debugMode: boolean;
  /** What components were given and how long they ran into the logs of steps. */
  readonly componentDebugMode: boolean;
}

export type LogSeverity = "Info" | "Warning" | "Serious";

/** [FileLogWriter] */
export interface LogConfig {
  readonly outputFile: string;
  /** The log is renamed to a backup when it would grow beyond this. */
  readonly sizeBytesMax: number;
  /** Backups that are kept. */
  readonly historySize: number;
  readonly severity: LogSeverity;
  /** Longer parameter values are cut in the log. */
  readonly paramLengthMax: number;
  /** Logs of single steps are deleted after this; null: there are none. */
  readonly jobLogLifeTimeMs: number | null;
  readonly jobLogDirectory: string;
}

/** [HTTPStatus] and [HTTPAuthentication] */
export interface StatusConfig {
  readonly enabled: boolean;
  readonly address: string;
  /** 0: any free one. */
  readonly port: number;
  /** Null: none asked on loopback; elsewhere made up at the first start (StateDirectory/http-password). */
  readonly authentication: StatusAuthentication | null;
}

export interface StatusAuthentication {
  readonly user: string;
  readonly password: { readonly file: string } | { readonly environment: string };
}

/** `error`: the service does not start. `warning`: it starts, but does less than somebody may expect. */
export type ConfigFaultSeverity = "error" | "warning" | "note";

export interface ConfigFault {
  readonly severity: ConfigFaultSeverity;
  /** Counted from 1. */
  readonly line: number;
  readonly column: number;
  /** `JobServiceDestination[1].Queue` */
  readonly key: string;
  readonly problem: string;
}

export interface LoadedConfig {
  /** Null where a fault is an error. */
  readonly config: ServiceConfig | null;
  /** In the order of the file. */
  readonly faults: readonly ConfigFault[];
}

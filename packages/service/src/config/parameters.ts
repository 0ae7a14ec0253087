/**
 * Every parameter of the configuration file, once. The reader checks a file against this table, `config show` prints
 * from it, the import writes by it, and docs/reference/service-config.md holds the same rows (a test compares them).
 */
export interface Parameter {
  readonly type: ParameterType;
  /** Null: none; the parameter may stay away. Not looked at where the parameter is required. */
  readonly default: string | number | boolean | null;
  /** How the document puts a default that depends on the machine or on another parameter. */
  readonly defaultText?: string;
  readonly unit?: string;
  readonly required?: true;
  readonly effect: ParameterEffect;
  /** Of a number, or of the length of a text. */
  readonly min?: number;
  readonly max?: number;
  readonly choices?: readonly string[];
  readonly description: string;
}

/** `at once`: taken over from a changed file while the service runs. */
export type ParameterEffect = "at once" | "restart";

export type ParameterType =
  | "text"
  | "url"
  | "path" // made absolute from the directory of the file
  | "paths"
  | "integer"
  | "number"
  | "boolean"
  | "choice"
  | "variables"; // a table of environment variables

export interface TableDefinition {
  /** Written as [[Name]]; there may be several. */
  readonly many: boolean;
  /** Without it the service does not start. */
  readonly required: boolean;
  readonly description: string;
  readonly parameters: Readonly<Record<string, Parameter>>;
}

export const TABLES = {
  JobProvider: {
    many: false,
    required: true,
    description: "Where steps come from and results go to.",
    parameters: {
      Hub: {
        type: "url",
        default: null,
        required: true,
        effect: "restart",
        description: "Address of the hub.",
      },
      TokenFile: {
        type: "path",
        default: null,
        defaultText: "`LOCKSTEP_TOKEN`, `LOCKSTEP_TOKEN_FILE`, or what the installation names",
        effect: "restart",
        description: "File with the hub's token.",
      },
      CaFile: {
        type: "path",
        default: null,
        defaultText: "the machine's certificates",
        effect: "restart",
        description: "Certificates in PEM to trust instead of the machine's own.",
      },
    },
  },
  JobServiceDestination: {
    many: true,
    required: false,
    description: "A queue that this service serves; one table for each.",
    parameters: {
      Queue: {
        type: "text",
        default: null,
        required: true,
        effect: "restart",
        min: 1,
        max: 255,
        description:
          "Name of the queue: that of the server, or of the virtual server. Unique within the file, and served by one service.",
      },
      RequestInterval: {
        type: "integer",
        default: 90,
        unit: "s",
        effect: "at once",
        min: 1,
        max: 86_400,
        description:
          "Longest pause between two requests. New steps arrive at once all the same: the hub answers when there is one.",
      },
      InternalSlots: {
        type: "integer",
        default: 20,
        effect: "at once",
        min: 0,
        max: 1000,
        description: "Steps that may run in the service itself at the same time.",
      },
      ExternalSlots: {
        type: "integer",
        default: 10,
        effect: "at once",
        min: 0,
        max: 1000,
        description: "Steps that may run in worker processes at the same time.",
      },
      ExternalSlotEnvironment: {
        type: "variables",
        default: null,
        defaultText: "none",
        effect: "at once",
        description: "Environment variables that worker processes get in addition. Not for secrets.",
      },
      MaxExternalSlotReuse: {
        type: "integer",
        default: 100,
        unit: "steps",
        effect: "at once",
        min: 1,
        max: 1_000_000,
        description: "A worker process ends after so many steps.",
      },
      ExternalIdleSeconds: {
        type: "integer",
        default: 30,
        unit: "s",
        effect: "at once",
        min: 1,
        max: 86_400,
        description: "A worker process ends when it had nothing to do for so long.",
      },
      ResultQueueLimit: {
        type: "integer",
        default: 10_000,
        unit: "results",
        effect: "at once",
        min: 1,
        max: 1_000_000,
        description:
          "Results that may wait for a hub that is out of reach. When it is reached, no further step is asked for.",
      },
      RequestQueueLimit: {
        type: "integer",
        default: 1000,
        unit: "steps",
        effect: "at once",
        min: 1,
        max: 20_000,
        description: "Steps that may be fetched and not begun.",
      },
    },
  },
  Service: {
    many: false,
    required: false,
    description: "The service as a whole.",
    parameters: {
      Machine: {
        type: "text",
        default: null,
        defaultText: "the node, in a cluster; else the host name",
        effect: "restart",
        min: 1,
        max: 255,
        description:
          "Name of the physical machine. Queues of one machine wait for each other during an automatic update.",
      },
      DrainSeconds: {
        type: "integer",
        default: 60,
        unit: "s",
        effect: "restart",
        min: 0,
        max: 86_400,
        description:
          "How long running steps may go on once the service was told to stop. A longer time needs `service install` again, because the service manager waits by it.",
      },
      StateDirectory: {
        type: "path",
        default: ".lockstep-service",
        effect: "restart",
        description:
          "Results that wait, directories of steps, a password that was made up. Made with mode 0700. Not to be shared by two services.",
      },
      Plugins: {
        type: "paths",
        default: null,
        defaultText: "none",
        effect: "restart",
        description: "Modules (ESM) that export further `components`.",
      },
      DebugMode: {
        type: "boolean",
        default: false,
        effect: "at once",
        description: "Parameters and results of every step go into the log. Hidden ones stay hidden.",
      },
      ComponentDebugMode: {
        type: "boolean",
        default: false,
        effect: "at once",
        description:
          "The log of each step says what its component was given, how long it ran and how it ended. Hidden parameters stay hidden.",
      },
    },
  },
  FileLogWriter: {
    many: false,
    required: true,
    description: "The log of the service, and the logs of single steps.",
    parameters: {
      OutPutFile: {
        type: "path",
        default: null,
        required: true,
        effect: "at once",
        description:
          "The log. Its directory is not made: where it is missing, the service says so in the system log and works on.",
      },
      MaxLogSize: {
        type: "number",
        default: 10,
        unit: "MB",
        effect: "at once",
        min: 0.01,
        max: 100_000,
        description: "Before the log grows beyond this it is renamed to a backup and a new one is begun.",
      },
      HistorySize: {
        type: "integer",
        default: 10,
        unit: "files",
        effect: "at once",
        min: 0,
        max: 1000,
        description: "Backups that are kept, as `OutPutFile.1` (the newest) and so on.",
      },
      LogSeverity: {
        type: "choice",
        default: "Warning",
        choices: ["Info", "Warning", "Serious"],
        effect: "at once",
        description: "Records below this are not written.",
      },
      ParamMaxLength: {
        type: "integer",
        default: 1000,
        unit: "characters",
        effect: "at once",
        min: 10,
        max: 1_000_000,
        description: "Longer values of parameters are cut in the log.",
      },
      JobLogLifeTime: {
        type: "integer",
        default: 168,
        unit: "h",
        effect: "at once",
        min: 0,
        max: 87_600,
        description: "Logs of single steps are deleted after this. 0: there are none.",
      },
      JobLogDirectory: {
        type: "path",
        default: null,
        defaultText: "`JobLogs` beside the log",
        effect: "at once",
        description: "Where the logs of single steps are. Made when it is needed.",
      },
    },
  },
  HTTPStatus: {
    many: false,
    required: false,
    description: "The status page.",
    parameters: {
      Enabled: {
        type: "boolean",
        default: true,
        effect: "restart",
        description: "Whether there is one.",
      },
      Address: {
        type: "text",
        default: "127.0.0.1",
        effect: "restart",
        min: 1,
        max: 255,
        description: "Where it listens. Beyond this machine (such as `0.0.0.0`) it asks for a password.",
      },
      Port: {
        type: "integer",
        default: 1880,
        effect: "restart",
        min: 0,
        max: 65_535,
        description: "0: any free one.",
      },
    },
  },
  HTTPAuthentication: {
    many: false,
    required: false,
    description: "Who may see the status page. The password itself never stands in this file.",
    parameters: {
      User: {
        type: "text",
        default: "lockstep",
        effect: "at once",
        min: 1,
        max: 100,
        description: "Name to log on with.",
      },
      PasswordFile: {
        type: "path",
        default: null,
        defaultText: "none",
        effect: "at once",
        description: "File with the password in its first line. Read anew at each log-on.",
      },
      PasswordEnvironment: {
        type: "text",
        default: null,
        defaultText: "none",
        effect: "at once",
        min: 1,
        max: 200,
        description: "Environment variable with the password, instead of a file.",
      },
    },
  },
} as const satisfies Readonly<Record<string, TableDefinition>>;

export type TableName = keyof typeof TABLES;
export const TABLE_NAMES = Object.keys(TABLES) as TableName[];

interface ValueOfType {
  text: string;
  url: string;
  path: string;
  paths: readonly string[] | null;
  integer: number;
  number: number;
  boolean: boolean;
  choice: string;
  variables: Readonly<Record<string, string>> | null;
}

type ValueOf<P extends Parameter> = P extends { readonly required: true }
  ? ValueOfType[P["type"]]
  : ValueOfType[P["type"]] | (P extends { readonly default: null } ? null : never);

/** The values of one table, with its defaults filled in. */
export type TableValues<Name extends TableName> = {
  readonly [Key in keyof (typeof TABLES)[Name]["parameters"]]: (typeof TABLES)[Name]["parameters"][Key] extends infer P extends
    Parameter
    ? ValueOf<P>
    : never;
};

/** The whole file. */
export type ConfigValues = {
  readonly [Name in TableName]: (typeof TABLES)[Name]["many"] extends true
    ? readonly TableValues<Name>[]
    : TableValues<Name>;
};

/** The parameters of a table by name, for those who go through them all. */
export function parametersOf(name: TableName): [string, Parameter][] {
  return Object.entries(TABLES[name].parameters);
}

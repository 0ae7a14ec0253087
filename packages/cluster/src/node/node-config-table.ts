/**
 * Every key of a node's configuration file, once. The reader checks a file against this table, and
 * docs/reference/node-config.md holds the same rows (a test compares them).
 */
export interface ConfigKey {
  readonly type: "name" | "address" | "path" | "text" | "addresses" | "whole" | "choice";
  /** Null: may stay away; undefined: must be there. */
  readonly default?: string | number | null;
  readonly defaultText?: string;
  readonly choices?: readonly string[];
  readonly min?: number;
  readonly max?: number;
  readonly unit?: string;
  readonly description: string;
}

export type ConfigTable = Readonly<Record<string, ConfigKey>>;

/** The keys at the root of the file, and those of its tables. */
export const NODE_CONFIG_ROOT = {
  name: {
    type: "name",
    default: null,
    defaultText: "the machine's host name",
    description: "Name of this node. Each node of a cluster has another one.",
  },
  address: {
    type: "address",
    description: "Where this daemon hears those of the other nodes. The others must reach it there.",
  },
  data: {
    type: "path",
    default: "/var/lib/lockstep/node",
    description: "Private directory of the daemon. Survives it; each node has its own.",
  },
  pushedConfig: {
    type: "choice",
    default: "accept",
    choices: ["accept", "report"],
    description:
      "Whether a configuration file that an administrator pushes is laid down here, or only reported.",
  },
} as const satisfies ConfigTable;

export const NODE_CONFIG_TABLES = {
  coordination: {
    store: {
      type: "choice",
      default: "etcd",
      choices: ["etcd", "postgres"],
      description: "The store in which the nodes agree.",
    },
    prefix: {
      type: "text",
      default: "lockstep/",
      max: 200,
      description: "What all keys of this cluster begin with, and those of no other.",
    },
    callMs: {
      type: "whole",
      default: 2_000,
      min: 50,
      max: 60_000,
      unit: "ms",
      description: "Time limit of one call to the store. The lease has a limit of its own.",
    },
    endpoints: {
      type: "addresses",
      default: null,
      defaultText: "needed for `etcd`",
      description: "Client addresses of etcd's members, the nearest first.",
    },
    caFile: {
      type: "path",
      default: null,
      defaultText: "the machine's certificates",
      description: "`etcd`: who signed the members' certificates, PEM.",
    },
    certFile: {
      type: "path",
      default: null,
      defaultText: "none",
      description: "`etcd`: certificate of this node, where the members ask for one, PEM.",
    },
    keyFile: { type: "path", default: null, defaultText: "none", description: "`etcd`: the key to it, PEM." },
    user: { type: "text", default: null, defaultText: "none", max: 200, description: "`etcd`: who logs in." },
    passwordFile: {
      type: "path",
      default: null,
      defaultText: "none",
      description: "`etcd`: file with the password.",
    },
    url: {
      type: "text",
      default: null,
      defaultText: "this or `urlFile` is needed for `postgres`",
      max: 2_000,
      description: "`postgres`: address of the database, without a password.",
    },
    urlFile: {
      type: "path",
      default: null,
      defaultText: "none",
      description: "`postgres`: file with the address, where it holds a password.",
    },
    watchMs: {
      type: "whole",
      default: 200,
      min: 10,
      max: 10_000,
      unit: "ms",
      description: "`postgres`: how often to look for changes.",
    },
  },
  key: {
    file: {
      type: "path",
      default: "/etc/lockstep/cluster.key",
      description: "The cluster's key, the same on every node, made by `lockstep cluster init`.",
    },
  },
  guard: {
    watchdog: {
      type: "path",
      default: null,
      defaultText: "none",
      description: "Device that resets the machine when the guard does not feed it, such as `/dev/watchdog`.",
    },
    priority: {
      type: "whole",
      default: null,
      defaultText: "the ordinary class",
      min: 1,
      max: 99,
      description: "Real-time priority of the guard.",
    },
  },
} as const satisfies Readonly<Record<string, ConfigTable>>;

import type {
  ClusterDefinition,
  ClusterMember,
  ClusterOrder,
  FailoverRecord,
  HistoryEntry,
  NodeReport,
  PushedConfig,
  ReadinessQuestion,
  ResourceDefinition,
  ResourceSetting,
  ServerReport,
  SettingsReport,
  VirtualServerDefinition,
} from "./cluster-types.ts";
import { RESOURCE_TYPES } from "./cluster-types.ts";
import {
  closed,
  documentKind,
  flag,
  listOf,
  number,
  oneOf,
  orNull,
  type Reader,
  recordOf,
  textLike,
  textUpTo,
  whole,
} from "./document-shape.ts";
import { DEFAULT_LEASE_TIMES, type LeaseTimes } from "./lease-proof.ts";
import type { Vote } from "./lease-votes.ts";
import { DEFAULT_FAILBACK, type FailbackPolicy } from "./placement.ts";
import { DEFAULT_QUARANTINE, type QuarantinePolicy } from "./placement-quarantine.ts";
import {
  DEFAULT_FAILOVER_LIMIT,
  DEFAULT_RESOURCE_POLICY,
  type FailoverLimit,
  type ResourcePhase,
  type ResourcePolicy,
} from "./resource-policy.ts";

/**
 * The text of each document of a cluster. Whether what it says makes sense as a whole is a second question
 * (cluster-faults.ts): a definition that became wrong, because a node left, must still be readable.
 */

/** A virtual server's name is a host name and the name of a queue: one label of RFC 1123. */
const SERVER_NAME = /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/;
const NODE_NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;
const RESOURCE_NAME = /^[^\s[\]\p{C}](?:[^[\]\p{C}]{0,98}[^\s[\]\p{C}])?$/u;
const CLUSTER_NAME = NODE_NAME;

export const isServerName = (text: string) => SERVER_NAME.test(text);
export const isNodeName = (text: string) => NODE_NAME.test(text);

const NODES_MAX = 64;
const SERVERS_MAX = 500;
const RESOURCES_MAX = 100;
const DAY_MS = 24 * 3_600_000;
const YEAR_MS = 366 * DAY_MS;

const serverName = textLike(SERVER_NAME, "a name of letters, digits and hyphens, at most 63");
const nodeName = textLike(NODE_NAME, "the name of a node");
const resourceName = textLike(RESOURCE_NAME, "a name of 1 to 100 characters without square brackets");
const address = textLike(
  /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$/,
  "an address such as 10.0.0.1:7420",
);
const absolutePath = textLike(/^\/[^\0]{0,4095}$/, "an absolute path");
const sha256 = textLike(/^[0-9a-f]{64}$/, "a SHA-256 in lower case hexadecimal");
const duration = number(0, YEAR_MS);
const wallTime = whole();
const nodeNames = listOf(nodeName, NODES_MAX);

const leaseTimes: Reader<LeaseTimes> = closed<LeaseTimes>(
  {
    trustMs: duration,
    waitMs: duration,
    renewMs: duration,
    callMs: duration,
    guardDelayMs: duration,
    stopMs: duration,
    clockError: number(0, 1),
  },
  DEFAULT_LEASE_TIMES,
);

const vote = closed<Vote>({
  name: textLike(/^[^\p{C}]{1,200}$/u, "a name of 1 to 200 characters"),
  onNode: orNull(nodeName),
});

const quarantine = closed<QuarantinePolicy>(
  { exits: whole(1, 100), periodMs: duration, outMs: duration },
  DEFAULT_QUARANTINE,
);

export const CLUSTER_DEFINITION = documentKind<ClusterDefinition>(
  "lockstep-cluster/1",
  closed<ClusterDefinition>(
    {
      name: textLike(CLUSTER_NAME, "a name of letters, digits, dots, hyphens and underscores, at most 63"),
      lease: leaseTimes,
      votes: listOf(vote, 100),
      quarantine,
      configPolicy: oneOf(["block", "warn"]),
      keyDigest: orNull(sha256),
    },
    { lease: DEFAULT_LEASE_TIMES, quarantine: DEFAULT_QUARANTINE, configPolicy: "block", keyDigest: null },
  ),
);

export const CLUSTER_MEMBER = documentKind<ClusterMember>(
  "lockstep-member/1",
  closed<ClusterMember>({
    node: nodeName,
    address,
    isPaused: flag,
    exits: listOf(wallTime, 100),
    quarantinedUntil: orNull(wallTime),
  }),
);

const PHASES: readonly ResourcePhase[] = ["offline", "online-pending", "online", "offline-pending", "failed"];

const settingsReport = closed<SettingsReport>({
  state: oneOf(["idle", "following", "failing", "fenced"]),
  number: orNull(whole()),
  files: whole(),
  sizeBytes: whole(),
  storedAt: orNull(wallTime),
  problems: listOf(textUpTo(4_000), 100),
});

const serverReport = closed<ServerReport>(
  {
    role: oneOf(["cleaning", "observing", "owner", "fenced", "disabled"]),
    token: orNull(whole()),
    resources: recordOf(
      closed<ServerReport["resources"][string]>({ phase: oneOf(PHASES), problem: orNull(textUpTo(4_000)) }),
      RESOURCES_MAX,
    ),
    settings: orNull(settingsReport),
    lease: orNull(leaseTimes),
  },
  { settings: null, lease: null },
);

export const NODE_REPORT = documentKind<NodeReport>(
  "lockstep-node/1",
  closed<NodeReport>({
    node: nodeName,
    instance: textLike(/^[\x21-\x7e]{1,100}$/, "the name of one life of a daemon"),
    beat: whole(),
    version: textUpTo(100),
    configHashes: recordOf(orNull(sha256), SERVERS_MAX),
    revisions: recordOf(orNull(whole()), SERVERS_MAX),
    measured: closed<NodeReport["measured"]>({ stopMs: duration, guardDelayMs: duration, callMs: duration }),
    servers: recordOf(serverReport, SERVERS_MAX),
    at: wallTime,
  }),
);

const dependency = listOf(listOf(resourceName, RESOURCES_MAX), RESOURCES_MAX);

const resourcePolicy = closed<ResourcePolicy>(
  {
    dependency,
    possibleOwners: orNull(nodeNames),
    looksAliveMs: duration,
    isAliveMs: duration,
    pendingMs: duration,
    restartAction: oneOf(["none", "restart", "restart-then-failover"]),
    restartThreshold: whole(0, 1_000),
    restartPeriodMs: duration,
    restartDelayMs: duration,
    retryMs: orNull(duration),
  },
  DEFAULT_RESOURCE_POLICY,
);

const setting: Reader<ResourceSetting> = (value, at, note) => {
  if (typeof value === "string" || typeof value === "boolean") return value;
  if (typeof value === "number" && Number.isFinite(value)) return value;
  if (Array.isArray(value) && value.every((each): each is string => typeof each === "string")) return value;
  note(at, "must be a text, a number, true or false, or a list of texts");
  return undefined;
};

const resource = closed<ResourceDefinition>(
  {
    name: resourceName,
    type: oneOf(RESOURCE_TYPES),
    settings: recordOf(setting, 200),
    policy: resourcePolicy,
  },
  { settings: {}, policy: DEFAULT_RESOURCE_POLICY },
);

const hour = whole(0, 23);
const failback = closed<FailbackPolicy>(
  {
    allowed: flag,
    window: orNull(closed<NonNullable<FailbackPolicy["window"]>>({ fromHour: hour, toHour: hour })),
  },
  DEFAULT_FAILBACK,
);

const failover = closed<FailoverLimit>(
  { threshold: orNull(whole(0, 10_000)), periodMs: duration },
  DEFAULT_FAILOVER_LIMIT,
);

/** What a virtual server has where nothing else is said. */
export const DEFAULT_VIRTUAL_SERVER: Omit<VirtualServerDefinition, "name"> = {
  isEnabled: true,
  wanted: "online",
  inMaintenance: false,
  resources: [],
  preferredOwners: [],
  antiAffinity: [],
  weight: 1,
  failback: DEFAULT_FAILBACK,
  failover: DEFAULT_FAILOVER_LIMIT,
  lease: null,
  lockDelayMs: 0,
  failsafe: false,
  useNetworkName: true,
  checkpoints: [],
  config: null,
};

export const VIRTUAL_SERVER = documentKind<VirtualServerDefinition>(
  "lockstep-server/1",
  closed<VirtualServerDefinition>(
    {
      name: serverName,
      isEnabled: flag,
      wanted: oneOf(["online", "offline"]),
      inMaintenance: flag,
      resources: listOf(resource, RESOURCES_MAX),
      preferredOwners: nodeNames,
      antiAffinity: listOf(textLike(/^[^\p{C}]{1,100}$/u, "a name of 1 to 100 characters"), 100),
      weight: number(0, 1_000_000),
      failback,
      failover,
      lease: orNull(leaseTimes),
      lockDelayMs: duration,
      failsafe: flag,
      useNetworkName: flag,
      checkpoints: listOf(absolutePath, 1_000),
      config: orNull(
        closed<NonNullable<VirtualServerDefinition["config"]>>({ path: absolutePath, hash: orNull(sha256) }),
      ),
    },
    DEFAULT_VIRTUAL_SERVER,
  ),
);

export const CLUSTER_ORDER = documentKind<ClusterOrder>(
  "lockstep-order/1",
  closed<ClusterOrder>({
    number: whole(1),
    kind: oneOf(["move", "failover", "online"]),
    to: orNull(nodeName),
    by: textUpTo(200),
    at: wallTime,
  }),
);

export const READINESS_QUESTION = documentKind<ReadinessQuestion>(
  "lockstep-readiness/1",
  closed<ReadinessQuestion>({
    number: whole(1),
    from: nodeName,
    to: nodeName,
    answer: orNull(closed<NonNullable<ReadinessQuestion["answer"]>>({ problem: orNull(textUpTo(4_000)) })),
  }),
);

export const HISTORY_ENTRY = documentKind<HistoryEntry>(
  "lockstep-history/1",
  closed<HistoryEntry>({
    node: nodeName,
    number: whole(1),
    at: wallTime,
    server: orNull(serverName),
    token: orNull(whole()),
    what: textUpTo(100),
    detail: textUpTo(4_000),
  }),
);

export const FAILOVER_RECORD = documentKind<FailoverRecord>(
  "lockstep-failover/1",
  closed<FailoverRecord>(
    { at: listOf(wallTime, 10_000), lastOrder: whole(), claimedBy: orNull(textUpTo(200)) },
    { claimedBy: null },
  ),
);

export const PUSHED_CONFIG = documentKind<PushedConfig>(
  "lockstep-config/1",
  closed<PushedConfig>({ path: absolutePath, hash: sha256, text: textUpTo(512 * 1024) }),
);

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import {
  APPLY_LAYOUT,
  NODE_EXAMINATION,
  type NodeExamination,
  type NodeReport,
  type VirtualServerDefinition,
} from "@lockstep/core";
import { printable, systemClock } from "@lockstep/platform";
import { readToml } from "@lockstep/protocol/toml-lines";
import { type Fault, LockstepError } from "@lockstep/protocol/wire";
import type { ClusterSession } from "../commands/cluster-session.ts";
import { counted } from "../screen/format.ts";
import {
  clusterFaults,
  type RawDefinition,
  readDefinition,
  refuseDefinition,
  toKeyPath,
} from "./definition.ts";
import {
  adjustResources,
  membersOf,
  type ResourceOptions,
  resourcesOf,
  type ServerOptions,
  withTimes,
} from "./definition-options.ts";
import { Follower, failuresOf, isOnline } from "./follow.ts";
import { takeSnapshot } from "./look.ts";
import { type FollowArguments, timeoutOf } from "./move.ts";
import { checkQueue } from "./queue-check.ts";
import type { ClusterSnapshot } from "./snapshot.ts";
import { findUnequal } from "./unequal.ts";

export interface AddOptions extends ResourceOptions, ServerOptions, FollowArguments {
  readonly file?: string;
  readonly offline?: boolean;
  readonly force?: boolean;
  readonly dryRun?: boolean;
}

/**
 * `lockstep cluster virtual-server add`: registers a service in one go. The definition is written first without being
 * enabled, upon which every node's daemon stops the service and sets it to manual (S6, S7); then all nodes are compared
 * (S8, S9); only if nothing is wrong the cluster is enabled for it and it comes online (S12). Whatever goes wrong before,
 * also Ctrl-C, the definition is taken away again.
 */
export async function addServer(session: ClusterSession, name: string, options: AddOptions): Promise<void> {
  const { api, documents, output } = session;
  const built = await buildDefinition(name, withInstallation(options));
  const snapshot = await takeSnapshot(session);
  const definition = withTimes(built, snapshot.cluster.lease, options);
  if (snapshot.servers.some((server) => server.name === name)) throw exists(name);
  checkDefinition(session, snapshot, definition);
  const queueFaults = await checkQueue(
    definition,
    snapshot.members.map(({ node }) => node),
  );
  if (queueFaults.length > 0)
    throw new LockstepError("CONFIG_QUEUE_REFUSED", `the configuration of ${name} is not one for it`, {
      faults: queueFaults,
      hint: "A job service on a virtual server serves the queue of that name (S9).",
    });
  if (options.dryRun === true) {
    output.document({ virtualServer: definition, dryRun: true });
    output.note("nothing was written; the definition is sound");
    return;
  }
  const quiet = { ...definition, isEnabled: false };
  // What was found of another service of that name, which is gone, says nothing of this one.
  const found = await examinations(session);
  await documents.change(api.at(api.SERVERS, name), (present) => {
    if (present !== null) throw exists(name);
    return quiet;
  });
  output.note(`${printable(name)} is registered; every node stops its service and sets it to manual`);
  try {
    await compareNodes(session, snapshot, quiet, found, options);
  } catch (error) {
    await documents.change(api.at(api.SERVERS, name), () => null);
    output.note("it was taken away again");
    throw error;
  }
  const follower = await Follower.begin(session, name);
  const wanted = options.offline === true ? ("offline" as const) : ("online" as const);
  await documents.change(api.at(api.SERVERS, name), (present) =>
    present === null ? null : { ...present, isEnabled: true, wanted },
  );
  if (wanted === "offline" || !options.wait) {
    output.document({ virtualServer: { ...definition, wanted }, owner: null });
    output.line(
      `${printable(name)} is enabled${wanted === "offline" ? ", to be offline" : " and comes online"}`,
    );
    return;
  }
  const moment = await follower.until({
    server: name,
    timeoutMs: timeoutOf(options),
    goal: `${name} is online`,
    isDone: (seen) => {
      const failures = failuresOf(seen);
      if (failures.length > 0 && seen.news.some(({ what }) => what === "stays"))
        throw new LockstepError("RESOURCE_FAILED", `${name} does not come online: ${failures.join("; ")}`, {
          hint: "It stays registered. lockstep cluster history shows what was tried on which node.",
        });
      return isOnline(seen);
    },
  });
  output.document({
    ...{ virtualServer: moment.definition, owner: moment.record?.node ?? null },
    token: moment.record?.token ?? null,
  });
  output.line(`${printable(name)} is online on ${printable(moment.record?.node ?? "-")}`);
}

/**
 * Refuses a definition that the cluster cannot carry out. Throws VIRTUAL_SERVER_INVALID with every fault of names,
 * dependencies, owners and settings at once; else LEASE_TIMES_UNSAFE.
 */
export function checkDefinition(
  { api }: ClusterSession,
  { cluster, members, servers, reports }: ClusterSnapshot,
  definition: VirtualServerDefinition,
): void {
  const nodes = members.map(({ node }) => node);
  const others = servers.map(({ name }) => name);
  const settings = definition.resources.flatMap((resource) =>
    api.checkResourceSettings(resource).map((problem) => ({ where: `[${resource.name}]`, problem })),
  );
  refuseDefinition(definition.name, [...clusterFaults(definition, nodes, others), ...settings]);
  api.checkServer(definition, { cluster, nodes, servers: others, reports: [...reports.values()] });
}

function exists(name: string): LockstepError {
  return new LockstepError("VIRTUAL_SERVER_EXISTS", `there is a virtual server ${name} already`, {
    hint: "lockstep cluster virtual-server set changes it; show shows it.",
  });
}

/** Of the file, of the options, or of both: what the options say counts. Throws VIRTUAL_SERVER_INVALID, USAGE. */
async function buildDefinition(name: string, options: AddOptions): Promise<VirtualServerDefinition> {
  const file = options.file === undefined ? null : await readDefinitionFile(options.file);
  const fromFile = file?.raw.resources;
  const resources = [...(Array.isArray(fromFile) ? fromFile : []), ...resourcesOf(options)];
  const { definition, faults } = readDefinition(name, {
    ...configOfService(options),
    ...file?.raw,
    ...membersOf(options),
    resources: adjustResources(resources, options),
  });
  const place = (at: string) => (file === null ? at : `${file.name}:${file.lineOf(at)} ${at}`);
  refuseDefinition(
    name,
    faults.map(({ at, problem }) => ({ where: place(at), problem })),
  );
  if (definition === null) throw new LockstepError("INTERNAL", "a definition without faults and value");
  return definition;
}

/** The configuration of a job service is the one that must be equal on all nodes (S10, S11). */
function configOfService({ service }: AddOptions): RawDefinition {
  return service?.startsWith("/") === true && service.endsWith(".toml")
    ? { config: { path: service, hash: null } }
    : {};
}

/** The installation in which the service's configuration lies, found as the service itself finds it. */
function withInstallation(options: AddOptions): AddOptions {
  const config = options.service;
  if (options.installation !== undefined || config === undefined || !config.endsWith(".toml")) return options;
  for (let directory = dirname(config); ; directory = dirname(directory)) {
    if (existsSync(join(directory, APPLY_LAYOUT.state))) return { ...options, installation: directory };
    if (dirname(directory) === directory) return options;
  }
}

interface DefinitionFile {
  readonly name: string;
  readonly raw: RawDefinition;
  readonly lineOf: (at: string) => number;
}

async function readDefinitionFile(path: string): Promise<DefinitionFile> {
  let text: string;
  try {
    text = await readFile(resolve(path), "utf8");
  } catch (cause) {
    throw new LockstepError("FILE_ACCESS_FAILED", `${path} cannot be read`, {
      found: cause instanceof Error ? cause.message : String(cause),
      cause,
    });
  }
  const read = readToml(text);
  if (read.kind === "fault")
    throw new LockstepError("VIRTUAL_SERVER_INVALID", `${path} is not TOML`, {
      faults: [{ where: `${basename(path)}:${read.line}:${read.column}`, problem: read.problem }],
    });
  const raw: unknown = read.value;
  return {
    name: basename(path),
    raw: typeof raw === "object" && raw !== null ? { ...raw } : {},
    lineOf: (at) => read.lines.lineOf(toKeyPath(at)),
  };
}

/** A node that is busy looks at itself for a while, and begins anew when something was defined meanwhile. */
const REPORT_MS = 120_000;
const LOOK_MS = 250;

/**
 * Waits until every node has looked at its own part, and compares (S7, S8). Throws CLUSTER_CHECK_FAILED with everything
 * that is wrong; `--force` says it and goes on.
 */
async function compareNodes(
  session: ClusterSession,
  snapshot: ClusterSnapshot,
  definition: VirtualServerDefinition,
  before: ReadonlyMap<string, NodeExamination>,
  options: AddOptions,
): Promise<void> {
  const { documents, output, signal } = session;
  const { name } = definition;
  const up = [...snapshot.up].sort();
  const faults: Fault[] = snapshot.members
    .filter(({ node }) => !snapshot.up.has(node))
    .map(({ node }) => ({
      where: node,
      problem: "its daemon does not answer, so nobody knows what is there",
    }));
  let reports: ReadonlyMap<string, NodeReport> = new Map();
  let examined: ReadonlyMap<string, NodeExamination> = new Map();
  for (const until = systemClock.monotonic() + Math.min(REPORT_MS, timeoutOf(options)); ; ) {
    reports = (await documents.reports()).found;
    examined = await examinations(session);
    const lacking = up.filter(
      (node) =>
        reports.get(node)?.servers[name]?.role !== "disabled" ||
        examined.get(node)?.at === before.get(node)?.at ||
        findingsAbout(examined.get(node), name).length === 0,
    );
    if (lacking.length === 0) break;
    if (systemClock.monotonic() > until) {
      for (const node of lacking)
        faults.push({
          where: node,
          problem: "has not reported that the service is stopped and installed there (S7, S8)",
        });
      break;
    }
    await systemClock.sleep(LOOK_MS, signal);
    signal.throwIfAborted();
  }
  faults.push(...differences(definition, up, reports), ...serviceFaults(examined, name, up));
  if (faults.length === 0) {
    output.note(`compared ${counted(up.length, "node")}: the service is stopped and installed alike on all`);
    return;
  }
  if (options.force === true) {
    for (const { where, problem } of faults) output.warn(`${printable(where)}: ${printable(problem)}`);
    return;
  }
  throw new LockstepError("CLUSTER_CHECK_FAILED", `${name} cannot be enabled: the nodes are not alike`, {
    faults,
    hint: "Mend what is listed and add it again; --force enables it all the same.",
  });
}

const examinations = async ({ documents }: ClusterSession) =>
  (await documents.list({ prefix: "examined/", kind: NODE_EXAMINATION })).found;

/** Configuration files and software revisions that differ between nodes. */
function differences(
  { name, config }: VirtualServerDefinition,
  up: readonly string[],
  reports: ReadonlyMap<string, NodeReport>,
): Fault[] {
  const by = <T>(find: (report: NodeReport) => T) => {
    const groups = new Map<T, string[]>();
    for (const node of up) {
      const report = reports.get(node);
      if (report !== undefined) groups.set(find(report), [...(groups.get(find(report)) ?? []), node]);
    }
    return groups;
  };
  const faults: Fault[] = [];
  const hashes =
    config === null
      ? new Map<string | null, string[]>()
      : by(({ configHashes }) => configHashes[name] ?? null);
  for (const node of hashes.get(null) ?? [])
    faults.push({ where: node, problem: `${config?.path ?? "its configuration"} is not there (S10)` });
  hashes.delete(null);
  if (hashes.size > 1)
    for (const [hash, nodes] of hashes)
      faults.push({ where: nodes.join(", "), problem: `its configuration is ${hash?.slice(0, 12)} (S11)` });
  const revisions = by(({ revisions }) => revisions[name] ?? null);
  if (revisions.size > 1)
    for (const [revision, nodes] of revisions)
      faults.push({
        where: nodes.join(", "),
        problem: `its software revision is ${revision ?? "not there"} (S8)`,
      });
  return faults;
}

const findingsAbout = (examined: NodeExamination | undefined, name: string) =>
  (examined?.findings ?? []).filter(({ id }) => id === name || id.startsWith(`${name} [`));

/** What each node's own examination says of this virtual server, and what is not the same on all (S8). */
function serviceFaults(
  examined: ReadonlyMap<string, NodeExamination>,
  name: string,
  up: readonly string[],
): Fault[] {
  const found = up.flatMap((node) =>
    findingsAbout(examined.get(node), name).map((finding) => ({ ...finding, node })),
  );
  return [
    ...found
      .filter(({ state }) => state === "failed")
      .map(({ node, detail }) => ({ where: node, problem: detail })),
    ...findUnequal(found),
  ];
}

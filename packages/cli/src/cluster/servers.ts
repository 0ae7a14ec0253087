import type { VirtualServerDefinition } from "@lockstep/core";
import { printable } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { ClusterSession } from "../commands/cluster-session.ts";
import { usage } from "../options.ts";
import { printTable } from "../screen/table.ts";
import { readDefinition, refuseDefinition } from "./definition.ts";
import {
  adjustResources,
  membersOf,
  rawResources,
  type ServerOptions,
  withTimes,
} from "./definition-options.ts";
import { describe, Follower, failuresOf, isOffline, isOnline, type ServerMoment } from "./follow.ts";
import { demandServer, takeSnapshot } from "./look.ts";
import { demandYes, type FollowArguments, placeOrder, timeoutOf } from "./move.ts";
import { checkDefinition } from "./server-add.ts";
import { judgeCluster } from "./status.ts";
import { tellServer } from "./status-text.ts";

/** `lockstep cluster virtual-server list` */
export async function listServers(session: ClusterSession): Promise<void> {
  const { output } = session;
  const { virtualServers } = judgeCluster(await takeSnapshot(session));
  output.document({ virtualServers });
  printTable(
    output,
    [
      { title: "name" },
      { title: "state" },
      { title: "owner" },
      { title: "token", align: "right" },
      { title: "resources", shrinks: true },
      { title: "remark", shrinks: true },
    ],
    virtualServers.map(({ name, state, owner, token, resources, problems }) => [
      ...[name, state, owner ?? "-", token === null ? "-" : String(token)],
      ...[resources.map((resource) => resource.name).join(", "), problems.join("; ")],
    ]),
  );
}

/** `lockstep cluster virtual-server show`: how it does, and its definition, which `add --file` takes again. */
export async function showServer(session: ClusterSession, name: string): Promise<void> {
  const { output } = session;
  const snapshot = await takeSnapshot(session);
  const definition = demandServer(snapshot.servers, name);
  const status = judgeCluster(snapshot).virtualServers.find((each) => each.name === name);
  output.document({ definition, status });
  if (status !== undefined) tellServer(output, status);
  for (const problem of status?.problems ?? [])
    output.line(`  ${output.paintData("red", "!")} ${printable(problem)}`);
  output.line();
  for (const [key, value] of Object.entries(definition))
    if (key !== "resources" && key !== "name") output.line(`  ${key} = ${printable(JSON.stringify(value))}`);
  for (const { name: resource, type, settings, policy } of definition.resources) {
    output.line(`  [${printable(resource)}] ${type}`);
    for (const [key, value] of Object.entries(settings))
      output.line(`    ${printable(key)} = ${printable(JSON.stringify(value))}`);
    const needs = policy.dependency.map((names) => names.map((each) => `[${each}]`).join(" or "));
    if (needs.length > 0) output.line(`    needs ${printable(needs.join(" and "))}`);
  }
}

/** `lockstep cluster virtual-server set`. Throws VIRTUAL_SERVER_INVALID, LEASE_TIMES_UNSAFE. */
export async function setServer(
  session: ClusterSession,
  name: string,
  options: ServerOptions,
): Promise<void> {
  const { api, documents, output } = session;
  const snapshot = await takeSnapshot(session);
  demandServer(snapshot.servers, name);
  if (
    Object.entries(options).every(([key, value]) => ["config", "json"].includes(key) || value === undefined)
  )
    throw usage("nothing to set was given", "one of the options", undefined, "--help lists them.");
  // Made anew of what is there at the moment of writing: somebody else may have changed another part of it.
  const changed = await documents.change(api.at(api.SERVERS, name), (present) => {
    if (present === null) throw gone(name);
    const { definition, faults } = readDefinition(
      name,
      { ...membersOf(options), resources: adjustResources(rawResources(present), options) },
      present,
    );
    refuseDefinition(
      name,
      faults.map(({ at, problem }) => ({ where: at, problem })),
    );
    if (definition === null) throw new LockstepError("INTERNAL", "a definition without faults and value");
    const timed = withTimes(definition, snapshot.cluster.lease, options);
    checkDefinition(session, snapshot, timed);
    return timed;
  });
  output.document({ virtualServer: changed });
  output.line(`${printable(name)} is changed`);
}

const gone = (name: string) =>
  new LockstepError("VIRTUAL_SERVER_UNKNOWN", `${name} was removed in this moment`, {
    hint: "lockstep cluster virtual-server list shows those that there are.",
  });

/** Changes one thing of a definition; returns what stands there then. */
async function change(
  { api, documents }: ClusterSession,
  name: string,
  with_: (present: VirtualServerDefinition) => VirtualServerDefinition,
): Promise<void> {
  await documents.change(api.at(api.SERVERS, name), (present) => {
    if (present === null) throw gone(name);
    const next = with_(present);
    return JSON.stringify(next) === JSON.stringify(present) ? present : next;
  });
}

/**
 * `lockstep cluster virtual-server online|offline`. What is wanted online already and failed is tried again at once: that
 * is an order, because nothing of what is wanted changes.
 */
export async function wantServer(
  session: ClusterSession,
  name: string,
  wanted: "online" | "offline",
  options: FollowArguments,
): Promise<void> {
  const { output } = session;
  const snapshot = await takeSnapshot(session);
  const definition = demandServer(snapshot.servers, name);
  if (wanted === "online" && !definition.isEnabled)
    throw usage(
      `${name} is not enabled`,
      undefined,
      undefined,
      `lockstep cluster virtual-server enable ${name} does both.`,
    );
  const follower = await Follower.begin(session, name);
  demandNotHeld(await follower.now(name), name, wanted);
  await change(session, name, (present) => ({ ...present, wanted }));
  if (wanted === "online" && definition.wanted === "online") await placeOrder(session, name, "online", null);
  await reach(session, follower, name, wanted, options);
  output.document({ virtualServer: name, wanted });
  output.line(`${printable(name)} ${options.wait ? "is" : "is to be"} ${wanted}`);
}

/** `lockstep cluster virtual-server enable|disable` (S6) */
export async function enableServer(
  session: ClusterSession,
  name: string,
  isEnabled: boolean,
  options: FollowArguments,
): Promise<void> {
  const { output } = session;
  const snapshot = await takeSnapshot(session);
  demandServer(snapshot.servers, name);
  const follower = await Follower.begin(session, name);
  demandNotHeld(await follower.now(name), name, isEnabled ? "online" : "offline");
  await change(session, name, (present) => ({
    ...present,
    isEnabled,
    wanted: isEnabled ? "online" : present.wanted,
  }));
  await reach(session, follower, name, isEnabled ? "online" : "offline", options);
  output.document({ virtualServer: name, isEnabled });
  output.line(
    isEnabled
      ? `the cluster is enabled for ${printable(name)}`
      : `the cluster is not enabled for ${printable(name)}: its service is stopped on every node`,
  );
}

/** Looked at before anything is ordered as well: a node may carry it out before the next look. */
function demandNotHeld(moment: ServerMoment, name: string, wanted: "online" | "offline"): void {
  if (
    moment.definition?.inMaintenance !== true ||
    (wanted === "online" ? isOnline(moment) : isOffline(moment))
  )
    return;
  throw new LockstepError("VIRTUAL_SERVER_IN_MAINTENANCE", `${name} is in maintenance: nothing is done`, {
    expected: `${name} is ${wanted}`,
    found: describe(moment),
    hint: `lockstep cluster virtual-server maintenance ${name} off`,
  });
}

async function reach(
  { output }: ClusterSession,
  follower: Follower,
  name: string,
  wanted: "online" | "offline",
  options: FollowArguments,
): Promise<void> {
  if (!options.wait) return;
  await follower.until({
    server: name,
    timeoutMs: timeoutOf(options),
    goal: `${name} is ${wanted}`,
    isDone: (moment) => {
      demandNotHeld(moment, name, wanted);
      const failures = failuresOf(moment);
      if (wanted === "online" && failures.length > 0 && moment.news.some(({ what }) => what === "stays"))
        throw new LockstepError("RESOURCE_FAILED", `${name} does not come online: ${failures.join("; ")}`);
      return wanted === "online" ? isOnline(moment) : isOffline(moment);
    },
  });
  output.note(`${printable(name)} is ${wanted}`);
}

/** `lockstep cluster virtual-server maintenance` */
export async function maintainServer(session: ClusterSession, name: string, isOn: boolean): Promise<void> {
  const { output } = session;
  demandServer([...(await session.documents.servers()).found.values()], name);
  await change(session, name, (present) => ({ ...present, inMaintenance: isOn }));
  output.document({ virtualServer: name, inMaintenance: isOn });
  output.line(
    isOn
      ? `${printable(name)} is in maintenance: no failure counts, nothing is moved`
      : `${printable(name)} is out of maintenance`,
  );
}

/** `lockstep cluster virtual-server remove`: takes it offline in order, then forgets it. */
export async function removeServer(
  session: ClusterSession,
  name: string,
  options: FollowArguments & { readonly yes?: boolean; readonly force?: boolean },
): Promise<void> {
  const { api, documents, output, signal } = session;
  const snapshot = await takeSnapshot(session);
  demandServer(snapshot.servers, name);
  if (options.yes !== true) await demandYes(`take ${name} offline and remove it?`, signal);
  const owner = snapshot.leases.get(name)?.node ?? null;
  if (owner !== null && !snapshot.up.has(owner) && options.force !== true)
    throw new LockstepError("NODE_IN_USE", `${owner} owns ${name} and does not answer`, {
      hint: "Nobody can say whether its service still runs. Look there, then add --force.",
    });
  const follower = await Follower.begin(session, name);
  await change(session, name, (present) => ({
    ...present,
    isEnabled: false,
    inMaintenance: false,
    wanted: "offline",
  }));
  if (owner === null || snapshot.up.has(owner))
    await follower.until({
      server: name,
      timeoutMs: timeoutOf(options),
      goal: `${name} is offline`,
      isDone: isOffline,
    });
  await documents.remove(api.at(api.SERVERS, name).key);
  await documents.remove(api.at(api.ORDERS, name).key);
  await documents.remove(api.at(api.READINESS, name).key);
  await documents.remove(api.at(api.CONFIGS, name).key);
  output.document({ virtualServer: name, removed: true });
  output.line(`${printable(name)} is removed; its files and its history are as they were`);
}

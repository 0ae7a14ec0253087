import {
  type DrainMove,
  faultOfExclusion,
  findFailback,
  place,
  planDrain,
  type ServerView,
} from "@lockstep/core";
import { printable } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { ClusterSession } from "../commands/cluster-session.ts";
import { usage } from "../options.ts";
import { counted } from "../screen/format.ts";
import { Follower, isOffline } from "./follow.ts";
import { demandNode, takeSnapshot } from "./look.ts";
import { type FollowArguments, placeOrder, timeoutOf } from "./move.ts";
import { isCarriedOut, NEXT_STEP } from "./order-end.ts";
import { type ClusterSnapshot, configRule, isQuarantined, nodeViews, serverView } from "./snapshot.ts";

interface DrainOptions extends FollowArguments {
  readonly to?: string;
  readonly force?: boolean;
}

/**
 * `lockstep cluster drain`: pauses a node and moves everything off it in order. Where something has nowhere to go nothing
 * is begun, and NO_CANDIDATE (or the code of the one node that was named) says what and why; with `--force` that is taken
 * offline. The pause survives a reboot. While things move it throws the codes of order-end.ts; the pause stays then. USAGE
 * where it is to be drained to itself.
 */
export async function drainNode(session: ClusterSession, node: string, options: DrainOptions): Promise<void> {
  const { output } = session;
  const snapshot = await takeSnapshot(session);
  const nodes = snapshot.members.map((member) => member.node);
  demandNode(nodes, node);
  if (options.to !== undefined) demandNode(nodes, options.to);
  if (options.to === node)
    throw usage(
      "--to names the node that is to be drained",
      "another node",
      node,
      "Without --to each goes where it belongs.",
    );
  const moves = planMoves(snapshot, node, options.to ?? null);
  const stuck = moves.filter(({ to }) => to === null);
  if (stuck.length > 0 && options.force !== true) throw nowhereToGo(node, stuck, options.to ?? null);
  const done = await carryOut(session, node, moves, options);
  output.document({ node, paused: true, virtualServers: done });
  output.line(
    options.wait
      ? `${printable(node)} is drained and paused`
      : `${printable(node)} is paused; ${counted(done.length, "order was", "orders were")} given`,
  );
  const offline = done.filter(({ to }) => to === null).map(({ server }) => server);
  if (offline.length > 0)
    output.warn(`lockstep cluster virtual-server online brings back: ${printable(offline.join(", "))}`);
}

/**
 * The same for a node that is to be updated: to one that is updated already where that can own it all, else wherever
 * things belong. Throws NO_CANDIDATE.
 */
export async function drainOff(
  session: ClusterSession,
  snapshot: ClusterSnapshot,
  node: string,
  preferred: readonly string[],
  options: FollowArguments,
): Promise<void> {
  const plans = [...preferred, null].map((to) => planMoves(snapshot, node, to));
  const moves = plans.find((plan) => plan.every(({ to }) => to !== null));
  if (moves === undefined) throw nowhereToGo(node, plans.at(-1) ?? [], null);
  await carryOut(session, node, moves, options);
}

type Drained = { server: string; to: string | null; state: "moved" | "offline" | "ordered" };

async function carryOut(
  session: ClusterSession,
  node: string,
  moves: readonly DrainMove[],
  options: FollowArguments,
): Promise<Drained[]> {
  const { output } = session;
  await setPaused(session, node, true);
  output.note(`${printable(node)} is paused: it takes nothing any more`);
  const done: Drained[] = [];
  for (const { server, to } of moves) {
    const follower = await Follower.begin(session, server);
    const number = to === null ? await stop(session, server) : await placeOrder(session, server, "move", to);
    if (!options.wait) {
      done.push({ server, to, state: "ordered" });
      continue;
    }
    await follower.until({
      server,
      timeoutMs: timeoutOf(options),
      goal: to === null ? `${server} is offline` : `${server} is online on ${to}`,
      isDone: (moment) => {
        if (to === null) return isOffline(moment);
        return isCarriedOut(moment, {
          ...{ server, number, kind: "move", to, from: node, elsewhereWillDo: true },
        });
      },
    });
    done.push({ server, to, state: to === null ? "offline" : "moved" });
    output.note(
      to === null ? `${printable(server)} is offline` : `${printable(server)} is online on ${printable(to)}`,
    );
  }
  return done;
}

/** Where one node was named and one thing alone keeps it from owning, that is the code. */
function nowhereToGo(node: string, moves: readonly DrainMove[], to: string | null): LockstepError {
  const against = moves
    .filter((move) => move.to === null)
    .flatMap(({ server, rejected }) =>
      rejected
        .filter((each) => each.node !== node && (to === null || each.node === to))
        .map((each) => ({ ...each, server })),
    );
  const codes = new Set(against.map(({ why }) => faultOfExclusion(why)));
  const [only = "NO_CANDIDATE"] = to !== null && codes.size === 1 ? codes : [];
  const next =
    to === null || only === "NO_CANDIDATE"
      ? "Mend what is listed, or take offline what cannot be moved: --force."
      : NEXT_STEP[only](to);
  return new LockstepError(only, `${node} cannot be drained: something has nowhere to go`, {
    ...(to === null ? {} : { expected: `${to} can own everything`, found: `${to} ${against[0]?.detail}` }),
    faults: against.map(({ server, node: where, detail }) => ({
      where: `${server} to ${where}`,
      problem: detail,
    })),
    hint: `Nothing was begun. ${next}`,
  });
}

function planMoves(snapshot: ClusterSnapshot, node: string, to: string | null): DrainMove[] {
  const views = snapshot.servers.map((each) => serverView(snapshot, each));
  const owned = snapshot.servers.filter(({ name }) => snapshot.leases.get(name)?.node === node);
  // Each with its own rule of configuration; those planned before count as already there.
  const moves: DrainMove[] = [];
  let present: ServerView[] = views;
  for (const definition of owned.sort((a, b) => b.weight - a.weight || (a.name < b.name ? -1 : 1))) {
    const others = present.map((each) =>
      each.name !== definition.name && each.owner === node ? { ...each, owner: null } : each,
    );
    const [move] = planDrain(
      node,
      others,
      nodeViews(snapshot, definition.name),
      configRule(snapshot, definition),
      to,
    );
    if (move === undefined) continue;
    moves.push(move);
    present = present.map((each) => (each.name === move.server ? { ...each, owner: move.to } : each));
  }
  return moves;
}

/** Wanted offline from now on; returns the number of an order that it does not need. */
async function stop({ api, documents }: ClusterSession, server: string): Promise<number> {
  await documents.change(api.at(api.SERVERS, server), (present) =>
    present === null ? null : { ...present, wanted: "offline" as const },
  );
  return 0;
}

export async function setPaused(
  { api, documents }: ClusterSession,
  node: string,
  isPaused: boolean,
): Promise<void> {
  await documents.change(api.at(api.MEMBERS, node), (present) =>
    present === null || present.isPaused === isPaused ? present : { ...present, isPaused },
  );
}

export const FAILBACKS = ["no", "immediate", "policy"] as const;

interface ResumeOptions extends FollowArguments {
  readonly failback: (typeof FAILBACKS)[number];
}

/**
 * `lockstep cluster resume`: a paused node takes things again. `immediate`: what prefers it comes back now; `policy`: what
 * its own failback policy allows at this hour; `no`: nothing by this command.
 */
export async function resumeNode(
  session: ClusterSession,
  node: string,
  options: ResumeOptions,
): Promise<void> {
  const { output } = session;
  const before = await takeSnapshot(session);
  demandNode(
    before.members.map((member) => member.node),
    node,
  );
  await setPaused(session, node, false);
  const snapshot: ClusterSnapshot = {
    ...before,
    members: before.members.map((member) => (member.node === node ? { ...member, isPaused: false } : member)),
  };
  const back = snapshot.servers.filter((definition) => comesBack(snapshot, definition.name, node, options));
  const ordered: string[] = [];
  for (const { name } of back) {
    const follower = await Follower.begin(session, name);
    const from = snapshot.leases.get(name)?.node ?? null;
    const number = await placeOrder(session, name, "move", node);
    ordered.push(name);
    if (!options.wait) continue;
    await follower.until({
      server: name,
      timeoutMs: timeoutOf(options),
      goal: `${name} is online on ${node}`,
      isDone: (moment) => isCarriedOut(moment, { server: name, number, kind: "move", to: node, from }),
    });
    output.note(`${printable(name)} is online on ${printable(node)}`);
  }
  output.document({ node, paused: false, virtualServers: ordered });
  output.line(`${printable(node)} takes virtual servers again`);
  const member = snapshot.members.find((each) => each.node === node);
  if (member !== undefined && isQuarantined(member, snapshot.now))
    output.warn(`it is kept out all the same: lockstep cluster release ${printable(node)} lets it in`);
}

function comesBack(
  snapshot: ClusterSnapshot,
  name: string,
  node: string,
  { failback }: ResumeOptions,
): boolean {
  const definition = snapshot.servers.find((each) => each.name === name);
  if (failback === "no" || definition === undefined || !definition.isEnabled || definition.inMaintenance)
    return false;
  const view = serverView(snapshot, definition);
  const placement = place(
    view,
    nodeViews(snapshot, name),
    snapshot.servers.map((each) => serverView(snapshot, each)),
    configRule(snapshot, definition),
  );
  const policy = failback === "immediate" ? { allowed: true, window: null } : definition.failback;
  return findFailback(view, placement, policy, new Date(snapshot.now).getHours()) === node;
}

/** `lockstep cluster release`: a node that is kept out may take things again. Throws NODE_UNKNOWN. */
export async function releaseNode(session: ClusterSession, node: string): Promise<void> {
  const { api, documents, output } = session;
  const members = await documents.members();
  demandNode([...members.found.keys()], node);
  const wasOut = members.found.get(node)?.quarantinedUntil !== null;
  await documents.change(api.at(api.MEMBERS, node), (present) =>
    present === null ? null : { ...present, exits: [], quarantinedUntil: null },
  );
  output.document({ node, released: wasOut });
  output.line(wasOut ? `${printable(node)} is let in again` : `${printable(node)} was not kept out`);
}

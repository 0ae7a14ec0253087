import { writeFile } from "node:fs/promises";
import {
  type ClusterMember,
  type DrillLoss,
  type DrillOrder,
  drillLastsMs,
  type HistoryEntry,
  judgeDrill,
  measureDrillOutage,
  type VirtualServerDefinition,
} from "@lockstep/core";
import { printable, systemClock } from "@lockstep/platform";
import { type Fault, LockstepError } from "@lockstep/protocol/wire";
import type { ClusterSession } from "../commands/cluster-session.ts";
import { formatDuration } from "../screen/format.ts";
import { drillHtml } from "./drill-html.ts";
import {
  ClientProbe,
  describeTarget,
  findProbeTarget,
  type ProbeTarget,
  readProbeTarget,
} from "./drill-probe.ts";
import { type DrillReport, type DrillRound, drillText, LOSS_WORDS, printDrill } from "./drill-report.ts";
import { type DrillLook, DrillWatch, isOnlineNow, momentOf } from "./drill-watch.ts";
import { demandServer, takeSnapshot } from "./look.ts";
import { demandYes, placeOrder } from "./move.ts";
import { isGivenUp } from "./order-end.ts";
import { type MovePrediction, predictMove } from "./prediction.ts";
import type { ClusterSnapshot } from "./snapshot.ts";
import { judgeCluster } from "./status.ts";

export interface DrillArguments {
  readonly what: DrillLoss;
  readonly rounds: number;
  readonly report: readonly string[];
  readonly probe?: string;
  /** For how long it is taken away, seconds; else as long as a takeover needs. */
  readonly lasts?: number;
  readonly yes?: boolean;
}

/** What all rounds of a drill share. */
interface Drill {
  readonly session: ClusterSession;
  readonly name: string;
  readonly loss: DrillLoss;
  readonly lastsMs: number;
  readonly waitMs: number;
  readonly definition: VirtualServerDefinition;
  readonly target: ProbeTarget | null;
}

/** A daemon follows a hint at once and looks by itself every five seconds. */
const CLAIM_MS = 20_000;
const PROBED_FIRST_MS = 600;
const PROBED_FIRST_LIMIT_MS = 15_000;
/** So many questions in a row are answered before it counts as back. */
const ANSWERS = 10;
const SLACK_MS = 60_000;
const BACK_MS = 120_000;
const NOTED_MS = 5_000;

/**
 * `lockstep cluster drill` (S14, behaviour 58): takes something away from the owner of a virtual server, on the real
 * cluster, looks on as a client does, judges what happened, and leaves everything as it was. Throws DRILL_REFUSED where
 * the cluster is not well or the node cannot do it; DRILL_FAILED after a report with a verdict that is not met.
 */
export async function drillServer(
  session: ClusterSession,
  name: string,
  options: DrillArguments,
): Promise<void> {
  const { output, signal, actor, documents } = session;
  const loss = options.what;
  const snapshot = await takeSnapshot(session);
  const definition = demandServer(snapshot.servers, name);
  const prediction = predictMove(snapshot, definition, await documents.history(name), null);
  await demandFit(session, snapshot, definition, prediction, loss);
  const lease = definition.lease ?? snapshot.cluster.lease;
  const lastsMs = options.lasts === undefined ? drillLastsMs(loss, lease) : options.lasts * 1000;
  const target = options.probe === undefined ? findProbeTarget(definition) : readProbeTarget(options.probe);
  if (options.yes !== true) {
    for (const line of risksOf(snapshot, definition, prediction, loss, lastsMs)) output.warn(printable(line));
    const times = options.rounds === 1 ? "" : ` ${options.rounds} times`;
    await demandYes(`drill ${name}${times}: ${LOSS_WORDS[loss]}?`, signal);
  }
  const answers = target !== null && (await isAnswered(target));
  if (!answers && options.probe !== undefined)
    throw refused(name, [{ where: options.probe, problem: "does not answer before anything is taken away" }]);
  if (!answers && target !== null)
    output.warn(
      `${describeTarget(target)} does not answer from here: nothing is asked; --probe names another`,
    );
  const drill: Drill = {
    ...{ session, name, loss, lastsMs, definition, waitMs: lease.waitMs },
    target: answers ? target : null,
  };
  const begun = systemClock.now();
  const rounds: DrillRound[] = [];
  for (let number = 1; number <= options.rounds && !signal.aborted; number++) {
    output.note(`round ${number} of ${options.rounds}: ${LOSS_WORDS[loss]}`);
    const round = await runRound(drill, number);
    if (round === null) break;
    rounds.push(round);
    // What did not come back is for people; another loss would hide it.
    if (!round.passed) break;
  }
  const passed = rounds.length > 0 && rounds.every((round) => round.passed);
  const report: DrillReport = {
    format: "lockstep-drill-report/1",
    ...{ cluster: snapshot.cluster.name, virtualServer: name, loss, lastsMs, at: begun, by: actor },
    probe: drill.target === null ? null : describeTarget(drill.target),
    predicted: { to: prediction.to, moveOutage: prediction.outage },
    passed,
    isInterrupted: signal.aborted,
    rounds,
  };
  for (const file of options.report) await writeReport(file, report);
  output.document(report);
  printDrill(output, report);
  for (const file of options.report) output.note(`the report is in ${printable(file)}`);
  if (signal.aborted) throw signal.reason;
  if (!passed)
    throw new LockstepError("DRILL_FAILED", `the drill of ${name} found something`, {
      faults: rounds.flatMap(({ number, verdicts }) =>
        verdicts
          .filter(({ ok }) => !ok)
          .map(({ name: where, detail }) => ({ where: `round ${number}: ${where}`, problem: detail })),
      ),
      hint: "lockstep cluster status shows how it stands now, lockstep cluster history what happened.",
    });
}

const refused = (name: string, faults: readonly Fault[]) =>
  new LockstepError("DRILL_REFUSED", `nothing is taken away from ${name}`, {
    faults: [...faults],
    hint: "A drill begins only where everything is well and another node can take over. Nothing was changed.",
  });

/** Throws DRILL_REFUSED with everything that speaks against it. */
async function demandFit(
  { documents, api, config }: ClusterSession,
  snapshot: ClusterSnapshot,
  definition: VirtualServerDefinition,
  prediction: MovePrediction,
  loss: DrillLoss,
): Promise<void> {
  const { name } = definition;
  const status = judgeCluster(snapshot);
  const server = status.virtualServers.find((each) => each.name === name);
  const faults: Fault[] = status.problems.map((problem) => ({ where: status.cluster, problem }));
  if (server?.state !== "online")
    faults.push({ where: name, problem: `is ${server?.state ?? "gone"}, and must be online` });
  if (definition.inMaintenance) faults.push({ where: name, problem: "is in maintenance" });
  if (prediction.to === null)
    faults.push({ where: name, problem: prediction.refusal ?? "no other node can own it" });
  const present = await documents.read(api.at(api.DRILLS, name));
  const isRunning =
    present !== null &&
    (present.state === "ordered" || present.state === "begun") &&
    snapshot.reports.get(present.node)?.instance === present.instance;
  if (isRunning)
    faults.push({ where: name, problem: `another drill runs: ${present.loss}, by ${present.by}` });
  if (prediction.from === config.name && (loss === "network" || loss === "store"))
    faults.push({
      where: config.name,
      problem: `this command runs on the node that is cut off, and would see nothing; run it on ${prediction.to ?? "another node"}`,
    });
  if (faults.length > 0) throw refused(name, faults);
}

function risksOf(
  snapshot: ClusterSnapshot,
  { name }: VirtualServerDefinition,
  { from, to }: MovePrediction,
  loss: DrillLoss,
  lastsMs: number,
): string[] {
  const beside = snapshot.servers
    .map((each) => each.name)
    .filter((each) => each !== name && snapshot.leases.get(each)?.node === from);
  return [
    `this is real: clients of ${name} wait, and work that its service has begun may be done again`,
    ...(loss === "service"
      ? []
      : [`${from} is lost as owner for ${formatDuration(lastsMs)}; ${to} should take over`]),
    ...(loss === "service" || beside.length === 0
      ? []
      : [`${from} owns ${beside.join(", ")} too, which it loses as well and which stay where they go`]),
    ...(loss === "network" ? [`nobody reaches ${from} by the network meanwhile, nor you`] : []),
  ];
}

async function isAnswered(target: ProbeTarget): Promise<boolean> {
  const probe = new ClientProbe(target, () => systemClock.monotonic());
  const end = systemClock.monotonic() + PROBED_FIRST_LIMIT_MS;
  while (!probe.isAnswering(ANSWERS) && systemClock.monotonic() < end) await systemClock.sleep(50);
  const answers = probe.isAnswering(ANSWERS);
  await probe.stop();
  return answers;
}

/** One loss and the way back. Null: it was taken back before anything had been done. */
async function runRound(drill: Drill, number: number): Promise<DrillRound | null> {
  const { session, name, loss, lastsMs, waitMs, target, definition } = drill;
  const { documents, api, output, signal } = session;
  const watch = await DrillWatch.begin(session, name, waitMs);
  const start = await watch.until(SLACK_MS, (look) => isOnlineNow(look, name) && look.up.size > 1);
  const victim = start?.record?.node ?? null;
  if (start === null || start.record === null || victim === null)
    throw refused(name, [{ where: name, problem: "is not online" }]);
  const before = momentOf(start, name);
  const former = {
    members: start.members,
    failover: await documents.read(api.at(api.FAILOVERS, name)),
    instance: start.reports.get(victim)?.instance ?? "",
  };
  // Of each round its own: one that moved may have another successor now.
  const predicted = predictMove(await takeSnapshot(session), definition, [], null).to;
  const now = () => systemClock.monotonic();
  const probe = target === null ? null : new ClientProbe(target, now);
  await systemClock.sleep(target === null ? 0 : PROBED_FIRST_MS, signal);
  const lostAt = now();
  const wallAt = systemClock.now();
  try {
    const order = await giveOrder(drill, victim, former.instance, start.record.token);
    if (!(await untilClaimed(drill, watch, order))) return null;
    if (signal.aborted)
      output.note("interrupted: what was taken away comes back by itself, which is waited for");
    const hasFailed = () =>
      watch.news.some(({ what, token }) => what === "resource-failed" && token === before.token);
    const isOver = (look: DrillLook) => {
      if (!isOnlineNow(look, name) || !(probe === null || probe.isAnswering(ANSWERS))) return false;
      const hasMoved = look.record !== null && look.record.token > (before.token ?? 0);
      if (loss === "service") return hasMoved || hasFailed();
      return hasMoved || (loss === "store" && definition.failsafe && look.order?.state === "ended");
    };
    const limitMs = lastsMs + 3 * waitMs + SLACK_MS;
    const over = await watch.until(limitMs, isOver);
    const recovered = over === null ? null : momentOf(over, name);
    const backAt = now();
    await watch.until(limitMs, (look) => isVictimBack(drill, look, victim, former.instance));
    // Somebody may still be about to write down that the node dropped out.
    if (loss !== "service")
      await watch.until(
        NOTED_MS,
        ({ members }) =>
          (members.get(victim)?.exits.length ?? 0) > (start.members.get(victim)?.exits.length ?? 0),
      );
    await putBack(drill, former);
    const wayBack = await moveBack(drill, watch, victim, recovered?.owner ?? null);
    await putBack(drill, former);
    const isAnswering = () => probe === null || probe.isAnswering(ANSWERS);
    await watch.until(
      BACK_MS,
      (look) => isOnlineNow(look, name) && look.up.size >= start.up.size && isAnswering(),
    );
    const answersAgain = isAnswering();
    await probe?.stop();
    const after = momentOf(await watch.look(), name);
    // Everything in a report counts from the moment of the order.
    const upTo = (from: number, to: number) =>
      (probe?.records ?? [])
        .filter(({ sentAt }) => sentAt >= from && sentAt <= to)
        .map((each) => ({ ...each, sentAt: each.sentAt - lostAt, doneAt: each.doneAt - lostAt }));
    const outage = probe === null ? null : measureDrillOutage(upTo(0, backAt), 0);
    const verdicts = judgeDrill({
      ...{ loss, victim, before, recovered, after, predicted, outage, answersAgain },
      ...{ sights: watch.sights, claims: [...watch.claims], history: watch.news },
      failsafe: definition.failsafe,
    });
    return {
      ...{ number, victim, outage, verdicts },
      recoveredOn: recovered?.owner ?? null,
      tokens: { before: before.token, after: recovered?.token ?? null },
      reportedMs:
        recovered === null ? null : reportedOutage(watch.news, before.token ?? 0, recovered.token ?? 0),
      wayBack:
        wayBack === null
          ? null
          : {
              to: wayBack,
              outage: probe === null ? null : measureDrillOutage(upTo(backAt, now()), backAt - lostAt),
            },
      passed: verdicts.every(({ ok }) => ok),
      sights: watch.sights.map((sight) => ({ ...sight, at: Math.round(sight.at - lostAt) })),
      timeline: watch.news.map(({ at, node, token, what, detail }) => ({
        ...{ ms: at - wallAt, node, token, what, detail },
      })),
    };
  } finally {
    await probe?.stop();
    await documents.change(api.at(api.DRILLS, name), () => null);
  }
}

async function giveOrder(
  { session, name, loss, lastsMs }: Drill,
  node: string,
  instance: string,
  token: number,
): Promise<DrillOrder> {
  const { api, documents, actor } = session;
  const order: DrillOrder = {
    ...{ server: name, loss, node, instance, token, lastsMs, by: actor.slice(0, 200) },
    ...{ state: "ordered", problem: null, at: systemClock.now() },
  };
  await documents.change(api.at(api.DRILLS, name), () => order);
  return order;
}

/** Whether the daemon has begun. False: Ctrl-C came first. Throws DRILL_REFUSED with what the daemon says. */
async function untilClaimed(
  { session, name }: Drill,
  watch: DrillWatch,
  order: DrillOrder,
): Promise<boolean> {
  const { signal, documents, api } = session;
  const seen = await watch.until(
    CLAIM_MS,
    (look) => signal.aborted || (look.order !== null && look.order.state !== "ordered"),
  );
  const { state, problem } = seen?.order ?? order;
  if (state === "refused")
    throw refused(name, [{ where: order.node, problem: problem ?? "its daemon refused" }]);
  if (state !== "ordered") return true;
  let isTakenBack = false;
  await documents.change(api.at(api.DRILLS, name), (present) => {
    isTakenBack = present === null || present.state === "ordered";
    return isTakenBack ? null : present;
  });
  if (!isTakenBack) return true;
  if (signal.aborted) return false;
  throw refused(name, [
    { where: order.node, problem: "its daemon does not carry drills out; is it of this version?" },
  ]);
}

/** What was taken away is there again, and its daemon has looked around. */
function isVictimBack({ loss, name }: Drill, look: DrillLook, victim: string, instance: string): boolean {
  if (loss === "service") return true;
  const report = look.reports.get(victim);
  if (report === undefined || !look.up.has(victim) || report.servers[name] === undefined) return false;
  if (report.servers[name].role === "cleaning") return false;
  const isAnother = report.instance !== instance;
  return isAnother || (loss !== "daemon" && loss !== "node" && look.order?.state === "ended");
}

/** Where it lives elsewhere now, it goes back in order. Resolves to where; null: nothing was to be done. */
async function moveBack(
  { session, name, definition }: Drill,
  watch: DrillWatch,
  victim: string,
  owner: string | null,
): Promise<string | null> {
  if (owner === null || owner === victim) return null;
  const isBack = (look: DrillLook) => look.record?.node === victim && isOnlineNow(look, name);
  // It may go back by itself.
  if (definition.failback.allowed && (await watch.until(0, isBack)) !== null) return victim;
  for (let tries = 0; tries < MOVES; tries++) {
    // A node that has just come back is no candidate until the others have seen it; the order is given up then.
    const number = await placeOrder(session, name, "move", victim);
    const look = await watch.until(
      BACK_MS,
      (each) => isBack(each) || watch.news.some((entry) => isGivenUp(entry, number)),
    );
    if (look !== null && isBack(look)) return victim;
    await systemClock.sleep(AGAIN_MS);
  }
  return victim;
}

const MOVES = 10;
const AGAIN_MS = 1_000;

/** A drill is no reason to keep a node out, nor does it use up the failovers that are allowed. */
async function putBack(
  { session, name }: Drill,
  former: {
    readonly members: ReadonlyMap<string, ClusterMember>;
    readonly failover: { readonly at: readonly number[] } | null;
  },
): Promise<void> {
  const { api, documents } = session;
  for (const [node, { exits, quarantinedUntil }] of former.members)
    await documents.change(api.at(api.MEMBERS, node), (present) =>
      present === null ||
      (present.exits.length === exits.length && present.quarantinedUntil === quarantinedUntil)
        ? present
        : { ...present, exits, quarantinedUntil },
    );
  await documents.change(api.at(api.FAILOVERS, name), (present) =>
    present === null || present.at.length === (former.failover?.at.length ?? 0)
      ? present
      : { ...present, at: former.failover?.at ?? [] },
  );
}

/** From the first sign of the loss to all online again, by the nodes' own clocks. */
function reportedOutage(news: readonly HistoryEntry[], before: number, after: number): number | null {
  const begun = news.find(
    ({ what, token }) => (what === "drill" || what === "resource-failed") && token === before,
  );
  const online = news.findLast(({ what, token }) =>
    after === before ? what === "resource-online" && token === after : what === "online" && token === after,
  );
  return begun === undefined || online === undefined ? null : Math.max(0, online.at - begun.at);
}

async function writeReport(file: string, report: DrillReport): Promise<void> {
  const text = file.endsWith(".html")
    ? drillHtml(report)
    : file.endsWith(".json")
      ? `${JSON.stringify(report, null, 2)}\n`
      : `${drillText(report).join("\n")}\n`;
  try {
    await writeFile(file, text);
  } catch (cause) {
    throw new LockstepError("FILE_ACCESS_FAILED", `the report ${file} cannot be written`, {
      found: cause instanceof Error ? cause.message : String(cause),
      hint: "The drill itself is over, and everything was put back.",
      cause,
    });
  }
}

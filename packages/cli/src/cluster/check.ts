import { findLeaseFaults, NODE_EXAMINATION, type NodeFinding, neededTimes, proveLease } from "@lockstep/core";
import { printable } from "@lockstep/platform";
import type { ClusterSession, Examination } from "../commands/cluster-session.ts";
import { Finished } from "../failure.ts";
import { formatDuration } from "../screen/format.ts";
import { tellFinding } from "./findings-text.ts";
import { takeSnapshot } from "./look.ts";
import { examineHere } from "./membership.ts";
import { STATUS_DEGRADED } from "./show.ts";
import type { ClusterSnapshot } from "./snapshot.ts";
import { judgeCluster } from "./status.ts";
import { findUnequal } from "./unequal.ts";

/** An examination older than this says little: the daemons look about once a minute. */
const OLD_MS = 5 * 60_000;

interface NodeCheck {
  readonly node: string;
  /** Wall-clock milliseconds of the look; null: nobody has looked. */
  readonly at: number | null;
  readonly findings: readonly NodeFinding[];
}

/**
 * `lockstep cluster check`: what `join` looks at, for all nodes, and what differs between them. This machine is looked at
 * now, where it is a node; of the others counts what their daemons found lately.
 */
export async function checkCluster(session: ClusterSession, examination: Examination): Promise<void> {
  const { config, documents, output } = session;
  const snapshot = await takeSnapshot(session);
  const { found } = await documents.list({ prefix: "examined/", kind: NODE_EXAMINATION });
  const nodes: NodeCheck[] = [];
  for (const { node } of [...snapshot.members].sort((a, b) => (a.node < b.node ? -1 : 1))) {
    const own = node === config.name;
    const examined = found.get(node);
    nodes.push(
      own
        ? { node, at: snapshot.now, findings: await examineHere(session, examination, snapshot) }
        : {
            node,
            at: examined?.at ?? null,
            findings: [...(examined?.findings ?? []), ...staleness(snapshot, node, examined?.at ?? null)],
          },
    );
  }
  const { problems, failover } = judgeCluster(snapshot);
  const cluster = [
    ...problems.map((detail): NodeFinding => ({ ...FAILED, detail })),
    ...(failover.advice === null ? [] : [{ ...FAILED, id: "votes", detail: failover.advice }]),
    ...leaseFindings(snapshot),
    ...findUnequal(nodes.flatMap(({ node, findings }) => findings.map((each) => ({ ...each, node })))).map(
      ({ where, problem }): NodeFinding => ({ ...FAILED, id: where, detail: problem }),
    ),
  ];
  const healthy = [...nodes.flatMap(({ findings }) => findings), ...cluster].every(
    ({ state }) => state !== "failed",
  );
  output.document({ healthy, nodes, cluster });
  for (const { node, findings } of nodes) {
    if (output.data.interactive) output.line(output.paintData("bold", printable(node)));
    for (const finding of findings) tellFinding(output, finding, node);
  }
  if (output.data.interactive) output.line(output.paintData("bold", "all nodes together"));
  for (const finding of cluster) tellFinding(output, finding, "-");
  if (cluster.every(({ state }) => state === "ok"))
    output.line(output.data.interactive ? "nothing differs" : "-\tok\tcluster\tnothing differs\t");
  throw new Finished(healthy ? 0 : STATUS_DEGRADED);
}

const FAILED = { id: "cluster", state: "failed", hint: null, mark: null } as const;

function staleness({ up, now }: ClusterSnapshot, node: string, at: number | null): NodeFinding[] {
  const finding = (detail: string, hint: string): NodeFinding[] => [
    { id: "daemon", state: up.has(node) ? "warning" : "failed", detail, hint, mark: null },
  ];
  if (!up.has(node))
    return finding(
      "its daemon does not answer",
      `Start it there: lockstep node, or systemctl start lockstep-node.`,
    );
  if (at === null) return finding("its daemon has not looked at its machine yet", "Check again in a minute.");
  if (now - at > OLD_MS)
    return finding(`what it found is ${formatDuration(now - at)} old`, "Look into its daemon's log.");
  return [];
}

/**
 * What nodes were measured to need, against what the lease allows them: wrong only where the times are no longer safe with
 * it, because more of one term is covered as long as others leave room.
 */
function leaseFindings({ cluster, reports, up }: ClusterSnapshot): NodeFinding[] {
  const { lease } = cluster;
  return [...reports.values()]
    .filter(({ node }) => up.has(node))
    .flatMap(({ node, measured }): NodeFinding[] => {
      const unsafe = findLeaseFaults(lease, [{ node, ...measured }]);
      const { stopMs, guardDelayMs, callMs } = measured;
      const { slackMs } = proveLease(neededTimes(lease, measured)).safety;
      const stops =
        stopMs === 0 ? "no kill was measured yet (a drill measures one)" : `${round(stopMs)} ms to stop`;
      const found: NodeFinding = {
        ...{ id: "lease", state: "ok", hint: null, mark: null },
        detail: `${node}: ${stops} (${lease.stopMs} allowed), guard at most ${round(guardDelayMs)} ms late (${lease.guardDelayMs}); ${Math.floor(slackMs)} ms left`,
      };
      return [
        ...(unsafe.length === 0 ? [found] : []),
        ...unsafe.map(
          ({ problem }): NodeFinding => ({
            ...{ ...FAILED, id: "lease", detail: problem },
            hint: "Set these values (lockstep cluster set --time TERM=VALUE), or find out what makes this machine so slow.",
          }),
        ),
        ...(callMs <= lease.callMs
          ? []
          : [
              {
                ...{ ...FAILED, id: "lease", state: "warning" as const },
                detail: `a call of ${node} to the store took ${round(callMs)} ms, the lease allows ${lease.callMs}`,
                hint: "Find out what makes the store so slow, or take longer times.",
              },
            ]),
      ];
    });
}

const round = (ms: number) => Math.ceil(ms);

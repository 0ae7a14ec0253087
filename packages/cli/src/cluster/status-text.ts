import { printable, type Style } from "@lockstep/platform";
import { counted, formatUtc } from "../screen/format.ts";
import type { Output } from "../screen/output.ts";
import { printTable } from "../screen/table.ts";
import type { ClusterStatus, NodeStatus, ResourceStatus, ServerState, ServerStatus } from "./status.ts";

const STATE_STYLE: Readonly<Record<ServerState | NodeStatus["state"] | ResourceStatus["phase"], Style>> = {
  up: "green",
  paused: "yellow",
  quarantined: "red",
  down: "red",
  online: "green",
  offline: "dim",
  disabled: "dim",
  failed: "red",
  "partial-online": "yellow",
  pending: "cyan",
  "online-pending": "cyan",
  "offline-pending": "cyan",
  lost: "red",
};

/**
 * Prints a status for people; for a pipe one row a line whose first column says what it is about: `cluster`, `node`,
 * `server`, `resource` or `problem`.
 */
export function printStatus(output: Output, status: ClusterStatus): void {
  if (output.data.interactive) tellScreen(output, status);
  else tellRows(output, status);
}

function tellRows(output: Output, status: ClusterStatus): void {
  const rows = [
    ["cluster", status.cluster, status.healthy ? "healthy" : "degraded"],
    ...status.nodes.map((node) => ["node", ...nodeCells(node)]),
    ...status.virtualServers.flatMap((server) => [
      ["server", server.name, server.state, server.owner ?? "-", tokenOf(server), takeoverOf(server)],
      ...server.resources.map(({ name, type, phase, problem }) => [
        ...["resource", server.name, name, type, phase, problem ?? ""],
      ]),
    ]),
    ...status.problems.map((problem) => ["problem", problem]),
  ];
  for (const row of rows) output.line(row.map((cell) => printable(cell)).join("\t"));
}

function tellScreen(output: Output, status: ClusterStatus): void {
  const up = status.nodes.filter(({ isUp }) => isUp).length;
  const health = status.healthy
    ? output.paintData("green", "all well")
    : output.paintData("red", counted(status.problems.length, "problem"));
  output.line(
    `${output.paintData("bold", `cluster ${printable(status.cluster)}`)}  ${up} of ${counted(status.nodes.length, "node")} up  ${health}`,
  );
  if (status.failover.advice !== null)
    output.line(
      `${output.paintData("yellow", "no automatic failover:")} ${printable(status.failover.advice)}`,
    );
  output.line();
  printTable(
    output,
    [
      { title: "node" },
      { title: "state" },
      { title: "owns", shrinks: true },
      { title: "version" },
      { title: "address" },
      { title: "remark", shrinks: true },
    ],
    status.nodes.map(nodeCells),
    (cell, column) => (column === 1 ? paintState(output, cell) : cell),
  );
  for (const server of status.virtualServers) tellServer(output, server);
  if (status.problems.length === 0) return;
  output.line();
  for (const problem of status.problems) output.line(`${output.paintData("red", "!")} ${printable(problem)}`);
}

function nodeCells(node: NodeStatus): string[] {
  const remarks = [
    ...node.problems,
    // What the state alone does not say.
    node.isPaused && node.state !== "paused" ? "paused too" : "",
    node.quarantinedUntil === null ? "" : `until ${formatUtc(node.quarantinedUntil)}`,
    node.isUp || node.reportedAt === null ? "" : `last report ${formatUtc(node.reportedAt)}`,
  ];
  return [
    node.node,
    node.state,
    node.owns.join(", ") || "-",
    node.version ?? "-",
    node.address,
    remarks.filter((remark) => remark !== "").join("; "),
  ];
}

/** One virtual server with its resources and who would take it over. */
export function tellServer(output: Output, server: ServerStatus): void {
  const marks = [
    server.owner === null ? "" : `on ${server.owner}`,
    server.token === null ? "" : `token ${server.token}`,
    server.inMaintenance ? "in maintenance" : "",
    server.isEnabled ? "" : "not enabled",
    server.isEnabled && server.wanted === "offline" ? "to be offline" : "",
  ];
  output.line();
  output.line(
    [
      output.paintData("bold", printable(server.name)),
      paintState(output, server.state),
      ...marks.filter((mark) => mark !== "").map((mark) => printable(mark)),
    ].join("  "),
  );
  const width = Math.max(0, ...server.resources.map(({ name }) => name.length));
  const typeWidth = Math.max(0, ...server.resources.map(({ type }) => type.length));
  for (const { name, type, phase, problem } of server.resources)
    output.line(
      `  ${printable(name).padEnd(width)}  ${output.paintData("dim", type.padEnd(typeWidth))}  ${paintState(output, phase)}${problem === null ? "" : `  ${printable(problem)}`}`,
    );
  output.line(`  ${output.paintData("dim", "takeover")}  ${printable(takeoverOf(server))}`);
  for (const { node, detail } of server.rejected)
    output.line(
      `  ${output.paintData("dim", "        ")}  ${output.paintData("yellow", `not ${printable(node)}:`)} ${printable(detail)}`,
    );
}

/** Who would take it, in order; or why nobody does without a person. */
function takeoverOf(server: ServerStatus): string {
  const successors = server.candidates.filter((node) => node !== server.owner);
  const order = successors.length === 0 ? "nobody" : successors.join(", then ");
  return server.automatic ? `${order}, automatically` : `by command only (${server.why})`;
}

const tokenOf = ({ token }: ServerStatus) => (token === null ? "-" : String(token));

function paintState(output: Output, text: string): string {
  const style = Object.entries(STATE_STYLE).find(([state]) => state === text.trim())?.[1];
  return style === undefined ? text : output.paintData(style, text);
}

import { networkInterfaces } from "node:os";
import type { ClusterMember, NodeFinding, NodeReport } from "@lockstep/core";
import type { Clock } from "@lockstep/platform";
import { measurePeer, type PeerMeasurement, splitAddress } from "../node/peer-channel.ts";
import { failed, ok, warning } from "./finding.ts";

/** Wall clocks only date the history, so this far apart is a nuisance, not a danger. */
const OFFSET_MS_MAX = 1_000;
const CONNECT_MS = 5_000;
/** For so long two clocks are compared. */
const SPAN_MS = 4_000;
/** The clock of leases is told in steps of so much, and a daemon that has just begun may still find the step. */
const STEP_MS = 10;

/** What one look at the other nodes needs. */
export interface PeerSubject {
  readonly node: string;
  readonly address: string;
  readonly version: string;
  readonly members: readonly ClusterMember[];
}

/** Whether our address is ours, and no other node has it. */
export function examineAddress(subject: PeerSubject): NodeFinding[] {
  const { host } = splitAddress(subject.address);
  const twin = subject.members.find(
    ({ node, address }) => node !== subject.node && address === subject.address,
  );
  if (twin !== undefined)
    return [
      failed("address", `${subject.address} is the address of ${twin.node} too`, "Give this node its own."),
    ];
  const own = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  // A name is judged by whoever connects to it.
  if (!/^[0-9.]+$|:/.test(host) || own.some(({ address }) => address === host))
    return [ok("address", `${subject.address} is on this machine`)];
  return [
    failed(
      "address",
      `no interface of this machine has ${host}`,
      "Set `address` in the node configuration to one of this machine at which the other nodes reach it.",
    ),
  ];
}

/** What a look at one other daemon gave, or why it gave nothing. */
export interface PeerLook {
  readonly node: string;
  readonly address: string;
  readonly found: PeerMeasurement | null;
  readonly problem: string | null;
}

/** Asks every daemon that goes on: it must be reached, hold the same key, and count time alike. */
export function lookAtPeers(
  subject: PeerSubject,
  up: ReadonlySet<string>,
  key: Buffer,
  clock: Clock,
): Promise<PeerLook[]> {
  const others = subject.members.filter(({ node }) => node !== subject.node && up.has(node));
  return Promise.all(
    others.map(async ({ node, address }) => {
      try {
        const found = await measurePeer({
          ...{ address, node: subject.node, key, clock, monotonic: () => clock.monotonic() },
          ...{ timeoutMs: CONNECT_MS, spanMs: SPAN_MS },
        });
        return { node, address, found, problem: null };
      } catch (error) {
        return {
          node,
          address,
          found: null,
          problem: error instanceof Error ? error.message : String(error),
        };
      }
    }),
  );
}

/** Whether the daemons that run can be reached from here. */
export function examineReach(looks: readonly PeerLook[]): NodeFinding[] {
  const broken = looks.filter(({ problem }) => problem !== null);
  if (broken.length === 0)
    return [
      ok(
        "reach",
        looks.length === 0
          ? "no other node is up"
          : `${looks.map(({ node }) => node).join(", ")} can be reached`,
      ),
    ];
  return broken.map(({ node, address, problem }) =>
    failed(
      "reach",
      `${node} goes on, but does not answer at ${address}: ${problem}`,
      "Open this port between the nodes, and look whether address and key are the right ones.",
    ),
  );
}

/** Whether all run the same version of Lockstep. */
export function examineVersions(subject: PeerSubject, reports: readonly NodeReport[]): NodeFinding[] {
  const others = reports.filter(({ node, version }) => node !== subject.node && version !== subject.version);
  if (others.length === 0) return [ok("version", subject.version)];
  return [
    warning(
      "version",
      `this is ${subject.version}; ${others.map(({ node, version }) => `${node} runs ${version}`).join(", ")}`,
      "Bring all nodes to one version, the passive ones first.",
    ),
  ];
}

/** Offsets and rates of the others' clocks against ours, as exactly as the way there lets us see them. */
export function examineClocks(looks: readonly PeerLook[], clockError: number): NodeFinding[] {
  const findings: NodeFinding[] = [];
  for (const { node, found } of looks) {
    if (found === null) continue;
    const { wallOffsetMs, roundTripMs, rateError, rateUncertainty } = found;
    if (Math.abs(wallOffsetMs) > OFFSET_MS_MAX + roundTripMs)
      findings.push(
        warning(
          "clock",
          `${node}'s wall clock is ${describeOffset(wallOffsetMs)} ours`,
          "Let chrony or systemd-timesyncd keep the clocks; the lease does not rest on them, the history does.",
        ),
      );
    const unsure = rateUncertainty + STEP_MS / SPAN_MS;
    // Only what neither the way there nor the steps explain.
    if (Math.abs(rateError) - unsure > clockError)
      findings.push(
        failed(
          "clock",
          `${node}'s clock runs ${percent(rateError)} ${rateError > 0 ? "faster" : "slower"} than ours (±${percent(unsure)}); the lease allows ${percent(clockError)}`,
          "One of both machines counts time wrongly: look into its kernel's log.",
        ),
      );
  }
  const seen = looks.flatMap(({ node, found }) => (found === null ? [] : [node]));
  if (findings.length > 0 || seen.length === 0) return findings;
  return [ok("clock", `agrees with ${seen.join(", ")}`)];
}

const describeOffset = (ms: number) =>
  `${Math.round(Math.abs(ms) / 100) / 10} s ${ms > 0 ? "ahead of" : "behind"}`;
const percent = (fraction: number) => `${Math.round(Math.abs(fraction) * 1e5) / 1e3} %`;

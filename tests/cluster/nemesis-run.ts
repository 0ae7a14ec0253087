import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { DEFAULT_LEASE_TIMES } from "@lockstep/core";
import { Prng } from "@lockstep/testing";
import { labNow } from "../support/lab.ts";
import { startProbe } from "../support/lab-probe.ts";
import { watchTruth } from "../support/lab-truth.ts";
import { ADDRESS, CLIENT, ClusterHosts, NODES, PORT, SERVER } from "./hosts-lab.ts";
import type { Nemesis } from "./nemesis-faults.ts";
import { type NemesisHistory, type NemesisRound, toSpans } from "./nemesis-history.ts";

const PROBE_MS = 20;
const SETTLE_MS = 120_000;
/** The default profile, with room for the delays of a machine that plays all hosts. */
const LEASE = { ...DEFAULT_LEASE_TIMES, waitMs: 7_000, guardDelayMs: 2_600, stopMs: 2_500 };

/** Makes one fault again and again, each time at another moment and for another while, and records all that is to be seen. */
export async function runNemesis(
  nemesis: Nemesis,
  options: { readonly rounds: number; readonly seed: number; readonly told?: (line: string) => void },
): Promise<NemesisHistory> {
  const prng = new Prng(options.seed);
  const random = () => prng.next();
  const hosts = await ClusterHosts.open({
    init: (["waitMs", "guardDelayMs", "stopMs"] as const).flatMap((term) => [
      "--time",
      `${term}=${LEASE[term]}`,
    ]),
    priority: 10,
    ...nemesis.hosts,
  });
  try {
    await hosts.addServer([
      // Frozen services are told by the thorough test; a test of the brakes is elsewhere.
      ...["--policy", "service.isAliveMs=1000", "--policy", "service.looksAliveMs=500"],
      ...["--set", "service.probeMs=800", "--failover-limit", "1000/1"],
    ]);
    const truth = await watchTruth(hosts.lab, { addresses: [ADDRESS], ports: [PORT] });
    const probe = await startProbe(hosts.client, { address: ADDRESS, port: PORT, everyMs: PROBE_MS });
    const rounds: NemesisRound[] = [];
    for (let round = 0; round < options.rounds; round++) {
      rounds.push(await playRound(hosts, nemesis, random));
      const { what, node, faultAt, healedAt, servedAt } = rounds.at(-1) as NemesisRound;
      options.told?.(
        `${what} on ${node} for ${Math.round(healedAt - faultAt)} ms, served ${servedAt === null ? "never" : `${Math.round(servedAt - healedAt)} ms`} after`,
      );
      if (servedAt === null) break;
    }
    const client = await probe.stop();
    const samples = await truth.stop();
    return {
      ...{
        nemesis: nemesis.name,
        seed: options.seed,
        nodes: NODES,
        lease: LEASE,
        rounds,
        client,
      },
      wallLessMonotonicMs: Date.now() - labNow(),
      truth: toSpans(samples, NODES, ADDRESS, PORT),
      notes: await hosts.witness.ask("history"),
      // First what was acknowledged: whatever is acknowledged meanwhile has arrived.
      acknowledged: NODES.flatMap((node) => acknowledgedOn(hosts, node)),
      arrived: await hosts.witness.ask("arrived"),
    };
  } finally {
    await hosts.close();
  }
}

async function playRound(hosts: ClusterHosts, nemesis: Nemesis, random: () => number): Promise<NemesisRound> {
  const { waitMs } = LEASE;
  const owner = await hosts.untilServing();
  await sleep(random() * 1_000);
  const faultAt = labNow();
  const { what, node, isAbsent = false, heal } = await nemesis.strike(hosts, owner, random);
  await sleep(waitMs * (0.1 + random() * 1.7));
  await heal();
  const healedAt = labNow();
  const serving = await hosts.untilServing().catch(() => null);
  const servedAt = serving === null ? null : labNow();
  const neighbour = serving === null ? null : await hosts.lab.host(CLIENT).neighbour(ADDRESS);
  const isFound = serving !== null && neighbour === (await hosts.lab.host(serving).mac());
  if (serving !== null) for (const each of NODES) await hosts.untilTakesPart(each);
  await hosts.witness.ask("forgive");
  const reports = await hosts.witness.ask("reports");
  return {
    ...{ what, node, faultAt, healedAt, servedAt },
    neighbour: isFound ? neighbour : null,
    absent: isAbsent ? [{ node, from: faultAt, to: healedAt }] : [],
    settings: serving === null ? null : await settledSettings(hosts),
    configHashes: NODES.map((each) => reports[each]?.configHashes[SERVER] ?? null),
  };
}

/** Changes reach the store a moment later; waits for that, but not for ever. */
async function settledSettings(hosts: ClusterHosts): Promise<NonNullable<NemesisRound["settings"]>> {
  for (const until = labNow() + SETTLE_MS; ; await sleep(100)) {
    const [node = ""] = hosts.owners();
    const found = {
      owner: ownHash(hosts, node),
      store: (await hosts.witness.ask("settings"))["state.json"] ?? null,
    };
    if ((found.owner !== null && found.owner === found.store) || labNow() > until) return found;
  }
}

function ownHash(hosts: ClusterHosts, node: string): string | null {
  try {
    const file = join(hosts.dataOf(node), "servers", SERVER, "@data/settings/state.json");
    return createHash("sha256").update(readFileSync(file)).digest("hex");
  } catch {
    return null;
  }
}

function acknowledgedOn(hosts: ClusterHosts, node: string): string[] {
  let text = "";
  try {
    text = readFileSync(hosts.pathOf(`acknowledged-${node}`), "utf8");
  } catch {
    return [];
  }
  return text
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as { writer: string; number: number })
    .map(({ writer, number }) => `${writer} ${number}`);
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

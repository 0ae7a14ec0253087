import type { HistoryEntry } from "./cluster-types.ts";
import type { DrillLoss, DrillOutage } from "./drill.ts";

/** One state of a virtual server and of the nodes, as far as a drill must leave it as it was. */
export interface DrillMoment {
  readonly owner: string | null;
  readonly token: number | null;
  /** By resource: whether its owner reports it online. */
  readonly online: Readonly<Record<string, boolean>>;
  /** By node that is up: the hash of the service's configuration file there; null: none. */
  readonly configHashes: Readonly<Record<string, string | null>>;
  /** Number of the set of settings that its owner stored or laid down last; null: none. */
  readonly settings: number | null;
  readonly paused: readonly string[];
  readonly keptOut: readonly string[];
  readonly wanted: string;
}

/** The lease as it was seen in the store; milliseconds of the looker's clock. */
export interface DrillSight {
  readonly at: number;
  readonly owner: string | null;
  readonly token: number;
}

/** Everything that was seen of one round. */
export interface DrillFacts {
  readonly loss: DrillLoss;
  readonly victim: string;
  readonly before: DrillMoment;
  /** When it was online again, before anything was moved back; null: it never was. */
  readonly recovered: DrillMoment | null;
  readonly after: DrillMoment;
  readonly sights: readonly DrillSight[];
  /** Who said long after a takeover that it owned under the older token, in words. */
  readonly claims: readonly string[];
  /** What the nodes wrote down of this virtual server since the drill began. */
  readonly history: readonly HistoryEntry[];
  /** Where it was predicted to go; null: nowhere. */
  readonly predicted: string | null;
  readonly failsafe: boolean;
  /** Null: there was nothing to ask. */
  readonly outage: DrillOutage | null;
  readonly answersAgain: boolean;
}

export interface DrillVerdict {
  readonly name: string;
  readonly ok: boolean;
  /** What was expected and what was seen. */
  readonly detail: string;
}

/** Judges one round. Pure; every verdict says what it rests on. */
export function judgeDrill(facts: DrillFacts): DrillVerdict[] {
  return [
    cameBack(facts),
    clientSaw(facts),
    oneOwner(facts),
    tokensGrew(facts),
    whereItWent(facts),
    together(facts),
    settingsEqual(facts),
    formerState(facts),
  ];
}

function cameBack({ recovered, victim }: DrillFacts): DrillVerdict {
  const name = "came back by itself";
  if (recovered === null) return { name, ok: false, detail: "it was not online again in time" };
  const { owner, token } = recovered;
  const where = owner === victim ? `again on ${owner}` : `on another node, ${owner},`;
  return { name, ok: true, detail: `online ${where} with token ${token}` };
}

function clientSaw({ outage, answersAgain }: DrillFacts): DrillVerdict {
  const name = "clients reach it again";
  if (outage === null) return { name, ok: true, detail: "not asked: no address and port to ask at is known" };
  const share = `${outage.failed} of ${outage.asked} questions failed`;
  return { name, ok: answersAgain, detail: answersAgain ? share : `${share}; it does not answer any more` };
}

/** Who had each token, by the store and by the nodes' own words. */
function ownersOf({ sights, history }: DrillFacts): Map<number, Set<string>> {
  const owners = new Map<number, Set<string>>();
  const add = (token: number | null, node: string | null) => {
    if (token === null || node === null) return;
    owners.set(token, (owners.get(token) ?? new Set()).add(node));
  };
  for (const { owner, token } of sights) add(token, owner);
  for (const { what, token, node } of history)
    if (what === "took" || what === "resource-online") add(token, node);
  return owners;
}

function oneOwner(facts: DrillFacts): DrillVerdict {
  const owners = ownersOf(facts);
  const twice = [...owners].filter(([, nodes]) => nodes.size > 1);
  const problems = [
    ...twice.map(([token, nodes]) => `token ${token}: ${[...nodes].sort().join(" and ")}`),
    ...facts.claims,
    ...facts.history
      .filter(({ what }) => what.startsWith("foreign owner"))
      .map(({ node, detail }) => `${node}: ${detail}`),
  ];
  return {
    name: "one owner at a time",
    ok: problems.length === 0,
    detail:
      problems.join("; ") || `${owners.size} ${owners.size === 1 ? "token" : "tokens"}, each of one node`,
  };
}

function tokensGrew({ sights, before, recovered }: DrillFacts): DrillVerdict {
  const problems: string[] = [];
  let last: DrillSight | null = null;
  for (const sight of sights) {
    if (last !== null && sight.token < last.token) problems.push(`${sight.token} came after ${last.token}`);
    const hasMoved =
      last !== null && last.owner !== null && sight.owner !== null && last.owner !== sight.owner;
    if (hasMoved && sight.token === last?.token) problems.push(`${sight.owner} came without a new token`);
    last = sight;
  }
  return {
    name: "tokens only grew",
    ok: problems.length === 0,
    detail:
      problems.join("; ") || `${before.token} before, ${recovered?.token ?? last?.token ?? "none"} then`,
  };
}

function whereItWent({ loss, recovered, victim, predicted, failsafe }: DrillFacts): DrillVerdict {
  const name = "went where it was predicted";
  const seen = recovered?.owner ?? null;
  const mayStay = loss === "service" || (loss === "store" && failsafe);
  const ok = seen !== null && (seen === predicted || (mayStay && seen === victim));
  const expected = mayStay ? `${victim}, or ${predicted ?? "nowhere"}` : (predicted ?? "nowhere");
  return { name, ok, detail: `predicted: ${expected}; seen: ${seen ?? "nowhere"}` };
}

function together({ recovered }: DrillFacts): DrillVerdict {
  const online = Object.entries(recovered?.online ?? {});
  const missing = online.filter(([, isOnline]) => !isOnline).map(([resource]) => `[${resource}]`);
  const names = online.map(([resource]) => `[${resource}]`).join(", ");
  return {
    name: "all resources on one node",
    ok: recovered !== null && missing.length === 0 && online.length > 0,
    detail:
      missing.length > 0
        ? `not online: ${missing.join(", ")}`
        : `${names || "none"} on ${recovered?.owner ?? "no node"}`,
  };
}

function settingsEqual({ before, recovered }: DrillFacts): DrillVerdict {
  const name = "settings and configuration equal";
  if (recovered === null) return { name, ok: false, detail: "nobody could be asked" };
  const hashes = new Map<string, string[]>();
  for (const [node, hash] of Object.entries(recovered.configHashes))
    hashes.set(hash ?? "none", [...(hashes.get(hash ?? "none") ?? []), node]);
  const isLost = before.settings !== null && (recovered.settings ?? -1) < before.settings;
  const differ = [...hashes].map(([hash, nodes]) => `${hash.slice(0, 12)} on ${nodes.sort().join(", ")}`);
  const config =
    hashes.size > 1 ? `configuration differs: ${differ.join("; ")}` : "one configuration on all nodes";
  const settings =
    before.settings === null
      ? "no settings followed"
      : `settings ${before.settings} before, ${recovered.settings} then`;
  return { name, ok: hashes.size <= 1 && !isLost, detail: `${config}; ${settings}` };
}

function formerState({ before, after }: DrillFacts): DrillVerdict {
  const rows = [
    ["owner", before.owner, after.owner],
    ["paused", before.paused.join(", "), after.paused.join(", ")],
    ["kept out", before.keptOut.join(", "), after.keptOut.join(", ")],
    ["wanted", before.wanted, after.wanted],
  ] as const;
  const changed = rows.filter(([, was, is]) => was !== is);
  return {
    name: "left as it was found",
    ok: changed.length === 0,
    detail:
      changed.map(([what, was, is]) => `${what}: ${was || "none"}, now ${is || "none"}`).join("; ") ||
      `on ${after.owner}, ${after.paused.length === 0 ? "nothing paused" : `paused: ${after.paused.join(", ")}`}`,
  };
}

import type {
  ClusterMember,
  DrillMoment,
  DrillOrder,
  DrillSight,
  HistoryEntry,
  LeaseRecord,
  NodeReport,
  VirtualServerDefinition,
} from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import type { ClusterSession } from "../commands/cluster-session.ts";
import { formatStep } from "./history-text.ts";
import { BeatWatch } from "./look.ts";

/** What one look at the store shows of a virtual server and its nodes. */
export interface DrillLook {
  readonly at: number;
  readonly record: LeaseRecord | null;
  readonly order: DrillOrder | null;
  readonly definition: VirtualServerDefinition | null;
  readonly members: ReadonlyMap<string, ClusterMember>;
  readonly reports: ReadonlyMap<string, NodeReport>;
  readonly up: ReadonlySet<string>;
}

const LOOK_MS = 40;
const HISTORY_MS = 400;

/**
 * Looks at the store all the time while a drill runs, and keeps what it saw: every owner and token that stood there, who
 * said that he owned, and what the nodes wrote down. A store that does not answer for a moment is part of a drill.
 */
export class DrillWatch {
  readonly sights: DrillSight[] = [];
  readonly claims = new Set<string>();
  readonly news: HistoryEntry[] = [];
  readonly #session: ClusterSession;
  readonly #server: string;
  readonly #waitMs: number;
  readonly #beats: BeatWatch;
  readonly #known: Set<string>;
  readonly #overtaken = new Map<number, number>();
  readonly #marks = new Map<string, string>();
  /** Whose last beat claimed what had passed on. */
  readonly #claimants = new Set<string>();
  #historyAt = 0;

  static async begin(session: ClusterSession, server: string, waitMs: number): Promise<DrillWatch> {
    const entries = await session.documents.history();
    return new DrillWatch(session, server, waitMs, new Set(entries.map(keyOf)));
  }

  private constructor(session: ClusterSession, server: string, waitMs: number, known: Set<string>) {
    this.#session = session;
    this.#server = server;
    this.#waitMs = waitMs;
    this.#beats = new BeatWatch(waitMs);
    this.#known = known;
  }

  /**
   * Looks until `isDone`, or until `limitMs` have passed; then null. Nothing interrupts it: what was taken away must be
   * seen to come back.
   */
  async until(limitMs: number, isDone: (look: DrillLook) => boolean): Promise<DrillLook | null> {
    for (const end = systemClock.monotonic() + limitMs; ; ) {
      try {
        const look = await this.look();
        if (isDone(look)) {
          await this.#readHistory();
          return look;
        }
      } catch (error) {
        if (!isLockstepError(error)) throw error;
      }
      if (systemClock.monotonic() >= end) return null;
      await systemClock.sleep(LOOK_MS);
    }
  }

  async look(): Promise<DrillLook> {
    const { api, coordination, documents } = this.#session;
    const [{ record }, order, definition, members, reports] = await Promise.all([
      coordination.read(this.#server),
      documents.read(api.at(api.DRILLS, this.#server)),
      documents.read(api.at(api.SERVERS, this.#server)),
      documents.members(),
      documents.reports(),
    ]);
    const at = systemClock.monotonic();
    this.#beats.see(reports.found.values(), at);
    this.#note(at, record, reports.found.values());
    if (at - this.#historyAt > HISTORY_MS) await this.#readHistory();
    return {
      ...{ at, record, order, definition, members: members.found, reports: reports.found },
      up: this.#beats.up(at),
    };
  }

  #note(at: number, record: LeaseRecord | null, reports: Iterable<NodeReport>): void {
    const last = this.sights.at(-1);
    if (record !== null && (last?.token !== record.token || last.owner !== record.node)) {
      this.sights.push({ at, owner: record.node, token: record.token });
      if (record.node !== null && !this.#overtaken.has(record.token)) this.#overtaken.set(record.token, at);
    }
    const since = record === null ? undefined : this.#overtaken.get(record.token);
    for (const { node, instance, beat, servers } of reports) {
      const mark = `${instance} ${beat}`;
      const hasGrown = this.#marks.has(node) && this.#marks.get(node) !== mark;
      this.#marks.set(node, mark);
      const report = servers[this.#server];
      // What it said before it could know does not count, nor what a dead node said last.
      if (record === null || since === undefined || !hasGrown || at - since < this.#waitMs) continue;
      const claims = report?.role === "owner" && report.token !== null && report.token < record.token;
      // Once may have been on the line since before: what was sent to a store that was cut off arrives when it is back.
      if (claims && this.#claimants.has(node))
        this.claims.add(`${node} said with token ${report.token} that it owns, beside ${record.token}`);
      if (claims) this.#claimants.add(node);
      else this.#claimants.delete(node);
    }
  }

  async #readHistory(): Promise<void> {
    const { documents, output } = this.#session;
    this.#historyAt = systemClock.monotonic();
    for (const entry of await documents.history()) {
      if (this.#known.has(keyOf(entry))) continue;
      this.#known.add(keyOf(entry));
      if (entry.server !== null && entry.server !== this.#server) continue;
      this.news.push(entry);
      if (entry.what !== "saw") output.note(formatStep(output, entry));
    }
  }
}

const keyOf = ({ node, number }: HistoryEntry) => `${node} ${number}`;

/** Whether its owner reports everything online under the token that stands in the store. */
export function isOnlineNow({ record, reports, definition }: DrillLook, server: string): boolean {
  if (record === null || record.node === null || definition === null) return false;
  const report = reports.get(record.node)?.servers[server];
  if (report === undefined || report.role !== "owner" || report.token !== record.token) return false;
  return definition.resources.every(({ name }) => report.resources[name]?.phase === "online");
}

/** What a drill must leave as it was, and what it is judged by. */
export function momentOf(look: DrillLook, server: string): DrillMoment {
  const { record, reports, definition, members, up } = look;
  const report = record?.node == null ? undefined : reports.get(record.node)?.servers[server];
  const now = systemClock.now();
  const named = (isMeant: (member: ClusterMember) => boolean) =>
    [...members.values()]
      .filter(isMeant)
      .map(({ node }) => node)
      .sort();
  return {
    owner: record?.node ?? null,
    token: record?.token ?? null,
    online: Object.fromEntries(
      (definition?.resources ?? []).map(({ name }) => [name, report?.resources[name]?.phase === "online"]),
    ),
    configHashes: Object.fromEntries(
      [...reports.values()]
        .filter(({ node }) => up.has(node))
        .map(({ node, configHashes }) => [node, configHashes[server] ?? null]),
    ),
    settings: report?.settings?.number ?? null,
    paused: named(({ isPaused }) => isPaused),
    keptOut: named(({ quarantinedUntil }) => (quarantinedUntil ?? 0) > now),
    wanted: definition?.wanted ?? "gone",
  };
}

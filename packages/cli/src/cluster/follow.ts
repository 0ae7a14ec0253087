import type {
  ClusterOrder,
  HistoryEntry,
  LeaseRecord,
  ServerReport,
  VirtualServerDefinition,
} from "@lockstep/core";
import { printable, systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { ClusterSession } from "../commands/cluster-session.ts";
import { formatStep } from "./history-text.ts";

/** What one virtual server does at the moment, as far as following it goes. */
export interface ServerMoment {
  readonly definition: VirtualServerDefinition | null;
  readonly record: LeaseRecord | null;
  /** What its owner says of it, once that is about this token. */
  readonly report: ServerReport | null;
  /** The number of the newest order that was carried out or given up. */
  readonly lastOrder: number;
  /** The newest order that was given. */
  readonly order: ClusterOrder | null;
  /** Written since the following began, the oldest first. */
  readonly news: readonly HistoryEntry[];
}

export interface FollowOptions {
  readonly server: string;
  /** Returns true when the wanted state is there; throws when it will not come. */
  readonly isDone: (moment: ServerMoment) => boolean;
  readonly timeoutMs: number;
  /** What is waited for, in words: "ORDERS is online on beta". */
  readonly goal: string;
  /** Whether the history tells all of it that whoever follows makes use of; else it is not waited for. */
  readonly isTold?: (moment: ServerMoment) => boolean;
}

const LOOK_MS = 150;
/** Nodes write the history beside their reports, and either may come first. */
const TOLD_MS = 10_000;

/**
 * Follows one virtual server until it is where it should be, and tells each step as the nodes write it down. Throws
 * CLUSTER_NOT_REACHED after the time limit; INTERRUPTED on Ctrl-C. What was ordered stands in both cases.
 */
export class Follower {
  readonly #session: ClusterSession;
  readonly #known: Set<string>;

  private constructor(session: ClusterSession, known: Set<string>) {
    this.#session = session;
    this.#known = known;
  }

  /** Begins before something is ordered, so that no step of it is missed. */
  static async begin(session: ClusterSession, server: string): Promise<Follower> {
    const entries = await session.documents.history(server);
    return new Follower(session, new Set(entries.map(keyOf)));
  }

  /** How it stands, before anything is ordered: nothing is followed, and nothing is told. */
  async now(server: string): Promise<ServerMoment> {
    return await this.#look(server, []);
  }

  async until(options: FollowOptions): Promise<ServerMoment> {
    const { server, isDone, timeoutMs, goal } = options;
    const { signal, output } = this.#session;
    const until = systemClock.monotonic() + timeoutMs;
    const news: HistoryEntry[] = [];
    for (;;) {
      await this.#hear(server, news);
      const moment = await this.#look(server, news);
      if (isDone(moment)) {
        await this.#untilTold(options, moment, news);
        return moment;
      }
      if (systemClock.monotonic() >= until)
        throw new LockstepError("CLUSTER_NOT_REACHED", `${goal} was not reached in time`, {
          expected: goal,
          found: describe(moment),
          hint: "What was ordered stands. lockstep cluster status and history show how it goes on.",
        });
      await systemClock.sleep(LOOK_MS, signal);
      if (signal.aborted) {
        output.note(`what was ordered stands: ${printable(goal)}`);
        throw signal.reason;
      }
    }
  }

  /** What was ordered is done; for what is written of it later than the report, a while. */
  async #untilTold({ server, isTold }: FollowOptions, moment: ServerMoment, news: HistoryEntry[]) {
    const { signal } = this.#session;
    const until = systemClock.monotonic() + TOLD_MS;
    while (isTold?.(moment) === false && systemClock.monotonic() < until && !signal.aborted) {
      await systemClock.sleep(LOOK_MS, signal);
      await this.#hear(server, news);
    }
  }

  async #hear(server: string, news: HistoryEntry[]): Promise<void> {
    const { documents, output } = this.#session;
    for (const entry of await documents.history(server)) {
      if (this.#known.has(keyOf(entry))) continue;
      this.#known.add(keyOf(entry));
      news.push(entry);
      // What nodes saw is for the history; each step is told by the one that took it.
      if (entry.what !== "saw") output.note(formatStep(output, entry));
    }
  }

  async #look(server: string, news: readonly HistoryEntry[]): Promise<ServerMoment> {
    const { api, coordination, documents } = this.#session;
    const [definition, { record }, reports, failover, order] = await Promise.all([
      documents.read(api.at(api.SERVERS, server)),
      coordination.read(server),
      documents.reports(),
      documents.read(api.at(api.FAILOVERS, server)),
      documents.read(api.at(api.ORDERS, server)),
    ]);
    const report = record?.node == null ? undefined : reports.found.get(record.node)?.servers[server];
    return {
      definition,
      record,
      report: report !== undefined && report.token === record?.token ? report : null,
      lastOrder: failover?.lastOrder ?? 0,
      order,
      news,
    };
  }
}

const keyOf = ({ node, number }: HistoryEntry) => `${node} ${number}`;

/** Every resource online, by the words of the owner that the store names. */
export function isOnline({ definition, report }: ServerMoment): boolean {
  if (definition === null || report === null || report.role !== "owner") return false;
  return definition.resources.every(({ name }) => report.resources[name]?.phase === "online");
}

export const isOffline = ({ record }: ServerMoment): boolean => record === null || record.node === null;

/** Resources that failed, with what was found. */
export function failuresOf({ report }: ServerMoment): string[] {
  return Object.entries(report?.resources ?? {})
    .filter(([, { phase }]) => phase === "failed")
    .map(([name, { problem }]) => `[${name}] ${problem ?? "failed"}`);
}

/** Who owns it and what its resources do, in words. */
export function describe(moment: ServerMoment): string {
  const { record, report } = moment;
  if (record === null || record.node === null) return "nobody owns it";
  if (report === null) return `${record.node} owns it and has not reported yet`;
  const phases = Object.entries(report.resources).map(
    ([name, { phase, problem }]) => `[${name}] ${phase}${problem === null ? "" : ` (${problem})`}`,
  );
  return `on ${record.node}: ${phases.join(", ") || report.role}`;
}

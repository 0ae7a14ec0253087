import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type ClusterMember, judgeQuarantine } from "@lockstep/core";
import type { Clock, Logger } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import { at, MEMBERS, REPORTS } from "../documents/addresses.ts";
import type { ClusterDocuments } from "../documents/cluster-documents.ts";
import type { ClusterMirror } from "./cluster-mirror.ts";
import type { HistoryNews } from "./history-log.ts";

/**
 * Which nodes dropped out without saying so. Whoever takes a virtual server from a node that was lost writes it down, and
 * so does a daemon that finds that its own former life did not end in order; several for one fall are one. Three within
 * an hour, and the node is kept out for two (core/placement-quarantine.ts).
 */
export interface ExitBookOptions {
  readonly node: string;
  readonly directory: string;
  readonly documents: ClusterDocuments;
  readonly mirror: ClusterMirror;
  readonly clock: Clock;
  readonly log: Logger;
  readonly note: (news: HistoryNews) => void;
}

/** Two reports of a fall that lie closer together are of the same one; the clocks of two machines may differ. */
const SAME_FALL_MS = 20_000;
const EXITS_KEPT = 20;
const RETRY_MS = 1_000;

export class ExitBook {
  readonly #options: ExitBookOptions;
  readonly #marker: string;
  readonly #ending = new AbortController();
  readonly #tasks = new Set<Promise<void>>();

  constructor(options: ExitBookOptions) {
    this.#options = options;
    this.#marker = join(options.directory, "running");
  }

  /** This daemon begins: looks whether the one before it ended in order. */
  async begin(): Promise<void> {
    const { node, documents, directory, clock } = this.#options;
    const before = await readFile(this.#marker, "utf8").catch(() => null);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await writeFile(this.#marker, "This daemon runs, or did not end in order.\n", { mode: 0o600 });
    if (before === null) return;
    // When it fell it had just said that it was there; by its own clock, which is ours. Read before we say so ourselves.
    const last = await documents.read(at(REPORTS, node)).catch((error: unknown) => {
      if (!isLockstepError(error)) throw error;
      return null;
    });
    this.#inBackground(node, last?.at ?? clock.now(), "its daemon did not end in order");
  }

  /** We took a virtual server that its owner had not given back, nor said anything of for `silentMs`. */
  lost(owner: string, server: string, silentMs: number): void {
    // When it fell, not when we took: what lies in between is as long as the lease is waited for.
    const fell = Math.round(this.#options.clock.now() - silentMs);
    this.#inBackground(owner, fell, `it was lost as owner of ${server}`);
  }

  /** This daemon ends in order. */
  async close(): Promise<void> {
    this.#ending.abort();
    await Promise.all(this.#tasks);
    await rm(this.#marker, { force: true });
  }

  /** `isRepeated`: it may stand there already, by a write of ours whose answer was lost. */
  async #record(node: string, fell: number, why: string, isRepeated: boolean): Promise<void> {
    const { documents, mirror, clock, note } = this.#options;
    const { members, cluster } = mirror;
    const others = [...members.values()].filter((each) => each.node !== node);
    const outNow = others.filter(({ quarantinedUntil }) => (quarantinedUntil ?? 0) > clock.now()).length;
    const judge = (exits: readonly number[]) =>
      judgeQuarantine(exits, clock.now(), members.size, outNow, cluster?.quarantine);
    let news: { readonly until: number | null } | null = null;
    await documents.change(at(MEMBERS, node), (present): ClusterMember | null => {
      news = null;
      if (isRepeated && present?.exits.includes(fell) === true) {
        const isOut = judge(present.exits) !== null;
        news = { until: isOut ? present.quarantinedUntil : null };
        return present;
      }
      if (present === null || present.exits.some((each) => Math.abs(each - fell) < SAME_FALL_MS))
        return present;
      const exits = [...present.exits, fell].slice(-EXITS_KEPT);
      const until = judge(exits);
      news = { until };
      return { ...present, exits, quarantinedUntil: until ?? present.quarantinedUntil };
    });
    const { until } = news ?? { until: undefined };
    if (until === undefined) return;
    note({ server: null, token: null, what: "node-exit", detail: `${node} dropped out: ${why}` });
    if (until !== null) {
      const detail = `${node} dropped out too often and is kept out until ${new Date(until).toISOString()}`;
      note({ server: null, token: null, what: "quarantined", detail });
    }
    mirror.refresh();
  }

  /** Until the store has taken it. */
  #inBackground(node: string, fell: number, why: string): void {
    const { clock, log } = this.#options;
    const task = (async () => {
      for (let isRepeated = false; !this.#ending.signal.aborted; ) {
        try {
          // Without the cluster's definition nobody knows how often is too often.
          if (this.#options.mirror.isReady) return await this.#record(node, fell, why, isRepeated);
        } catch (error) {
          if (!isLockstepError(error)) throw error;
          isRepeated = true;
          log.debug("an exit could not be written down", { error });
        }
        await clock.sleep(RETRY_MS, this.#ending.signal);
      }
    })();
    this.#tasks.add(task);
    void task.finally(() => this.#tasks.delete(task));
  }
}

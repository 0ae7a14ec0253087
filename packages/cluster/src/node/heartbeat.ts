import {
  lookAtReports,
  type NodeReport,
  type ServerReport,
  startView,
  type VirtualServerDefinition,
} from "@lockstep/core";
import type { Clock, Logger } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import type { Documents } from "../coordination/documents.ts";
import type { ClusterMirror } from "./cluster-mirror.ts";
import type { HistoryNews } from "./history-log.ts";
import { InstalledFiles, type InstalledState } from "./installed-state.ts";
import { Measurements } from "./measurements.ts";
import { OwnReport } from "./own-report.ts";

/**
 * Says with every beat that this node is there and what it has, and looks who else says so. A beat that the store does
 * not take is left out; the next one says the same and more.
 */
export interface HeartbeatOptions {
  readonly node: string;
  readonly instance: string;
  readonly version: string;
  /** Of the daemon, private. */
  readonly directory: string;
  readonly documents: Documents;
  readonly mirror: ClusterMirror;
  readonly clock: Clock;
  readonly log: Logger;
  readonly servers: () => Readonly<Record<string, ServerReport>>;
  readonly note: (news: HistoryNews) => void;
  /** There is something new to decide by. */
  readonly looked: () => void;
}

/** Where the cluster is not known yet. */
const BEAT_MS = 1_000;
const BEAT_MS_MIN = 100;
/** A node is silent for so many beats before it counts as down, and for the waiting time of the lease at least. */
const BEATS_MISSED = 5;
const LOOKS_TO_SETTLE = 4;
const INSTALLED_MS = 5_000;

export class Heartbeat {
  readonly #options: HeartbeatOptions;
  readonly #own: OwnReport;
  readonly #files: InstalledFiles;
  readonly #wake = new AbortController();
  #view = startView();
  #reports: ReadonlyMap<string, NodeReport> = new Map();
  #installed: InstalledState = { configHashes: {}, revisions: {} };
  #installedAt = Number.NEGATIVE_INFINITY;
  /** The definitions by which was looked last. */
  #installedOf: ReadonlyMap<string, VirtualServerDefinition> | null = null;
  readonly #measurements: Measurements;
  #beat = 0;
  #looks = 0;
  #isStoreAway = false;

  constructor(options: HeartbeatOptions) {
    this.#options = options;
    this.#own = new OwnReport(options.documents, options.node);
    this.#measurements = new Measurements(options.directory);
    this.#files = new InstalledFiles(options.clock, (path) => this.#tellHanging(path));
  }

  /** The nodes that are up as we see it, we ourselves always. */
  up(): ReadonlySet<string> {
    const others = [...this.#view.nodes].filter(([, { isUp }]) => isUp).map(([node]) => node);
    return new Set([this.#options.node, ...others]);
  }

  /**
   * Whether we have looked for long enough to know who is up: a node is seen to be up only when its beat grows. Who has
   * just begun would take what belongs to others.
   */
  get isSettled(): boolean {
    return this.#looks >= LOOKS_TO_SETTLE || this.up().size >= this.#options.mirror.members.size;
  }

  /** What each node said last; of ours what it would say now. */
  reports(): ReadonlyMap<string, NodeReport> {
    const { node } = this.#options;
    const own = this.#ownReport();
    return new Map([...this.#reports, [node, own]]);
  }

  /** How long something took here that the times of a lease must allow for. */
  measured(term: keyof NodeReport["measured"], ms: number): void {
    this.#measurements.add(term, ms);
  }

  /** Goes on until `end`. */
  async run(): Promise<void> {
    const { clock, log, note } = this.#options;
    const { signal } = this.#wake;
    while (!signal.aborted) {
      const began = clock.monotonic();
      try {
        await this.#once();
        if (this.#isStoreAway)
          note({ server: null, token: null, what: "store-back", detail: "it answers again" });
        this.#isStoreAway = false;
      } catch (error) {
        if (!isLockstepError(error)) throw error;
        if (!this.#isStoreAway) {
          log.warn("the store does not answer", { error });
          note({ server: null, token: null, what: "store-away", detail: `${error.code}: ${error.message}` });
        }
        this.#isStoreAway = true;
      }
      const planned = Math.max(0, this.#beatMs() - (clock.monotonic() - began));
      await clock.sleep(planned, signal);
    }
  }

  /** No further beat; `run` resolves when the present one is done. */
  end(): void {
    this.#wake.abort();
  }

  /** Takes the report away, if the store lets us: nobody need wait for us then. After `run` has resolved. */
  async leave(): Promise<void> {
    try {
      await this.#own.remove();
    } catch (error) {
      if (!isLockstepError(error)) throw error;
    }
  }

  async #once(): Promise<void> {
    const { clock, node, log, mirror, note, looked } = this.#options;
    await this.#lookAtFiles();
    this.#beat += 1;
    this.#measurements.beat();
    const began = clock.monotonic();
    const stranger = await this.#own.write(this.#ownReport());
    this.#measurements.add("callMs", clock.monotonic() - began);
    if (stranger !== null && this.#beat > 1)
      log.error("another daemon uses the name of this node", { node, instance: stranger.instance });
    this.#reports = await mirror.reports();
    const beatMs = this.#beatMs();
    const { view, changes } = lookAtReports(this.#view, this.#reports.values(), node, clock.monotonic(), {
      downMs: Math.max(mirror.cluster?.lease.waitMs ?? 0, BEATS_MISSED * beatMs),
      gapMs: 2 * beatMs,
    });
    this.#view = view;
    this.#looks += 1;
    for (const { node: other, isUp } of changes) {
      if (other === node) continue;
      const what = isUp ? "node-up" : "node-down";
      note({ server: null, token: null, what, detail: `${other} ${isUp ? "is seen" : "is no longer seen"}` });
    }
    looked();
  }

  async #lookAtFiles(): Promise<void> {
    const { clock, mirror } = this.#options;
    const servers: ReadonlyMap<string, VirtualServerDefinition> = mirror.servers;
    // Also one that was removed and defined anew says something else now, and somebody waits for what is there.
    const isSame = servers === this.#installedOf;
    if (isSame && clock.monotonic() - this.#installedAt < INSTALLED_MS) return;
    this.#installed = await this.#files.look(servers.values());
    this.#installedOf = servers;
    if (!this.#files.isWaiting) this.#installedAt = clock.monotonic();
  }

  #tellHanging(path: string): void {
    const { log, note } = this.#options;
    log.error("a file does not answer: is its volume there?", { path });
    note({ server: null, token: null, what: "file-hangs", detail: `${path} does not answer` });
  }

  #ownReport(): NodeReport {
    const { node, instance, version, clock, servers } = this.#options;
    return {
      ...{ node, instance, version, beat: this.#beat, measured: this.#measurements.values },
      ...this.#installed,
      servers: servers(),
      at: clock.now(),
    };
  }

  #beatMs(): number {
    const waitMs = this.#options.mirror.cluster?.lease.waitMs;
    return waitMs === undefined ? BEAT_MS : Math.min(BEAT_MS, Math.max(BEAT_MS_MIN, waitMs / 4));
  }
}

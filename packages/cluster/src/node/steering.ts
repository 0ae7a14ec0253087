import {
  type ClusterDecision,
  type Commitment,
  decideCluster,
  type FailoverRecord,
  type FailoverVerdict,
  faultOfExclusion,
  joinRefusals,
  judgeFailover,
  type OrderClaim,
  type ServerDecision,
  type VirtualServerDefinition,
  withFault,
} from "@lockstep/core";
import type { Clock, Logger } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import { at, FAILOVERS } from "../documents/addresses.ts";
import type { ClusterDocuments } from "../documents/cluster-documents.ts";
import type { FailoverQuestion } from "../host/host-types.ts";
import type { ClusterMirror } from "./cluster-mirror.ts";
import type { Heartbeat } from "./heartbeat.ts";
import type { HistoryNews } from "./history-log.ts";
import type { HostedServers } from "./hosted-servers.ts";
import { Readiness } from "./readiness.ts";

/**
 * Carries out what core/cluster-decision.ts decides: wishes go to the hosts, orders are claimed before they are followed,
 * and a resource that asks for a failover is answered.
 */
export interface SteeringOptions {
  readonly node: string;
  readonly instance: string;
  readonly documents: ClusterDocuments;
  readonly mirror: Pick<
    ClusterMirror,
    | "isReady"
    | "cluster"
    | "members"
    | "servers"
    | "orders"
    | "failovers"
    | "readiness"
    | "leases"
    | "lease"
    | "refresh"
  >;
  readonly heartbeat: Pick<Heartbeat, "isSettled" | "up" | "reports">;
  readonly servers: Pick<
    HostedServers,
    "define" | "keepOnly" | "isKnown" | "prepare" | "wish" | "stay" | "retry"
  >;
  readonly clock: Clock;
  readonly log: Logger;
  readonly note: (news: HistoryNews) => void;
}

/** For so long a virtual server that failed here tries elsewhere first. */
const FAILED_HERE_MS = 60_000;
const MINUTE_MS = 60_000;
/** How long another node may take to say that it is ready, besides two calls to the store. */
const READY_MS = 6_000;
/** The same where nothing is served any more: whoever hangs is passed over. */
const READY_WHILE_DOWN_MS = 1_000;
/** Where no other node was ready it is asked again after this, then after twice as long, and so on up to the last. */
const ASK_AGAIN_MS = { first: 15_000, last: 15 * 60_000 } as const;
/** A failback to a node that was not ready is tried again after this. */
const NOT_READY_MS = 60_000;
/** How long a daemon that is asked waits until it has learned what there is. */
const KNOWN_MS = 4_000;
const KNOWN_AGAIN_MS = 50;
/** An order that could not be claimed is tried again after this. */
const CLAIM_AGAIN_MS = 1_000;

export class Steering {
  readonly #options: SteeringOptions;
  readonly #commitments = new Map<string, Commitment>();
  readonly #failedHere = new Map<string, number>();
  /** The order that was seen last for each virtual server. */
  readonly #ordered = new Map<string, number>();
  /** The failure because of which something is to leave. */
  readonly #leftFor = new Map<string, FailoverQuestion>();
  readonly #claiming = new Set<string>();
  readonly #told = new Map<string, string>();
  readonly #readiness: Readiness;
  /** Virtual servers for which another node is being asked whether it is ready. */
  readonly #asking = new Set<string>();
  /** Until when no failback is tried, by our own clock. */
  readonly #notReady = new Map<string, number>();
  /** By virtual server: the term that nobody could take over, and after what pause it is asked about next. */
  readonly #askAgain = new Map<string, { readonly token: number; readonly pauseMs: number }>();
  /** Free virtual servers that were to be taken at once, and the revision at which they were seen to be free. */
  readonly #taking = new Map<string, number>();
  /** Orders of which it is not known whether our claim was written. */
  readonly #unsure = new Map<string, number>();
  #isPlanned = false;
  #isEnded = false;

  constructor(options: SteeringOptions) {
    this.#options = options;
    this.#readiness = new Readiness({ ...options, prepare: (server) => this.#prepare(server) });
  }

  /** Something changed. Many changes at once are one decision. */
  request(): void {
    if (this.#isPlanned || this.#isEnded) return;
    this.#isPlanned = true;
    setImmediate(() => {
      this.#isPlanned = false;
      this.#steer();
    });
  }

  /** Nothing is decided any more. */
  end(): void {
    this.#isEnded = true;
  }

  #steer(): void {
    const { mirror, servers } = this.#options;
    const decision = this.#decide();
    if (decision === null || this.#isEnded) return;
    this.#readiness.look();
    servers.keepOnly(new Set(mirror.servers.keys()));
    for (const definition of mirror.servers.values()) {
      const one = decision.servers.get(definition.name);
      if (one !== undefined) this.#follow(definition, one, decision.automatic);
    }
    this.#tellOfUs(decision);
  }

  #decide(): ClusterDecision | null {
    const { node, instance, mirror, heartbeat, clock } = this.#options;
    const { cluster, members, servers, orders } = mirror;
    if (cluster === null || !mirror.isReady || !heartbeat.isSettled) return null;
    for (const [name, until] of this.#failedHere)
      if (clock.monotonic() >= until) this.#failedHere.delete(name);
    for (const [name, { number, to }] of orders) {
      // Whoever orders it here, or wherever it can be, wants it tried here once more.
      if ((to === node || to === null) && number !== this.#ordered.get(name)) this.#failedHere.delete(name);
      this.#ordered.set(name, number);
    }
    return decideCluster({
      ...{ node, instance, cluster, members, servers, orders, failovers: this.#failovers() },
      now: clock.now(),
      hour: new Date(clock.now()).getHours(),
      up: heartbeat.up(),
      reports: heartbeat.reports(),
      leases: mirror.leases(),
      taking: new Set(
        [...this.#taking].filter(([name, at]) => at === this.#revisionOf(name)).map(([name]) => name),
      ),
      commitments: this.#commitments,
      failedHere: new Set(this.#failedHere.keys()),
    });
  }

  /** As far as they are decided by: an order that we may have claimed is ours to look at once more. */
  #failovers(): ReadonlyMap<string, FailoverRecord> {
    const { orders, failovers } = this.#options.mirror;
    const seen = new Map(failovers);
    for (const [name, number] of this.#unsure) {
      const record = seen.get(name);
      if (orders.get(name)?.number !== number) this.#unsure.delete(name);
      else if (record?.lastOrder === number) seen.set(name, { ...record, lastOrder: number - 1 });
    }
    return seen;
  }

  #follow(definition: VirtualServerDefinition, decision: ServerDecision, automatic: boolean): void {
    const { node, mirror, servers } = this.#options;
    const { name, lease } = definition;
    const { cluster, members } = mirror;
    if (cluster === null) return;
    const record = mirror.lease(name).present?.record ?? null;
    servers.define(definition, {
      times: lease ?? cluster.lease,
      members: [...members.keys()].filter((each) => each !== node).sort(),
      automatic,
      isFree: record === null || record.node === null,
      isOurs: record?.node === node,
    });
    servers.wish(name, decision.wish);
    const { wish } = decision;
    const revision = this.#revisionOf(name);
    // Also where another one comes first by now: the swap may be under way.
    const isGoneFor = wish.kind === "take" && (wish.delayMs === 0 || this.#taking.get(name) === revision);
    if (isGoneFor && record?.node == null) this.#taking.set(name, revision);
    else this.#taking.delete(name);
    if (decision.isCommitmentDone && this.#commitments.delete(name)) this.#committed(name);
    if (decision.claim !== null) void this.#claim(name, decision.claim);
    else if (decision.failback !== null) void this.#failBack(name, decision.failback);
  }

  /** A commitment has ended. A failure that is still waiting (the record was seen too late) is not forgotten by that. */
  #committed(name: string): void {
    const question = this.#leftFor.get(name);
    this.#leftFor.delete(name);
    if (question?.isOpen() === true)
      this.#options.servers.stay(name, this.#pauseToAskAgain(name, question.token));
    this.request();
  }

  async #failBack(name: string, next: string): Promise<void> {
    const { clock, note } = this.#options;
    if (this.#commitments.has(name) || this.#asking.has(name)) return;
    if (clock.monotonic() < (this.#notReady.get(name) ?? 0)) return;
    const problem = await this.#askReady(name, next, READY_MS);
    if (problem === null) this.#commitments.set(name, { kind: "leave", next });
    else this.#notReady.set(name, clock.monotonic() + NOT_READY_MS);
    const detail = problem === null ? `goes back to ${next}` : `stays for now: ${problem}`;
    note({ ...this.#about(name), what: "failback", detail });
    this.request();
  }

  /** Null: ready. Whoever owned it when it was asked for may no longer be the owner then; a commitment lapses so. */
  async #askReady(name: string, next: string, limitMs: number): Promise<string | null> {
    const { mirror } = this.#options;
    const { callMs } = mirror.servers.get(name)?.lease ?? mirror.cluster?.lease ?? { callMs: 0 };
    this.#asking.add(name);
    try {
      return await this.#readiness.ask(name, next, limitMs + 2 * callMs);
    } finally {
      this.#asking.delete(name);
    }
  }

  /** What another node that is about to leave should know of this one. */
  async #prepare(name: string): Promise<string | null> {
    const { node, servers, clock } = this.#options;
    // A daemon that has just begun has yet to learn what there is.
    for (
      const until = clock.monotonic() + KNOWN_MS;
      !servers.isKnown(name);
      await clock.sleep(KNOWN_AGAIN_MS)
    )
      if (clock.monotonic() > until || this.#isEnded) break;
    const { ofOwner, rejected } = this.#decide()?.servers.get(name)?.succession ?? {};
    const own = (ofOwner?.rejected ?? rejected ?? []).find((each) => each.node === node);
    return own === undefined ? await servers.prepare(name) : withFault(own.detail, faultOfExclusion(own.why));
  }

  /** Writes down that an order is being carried out, and only then begins: who dies meanwhile has given it up. */
  async #claim(name: string, claim: OrderClaim): Promise<void> {
    const { documents, mirror, log, clock, instance } = this.#options;
    const { number } = claim;
    if (this.#claiming.has(name)) return;
    this.#claiming.add(name);
    try {
      let isOurs = false;
      this.#unsure.set(name, number);
      await documents.change(at(FAILOVERS, name), (present) => {
        isOurs = number > (present?.lastOrder ?? 0);
        if (isOurs) return { at: present?.at ?? [], lastOrder: number, claimedBy: instance };
        // Written by us, and the answer was lost.
        isOurs = number === present?.lastOrder && present.claimedBy === instance;
        return present;
      });
      this.#unsure.delete(name);
      if (isOurs) await this.#carryOut(name, claim);
    } catch (error) {
      if (!isLockstepError(error)) throw error;
      log.warn("an order could not be claimed", { server: name, error });
      // A store that refuses connections does so at once.
      await clock.sleep(CLAIM_AGAIN_MS);
    } finally {
      this.#claiming.delete(name);
    }
    mirror.refresh();
    this.request();
  }

  /** An order that was claimed: the owner leaves only when whoever comes next is ready. */
  async #carryOut(name: string, { commitment, triesAgain, outcome }: OrderClaim): Promise<void> {
    const { note, servers } = this.#options;
    const next = commitment?.kind === "leave" ? commitment.next : null;
    // `order 3 (move): …`, whatever becomes of it.
    const order = outcome.slice(0, outcome.indexOf(":"));
    const tell = (detail: string) => note({ ...this.#about(name), what: "order", detail });
    const refusals: string[] = [];
    for (const node of next === null ? [] : this.#targets(name, next)) {
      const problem = await this.#askReady(name, node, READY_MS);
      if (problem === null) {
        tell(node === next ? outcome : `${order}: moves to ${node}; ${joinRefusals(refusals)}`);
        this.#commitments.set(name, { kind: "leave", next: node });
        return;
      }
      refusals.push(problem);
    }
    tell(refusals.length > 0 ? `${order}: given up: ${joinRefusals(refusals)}` : outcome);
    if (triesAgain || refusals.length > 0) servers.retry(name);
    else if (commitment !== null) this.#commitments.set(name, commitment);
  }

  /** An order that names no node may end on any that can own it, the best first. */
  #targets(name: string, first: string): readonly string[] {
    const { node, mirror } = this.#options;
    if (mirror.orders.get(name)?.to !== null) return [first];
    const ofOwner = this.#decide()?.servers.get(name)?.succession.ofOwner ?? null;
    const others = (ofOwner?.candidates ?? []).map((each) => each.node);
    return [first, ...others.filter((each) => each !== first && each !== node)];
  }

  /**
   * Restarts in place are used up: leave to another node, or stay. Much of this takes seconds, and what was asked may be
   * settled meanwhile: then the answer is about nothing any more.
   */
  async failoverWanted(
    name: string,
    resource: string | null,
    problem: string,
    question: FailoverQuestion,
  ): Promise<void> {
    const { clock, mirror, servers, note } = this.#options;
    const what = resource === null ? `it could not come online: ${problem}` : `[${resource}]: ${problem}`;
    const stay = (why: string, askAgainMs: number | null = null) => {
      if (!question.isOpen()) return;
      note({ ...this.#about(name), what: "stays", detail: `${what}; ${why}` });
      servers.stay(name, askAgainMs);
    };
    const definition = mirror.servers.get(name);
    if (definition === undefined || definition.inMaintenance)
      return stay("it is in maintenance", this.#pauseToAskAgain(name, question.token));
    const { next, refusal } = await this.#findNext(name, question);
    if (next === null) return stay(refusal, this.#pauseToAskAgain(name, question.token));
    let verdict: FailoverVerdict | null;
    try {
      verdict = await this.#countFailover(definition, question);
    } catch (error) {
      if (!isLockstepError(error)) throw error;
      const pauseMs = this.#pauseToAskAgain(name, question.token);
      return stay(`the store does not say how often it failed over (${error.code})`, pauseMs);
    }
    if (verdict === null || !question.isOpen()) return;
    const { threshold } = verdict;
    const { periodMs } = definition.failover;
    if (!verdict.allowed)
      return stay(
        `it failed over ${threshold === 1 ? "once" : `${threshold} times`} within ${periodMs / MINUTE_MS} minutes`,
      );
    note({ ...this.#about(name), what: "failover", detail: `${what}; goes to ${next}` });
    this.#askAgain.delete(name);
    this.#failedHere.set(name, clock.monotonic() + FAILED_HERE_MS);
    this.#leftFor.set(name, question);
    this.#commitments.set(name, { kind: "leave", next, ofToken: question.token });
    this.request();
  }

  /**
   * Who takes over what is down here already: the first that says at once that it is ready. Where none does they are asked
   * once more with patience, because whoever is slow is better than nobody.
   */
  async #findNext(
    name: string,
    question: FailoverQuestion,
  ): Promise<{ readonly next: string | null; readonly refusal: string }> {
    let refusals: string[] = [];
    for (const limitMs of [READY_WHILE_DOWN_MS, READY_MS]) {
      const candidates = this.#decide()?.servers.get(name)?.succession.candidates ?? [];
      const others = candidates.filter((each) => each.node !== this.#options.node);
      if (others.length === 0) return { next: null, refusal: "no other node can own it" };
      refusals = [];
      for (const { node } of others) {
        if (!question.isOpen()) break;
        const unready = await this.#askReady(name, node, limitMs);
        if (unready === null) return { next: node, refusal: "" };
        refusals.push(unready);
      }
    }
    return { next: null, refusal: `no other node is ready: ${joinRefusals(refusals)}` };
  }

  /** Writes down that it fails over now, where that is allowed. Null: nobody asks any more, and nothing was written. */
  async #countFailover(
    { name, failover }: VirtualServerDefinition,
    question: FailoverQuestion,
  ): Promise<FailoverVerdict | null> {
    const { documents, clock, mirror } = this.#options;
    let verdict: FailoverVerdict | null = null;
    await documents.change(at(FAILOVERS, name), (present) => {
      verdict = null;
      if (!question.isOpen()) return present;
      const judged = judgeFailover(present?.at ?? [], clock.now(), failover, mirror.members.size);
      verdict = judged;
      if (!judged.allowed) return present;
      return {
        at: judged.history,
        lastOrder: present?.lastOrder ?? 0,
        claimedBy: present?.claimedBy ?? null,
      };
    });
    return verdict;
  }

  #pauseToAskAgain(name: string, token: number): number {
    const former = this.#askAgain.get(name);
    const { first, last } = ASK_AGAIN_MS;
    const pauseMs = former?.token === token ? Math.min(last, former.pauseMs * 2) : first;
    this.#askAgain.set(name, { token, pauseMs });
    return pauseMs;
  }

  /** What administrators should learn from the history, once each time that it changes. */
  #tellOfUs({ automatic, advice, servers }: ClusterDecision): void {
    const { node, mirror, clock, note } = this.#options;
    const member = mirror.members.get(node);
    const isOut = (member?.quarantinedUntil ?? 0) > clock.now();
    const tell = (about: string, state: string, server: string | null, what: string, detail: string) => {
      const before = this.#told.get(about);
      this.#told.set(about, state);
      if (before !== state && (before !== undefined || state !== ""))
        note({ server, token: null, what, detail });
    };
    if (member !== undefined) {
      tell("pause", member.isPaused ? "paused" : "", null, member.isPaused ? "paused" : "resumed", node);
      tell("quarantine", isOut ? "out" : "", null, isOut ? "quarantined" : "released", node);
    }
    const votes = automatic
      ? "a lost owner is replaced automatically"
      : `a lost owner is replaced on demand only: ${advice}`;
    tell("votes", automatic ? "" : (advice ?? ""), null, "votes", votes);
    for (const [name, { succession }] of servers) {
      const own = succession.rejected.find((each) => each.node === node && each.why === "config-differs");
      const detail = own === undefined ? `${node} has the cluster's configuration` : `${node}: ${own.detail}`;
      tell(
        `config ${name}`,
        own?.detail ?? "",
        name,
        own === undefined ? "config-equal" : "config-differs",
        detail,
      );
    }
  }

  #revisionOf(name: string): number {
    return this.#options.mirror.lease(name).present?.revision ?? 0;
  }

  #about(server: string): Pick<HistoryNews, "server" | "token"> {
    return { server, token: this.#options.mirror.lease(server).present?.record?.token ?? null };
  }
}

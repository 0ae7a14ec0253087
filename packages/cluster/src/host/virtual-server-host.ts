import { join } from "node:path";
import {
  type LeaseEvent,
  type LeaseWish,
  nextVirtualServerWake,
  type ResourceDefinition,
  type ServerReport,
  startVirtualServer,
  statusOf,
  stepVirtualServer,
  type VirtualServerDefinition,
  type VirtualServerEffect,
  type VirtualServerEvent,
  type VirtualServerOptions,
  type VirtualServerState,
} from "@lockstep/core";
import type { ProcessIdentity } from "@lockstep/platform";
import { bootClock } from "../boot-clock.ts";
import type { Guard } from "../guard/guard-client.ts";
import type { FromGuard } from "../guard/messages.ts";
import { LeaseDriver, type LeaseTuning } from "../lease-driver.ts";
import type { UndoCommand } from "../resources/resource.ts";
import { isSameThing, leavesUntouched } from "./definition-change.ts";
import { endFormerLife, formerGuards, lifeEntry, noteGuard } from "./former-life.ts";
import type { HostedServer, Term, VirtualServerHostOptions } from "./host-types.ts";
import { leaseNote } from "./lease-note.ts";
import { prepareHere } from "./prepared.ts";
import { openResource } from "./resource-opening.ts";
import { problemOf, type Report, ResourceSlot } from "./resource-slot.ts";
import { ServiceDesk } from "./service-desk.ts";
import { isSettledWithin, within } from "./time-limit.ts";

/**
 * One virtual server on one node: the lease says whether, core says what next, the guard sees to the end, and the
 * resources do it.
 *
 * Nothing here waits for a resource: each has a slot of its own (resource-slot.ts), and what it reports becomes an event.
 * What must happen although everything hangs is the guard's: it knows how to undo a resource before the resource is
 * touched.
 */
const BEFORE_ONLINE_MS = 60_000;
const AFTER_OFFLINE_MS = 10_000;
/** After `stay`: when what had to happen before anything came online is tried again. */
const RETRY_MS = 30_000;
/** What does not end by itself when everything else is offline is left to the guard. */
const LEAVE_MS = 3_000;
const CLEAN_MS = 15_000;
const CLOSE_MS = 60_000;
const GIVE_BACK_MS = 3_000;

export class VirtualServerHost implements HostedServer {
  readonly #options: VirtualServerHostOptions;
  readonly #now = bootClock();
  readonly #desk: ServiceDesk;
  readonly #driver: LeaseDriver;
  #definition: VirtualServerDefinition;
  #state: VirtualServerState;
  #policies: VirtualServerOptions = new Map();
  readonly #slots = new Map<string, ResourceSlot>();
  readonly #problems = new Map<string, string>();
  readonly #guardReady = Promise.withResolvers<void>();
  readonly #touching = new Map<string, (may: boolean) => void>();
  #term: Term | null = null;
  #wished: LeaseWish | null = null;
  /** Something of a former term does not end: nothing may begin here. */
  #isBlocked = false;
  /** What the definition is to be once everything is offline. */
  #redefinition: VirtualServerDefinition | null = null;
  #guardPid: number | undefined;
  #failoversAsked = 0;
  #wake: NodeJS.Timeout | undefined;
  #retry: NodeJS.Timeout | undefined;
  #closing: {
    readonly ended: PromiseWithResolvers<void>;
    readonly givenBack: PromiseWithResolvers<void>;
  } | null = null;

  constructor(options: VirtualServerHostOptions) {
    const { definition, lease, coordination, coordinationConfig, guard, directory } = options;
    this.#options = options;
    this.#definition = definition;
    this.#state = startVirtualServer([]);
    this.#desk = new ServiceDesk({
      token: () => this.token(),
      tell: (message) => this.#driver.tell(message),
    });
    const guards = formerGuards(directory);
    this.#driver = new LeaseDriver({
      lease,
      coordination,
      guard: {
        virtualServer: definition.name,
        instance: lease.instance,
        coordination: coordinationConfig,
        watchdog: guard?.watchdog ?? null,
        priority: guard?.priority ?? null,
      },
      hooks: {
        start: (token) => this.#start(token),
        leave: (token) => this.#leave(token),
        stop: () => this.#stop(),
        heard: (message) => this.#heard(message),
        guarded: (started) => this.#guarded(started),
        changed: () => this.#changed(),
        measured: (term, ms) => options.listener.measured?.(term, ms),
        note: (note) => this.#note(note.what, leaseNote(note), note.token),
        send: (member, event) => options.listener.send?.(member, event),
      },
    });
    this.#adopt(definition);
    this.#sendWish();
    void this.#clean(guards);
  }

  /** Ends what a former life left. Until that is through nothing begins here, and somebody should know why. */
  async #clean(guards: readonly ProcessIdentity[]): Promise<void> {
    const late = setTimeout(() => this.#note("not-clean", "what a former life left does not end"), CLEAN_MS);
    await endFormerLife(this.#options.directory, guards);
    await Promise.all([...this.#slots.values()].map((slot) => slot.terminate()));
    clearTimeout(late);
    // A lease that is taken before the guard answers runs out unused, and everybody waits for it.
    await this.#guardReady.promise;
    this.#driver.cleaned();
  }

  wish(wish: LeaseWish): void {
    this.#wished = wish;
    this.#sendWish();
  }

  define(definition: VirtualServerDefinition): void {
    if (leavesUntouched(this.#definition, definition) || statusOf(this.#state) === "offline") {
      this.#redefinition = null;
      this.#adopt(definition);
      this.#apply({ kind: "tick" });
    } else {
      this.#redefinition = definition;
      this.#note("redefined", "a resource changed: everything goes offline and comes back");
      this.#apply({ kind: "take-offline" });
    }
    this.#sendWish();
  }

  tune(tuning: LeaseTuning): void {
    this.#driver.tune(tuning);
  }

  prepare(): Promise<string | null> {
    return prepareHere({
      clock: this.#options.clock,
      role: () => this.#driver.role.kind,
      isBlocked: () => this.#isBlocked,
      guardAnswers: () => this.#driver.guardAnswers(),
      belongings: async () => await this.#options.prepare?.(),
      slots: this.#slots,
    });
  }

  report(): ServerReport {
    const resources = [...this.#state.resources].map(
      ([name, { phase }]) => [name, { phase, problem: this.#problems.get(name) ?? null }] as const,
    );
    const role = this.#definition.isEnabled ? this.#driver.role.kind : "disabled";
    return { role, token: this.token(), resources: Object.fromEntries(resources) };
  }

  token(): number | null {
    return this.#driver.token();
  }

  maintenance(resource: string | null, on: boolean): void {
    for (const name of resource === null ? this.#slots.keys() : [resource])
      if (this.#slots.has(name)) this.#apply({ kind: "maintenance", resource: name, on });
  }

  stay(askAgainMs: number | null): void {
    const term = this.#term;
    const askAgain = () => this.#term === term && this.#apply({ kind: "ask-again" });
    clearTimeout(this.#retry);
    if (term?.isHeldBack === true) this.#retry = setTimeout(() => void this.#begin(term), RETRY_MS);
    else {
      this.#apply({ kind: "stay" });
      if (askAgainMs !== null) this.#retry = setTimeout(askAgain, askAgainMs);
    }
    this.#note("stays", "no failover: nowhere to go, or it happened too often");
  }

  retry(): void {
    const term = this.#term;
    if (term === null || term.isLeaving || !(term.isHeldBack || this.#state.wanted === "online")) return;
    clearTimeout(this.#retry);
    this.#note("tried-again", "somebody ordered it");
    if (term.isHeldBack) void this.#begin(term);
    else this.#apply({ kind: "bring-online" });
  }

  hear(event: LeaseEvent): void {
    this.#driver.hear(event);
  }

  async close(): Promise<void> {
    this.#closing ??= { ended: Promise.withResolvers(), givenBack: Promise.withResolvers() };
    this.#sendWish();
    this.#changed();
    await isSettledWithin(this.#closing.ended.promise, CLOSE_MS);
    // Where the store is away the others wait it out.
    await isSettledWithin(this.#closing.givenBack.promise, GIVE_BACK_MS);
    clearTimeout(this.#retry);
    // Whatever is left is the guard's.
    await this.#driver.close();
    this.#desk.allEnded();
    clearTimeout(this.#wake);
    for (const slot of this.#slots.values()) slot.retire();
  }

  // The lease.

  #sendWish(): void {
    const { isEnabled, wanted } = this.#definition;
    const mayOwn = isEnabled && wanted === "online" && !this.#isBlocked && this.#closing === null;
    if (!mayOwn) this.#driver.wish({ kind: "leave", next: null });
    else if (this.#wished !== null) this.#driver.wish(this.#wished);
  }

  #start(token: number): void {
    this.#term = { token, isLeaving: false, isStarted: false, isHeldBack: false };
    void this.#begin(this.#term);
  }

  async #begin(term: Term): Promise<void> {
    if (this.#term !== term || term.isLeaving) return;
    term.isHeldBack = false;
    try {
      await within(this.#options.beforeOnline(term.token), BEFORE_ONLINE_MS);
      if (this.#term !== term || term.isLeaving) return;
      this.#note("online-begins", "");
      this.#apply({ kind: "bring-online" });
    } catch (error) {
      if (this.#term !== term || term.isLeaving) return;
      term.isHeldBack = true;
      this.#note("held-back", problemOf(error));
      this.#askFailover(null, problemOf(error));
    }
  }

  #leave(token: number): void {
    this.#term ??= { token, isLeaving: true, isStarted: false, isHeldBack: false };
    this.#term.isLeaving = true;
    this.#note("offline-begins", "");
    this.#apply({ kind: "take-offline" });
  }

  #allOffline(): void {
    const term = this.#term;
    if (term !== null) this.#note("all-offline", "");
    if (term?.isLeaving === true) void this.#finishLeaving(term);
    else if (this.#redefinition !== null) {
      this.#adopt(this.#redefinition);
      this.#redefinition = null;
      if (term !== null) this.#apply({ kind: "bring-online" });
    }
  }

  async #finishLeaving(term: Term): Promise<void> {
    const settling = this.#settled();
    const isSettled = await isSettledWithin(settling, LEAVE_MS);
    if (this.#term !== term) return;
    if (isSettled) {
      const { afterOffline } = this.#options;
      if (afterOffline !== undefined)
        await within(afterOffline(term.token), AFTER_OFFLINE_MS).catch((error: unknown) =>
          this.#note("settings-not-saved", problemOf(error)),
        );
      if (this.#term !== term) return;
      this.#term = null;
      this.#driver.left(term.token);
      return;
    }
    this.#term = null;
    this.#note("left-to-guard", `does not end by itself: ${this.#endingNames().join(", ")}`);
    this.#isBlocked = true;
    this.#sendWish();
    this.#driver.abandon(term.token, settling);
    await settling;
    this.#isBlocked = false;
    this.#sendWish();
  }

  /** The lease is lost. */
  async #stop(): Promise<void> {
    this.#term = null;
    clearTimeout(this.#retry);
    for (const answer of this.#touching.values()) answer(false);
    this.#touching.clear();
    const began = this.#now();
    this.#apply({ kind: "abandon" });
    // Until it has, this node takes nothing: something of it may still be there.
    const late = setTimeout(() => this.#note("not-ended", this.#endingNames().join(", ")), CLEAN_MS);
    await this.#settled();
    clearTimeout(late);
    this.#options.listener.measured?.("stopMs", this.#now() - began);
    if (this.#redefinition === null) return;
    this.#adopt(this.#redefinition);
    this.#redefinition = null;
  }

  #guarded({ pid }: Guard): void {
    this.#guardPid = pid;
    // Nothing runs under a guard that has just begun.
    this.#desk.allEnded();
    noteGuard(this.#options.directory, [pid]);
  }

  #heard(message: FromGuard): void {
    this.#desk.heard(message);
    if (message.kind === "touched") {
      this.#touching.get(message.resource)?.(true);
      this.#touching.delete(message.resource);
    } else if (message.kind === "ready") {
      this.#guardReady.resolve();
      noteGuard(this.#options.directory, [this.#guardPid, message.lastResort]);
      for (const problem of message.problems) this.#note("guard", problem);
    }
  }

  // The resources.

  #apply(event: VirtualServerEvent): void {
    const before = this.#state;
    const { state, effects } = stepVirtualServer(before, event, this.#now(), this.#policies);
    this.#state = state;
    for (const effect of effects) this.#carryOut(effect);
    clearTimeout(this.#wake);
    const wake = nextVirtualServerWake(this.#state, this.#policies);
    if (wake !== null)
      this.#wake = setTimeout(
        () => this.#apply({ kind: "tick" }),
        Math.min(Math.max(0, Math.ceil(wake - this.#now())), TIMER_MS_MAX),
      );
    const term = this.#term;
    if (term !== null && !term.isStarted && !term.isLeaving && statusOf(this.#state) === "online") {
      term.isStarted = true;
      this.#note("online", "every resource is online");
      this.#driver.started(term.token);
    }
    if (before !== this.#state) this.#options.listener.changed();
  }

  #carryOut(effect: VirtualServerEffect): void {
    if (effect.kind === "all-offline") {
      this.#allOffline();
      return;
    }
    const slot = this.#slots.get(effect.resource);
    switch (effect.kind) {
      case "online":
        this.#problems.delete(effect.resource);
        slot?.online();
        return;
      case "offline":
        void slot?.offline(this.#endingDependents(effect.resource));
        return;
      case "check":
        slot?.check(effect.thorough);
        return;
      case "terminate":
        void slot?.terminate();
        return;
      case "fail-over": {
        const { resource } = effect;
        const problem = this.#problems.get(resource) ?? "it failed";
        this.#note("failover-wanted", `${resource}: ${problem}`);
        this.#askFailover(resource, problem);
        return;
      }
    }
  }

  #askFailover(resource: string | null, problem: string): void {
    const term = this.#term;
    const number = ++this.#failoversAsked;
    const isOpen = () =>
      this.#term === term &&
      this.#failoversAsked === number &&
      (resource === null ? term?.isHeldBack === true : this.#state.failingOver === resource);
    // Whoever answers at once must not be inside the step that asks.
    queueMicrotask(() =>
      this.#options.listener.failoverWanted(resource, problem, { token: term?.token ?? 0, isOpen }),
    );
  }

  /** One that failed counts as gone at once, and may still be ending. */
  #endingDependents(resource: string): Promise<unknown> | null {
    const ending = [...this.#policies]
      .filter(([, { dependency }]) => dependency.some((group) => group.includes(resource)))
      .map(([name]) => this.#slots.get(name)?.settled() ?? null)
      .filter((settled) => settled !== null);
    return ending.length === 0 ? null : Promise.all(ending);
  }

  #reported(resource: string, report: Report, problem: string | null): void {
    if (report === "failed") {
      // A report that says more is read by nobody, and its node would count as down.
      const text = (problem ?? "it failed").slice(0, PROBLEM_LENGTH_MAX);
      this.#problems.set(resource, text);
      this.#note("resource-failed", `${resource}: ${text}`);
    }
    if (report === "online" || report === "offline") this.#note(`resource-${report}`, resource);
    this.#apply({ kind: "reported", resource, report });
  }

  /** Takes on a definition, everything that goes being offline. */
  #adopt(definition: VirtualServerDefinition): void {
    const former = new Map(this.#definition.resources.map((each) => [each.name, each]));
    const wasInMaintenance = this.#slots.size > 0 && this.#definition.inMaintenance;
    const hasMoved = definition.useNetworkName !== this.#definition.useNetworkName;
    this.#definition = definition;
    this.#policies = new Map(definition.resources.map(({ name, policy }) => [name, policy]));
    const fresh = startVirtualServer(this.#policies.keys());
    const resources = [...fresh.resources].map(
      ([name, state]) => [name, this.#state.resources.get(name) ?? state] as const,
    );
    this.#state = { ...this.#state, resources: new Map(resources) };
    const leaving = new Map<string, Promise<void>>();
    for (const [name, slot] of this.#slots) {
      const next = definition.resources.find((each) => each.name === name);
      const present = former.get(name);
      const isSame = next !== undefined && present !== undefined && isSameThing(present, next);
      if (isSame && !hasMoved) continue;
      // Its successor waits until nothing of it is left.
      leaving.set(name, slot.settled() ?? Promise.resolve());
      slot.retire();
      this.#slots.delete(name);
    }
    for (const resource of definition.resources)
      if (!this.#slots.has(resource.name))
        this.#slots.set(resource.name, this.#openSlot(resource, leaving.get(resource.name) ?? null));
    if (definition.inMaintenance !== wasInMaintenance) this.maintenance(null, definition.inMaintenance);
  }

  #openSlot(definition: ResourceDefinition, after: Promise<void> | null): ResourceSlot {
    const { name } = definition;
    const directory = join(this.#options.directory, encodeURIComponent(name));
    const slot: ResourceSlot = new ResourceSlot(after, {
      open: (isCurrent) =>
        openResource(this.#options, this.#definition, definition, {
          launcher: (environment, hostName) =>
            this.#desk.launcher(name, { ...environment, ...lifeEntry(directory) }, hostName),
          directory,
          token: () => (isCurrent() ? this.token() : null),
          note: (what, detail) => this.#note(what, `${name}: ${detail}`),
          failed: (problem) => {
            if (isCurrent()) slot.failed(problem);
          },
        }),
      touch: (undo, isExclusive) => this.#touch(name, undo, isExclusive),
      release: () => {
        const token = this.token();
        if (token !== null) this.#driver.tell({ kind: "release", token, resource: name });
      },
      reported: (report, problem) => this.#reported(name, report, problem),
    });
    return slot;
  }

  #touch(resource: string, undo: readonly UndoCommand[], isExclusive: boolean): Promise<boolean> {
    const token = this.token();
    if (token === null) return Promise.resolve(false);
    const { promise, resolve } = Promise.withResolvers<boolean>();
    this.#touching.get(resource)?.(false);
    this.#touching.set(resource, resolve);
    this.#driver.tell({ kind: "touch", token, resource, undo, isExclusive });
    return promise;
  }

  #endingNames(): string[] {
    return [...this.#slots].filter(([, slot]) => slot.settled() !== null).map(([name]) => name);
  }

  async #settled(): Promise<void> {
    await Promise.all([...this.#slots.values()].map((slot) => slot.settled()));
  }

  // What is told.

  #changed(): void {
    const { kind } = this.#driver.role;
    if (kind !== "owner" && kind !== "fenced") this.#closing?.ended.resolve();
    if (!this.#driver.isHolding) this.#closing?.givenBack.resolve();
    this.#options.listener.changed();
  }

  #note(what: string, detail: string, token = this.#term?.token ?? null): void {
    const { name: server } = this.#definition;
    this.#options.listener.noted({ server, token, what, detail });
  }
}

const TIMER_MS_MAX = 2 ** 31 - 1;
const PROBLEM_LENGTH_MAX = 4_000;

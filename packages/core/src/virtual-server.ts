import { type DependencyGraph, isFulfilled, onlineOrder, providersOf } from "./resource-dependency.ts";
import {
  type ResourcePhase,
  type ResourcePolicy,
  type VirtualServerStatus,
  virtualServerStatus,
} from "./resource-policy.ts";

/**
 * The resources of one virtual server on the node that owns it: what comes online next, what goes offline first, and what
 * a failure leads to.
 *
 * A resource comes online when what it needs is online, and goes offline when nobody online needs it any more. One that
 * fails takes those offline that cannot do without it, is restarted in place as often as its policy says, and they follow
 * it. One failure more asks for a failover; whether there is somewhere to go is decided elsewhere (placement.ts), and the
 * answer `stay` leaves it failed until its retry time, or until the same is asked once more (`ask-again`).
 *
 * Nothing here knows what a resource is. Effects are orders to it; events are what it reports.
 */
export interface ResourceState {
  readonly phase: ResourcePhase;
  /** When it last reported anything while pending. */
  readonly reportedAt: number;
  readonly failures: readonly number[];
  /** When it is restarted or tried again; null: not by itself. */
  readonly restartAt: number | null;
  readonly quickAt: number;
  readonly thoroughAt: number;
  /** Since when a check has not been answered; null: none is open. */
  readonly checkingSince: number | null;
  /** Somebody works on it: it may stop without having failed. */
  readonly inMaintenance: boolean;
}

export interface VirtualServerState {
  readonly wanted: "online" | "offline";
  readonly resources: ReadonlyMap<string, ResourceState>;
  /** A failover was asked for and not yet answered, because of this resource. */
  readonly failingOver: string | null;
}

export type VirtualServerOptions = ReadonlyMap<string, ResourcePolicy>;

export type VirtualServerEvent =
  | { readonly kind: "tick" }
  | { readonly kind: "bring-online" }
  | { readonly kind: "take-offline" }
  /** The lease is lost: nothing of it is ours any more, in whatever order. No `all-offline` follows. */
  | { readonly kind: "abandon" }
  | {
      readonly kind: "reported";
      readonly resource: string;
      /** `busy`: still pending, but alive. `healthy`: what a check found. */
      readonly report: "online" | "offline" | "busy" | "healthy" | "failed";
    }
  | { readonly kind: "maintenance"; readonly resource: string; readonly on: boolean }
  /** There is no node to fail over to, or it happened too often. */
  | { readonly kind: "stay" }
  /** There may be one by now. */
  | { readonly kind: "ask-again" };

export type VirtualServerEffect =
  | { readonly kind: "online"; readonly resource: string }
  | { readonly kind: "offline"; readonly resource: string }
  /** It does not answer: end it, whatever that breaks. It counts as offline from then on. */
  | { readonly kind: "terminate"; readonly resource: string }
  | { readonly kind: "check"; readonly resource: string; readonly thorough: boolean }
  | { readonly kind: "fail-over"; readonly resource: string }
  /** Nothing of it is left. */
  | { readonly kind: "all-offline" };

export interface VirtualServerTransition {
  readonly state: VirtualServerState;
  readonly effects: readonly VirtualServerEffect[];
}

const FRESH: ResourceState = {
  phase: "offline",
  reportedAt: 0,
  failures: [],
  restartAt: null,
  quickAt: 0,
  thoroughAt: 0,
  checkingSince: null,
  inMaintenance: false,
};

/** All offline. `names`: the resources. */
export function startVirtualServer(names: Iterable<string>): VirtualServerState {
  return {
    wanted: "offline",
    resources: new Map([...names].map((name) => [name, FRESH])),
    failingOver: null,
  };
}

export const statusOf = (state: VirtualServerState): VirtualServerStatus =>
  virtualServerStatus([...state.resources.values()].map(({ phase }) => phase));

/** One transition. `now`: milliseconds of a clock that only grows. */
export function stepVirtualServer(
  state: VirtualServerState,
  event: VirtualServerEvent,
  now: number,
  options: VirtualServerOptions,
): VirtualServerTransition {
  const draft = new Draft(state, now, options);
  const wasOffline = statusOf(state) === "offline" && state.wanted === "offline";
  draft.take(event);
  draft.watchPending();
  draft.proceed();
  const isOffline = draft.status() === "offline" && draft.wanted === "offline";
  if (isOffline && event.kind !== "abandon" && (!wasOffline || event.kind === "take-offline"))
    draft.effects.push({ kind: "all-offline" });
  return { state: draft.state(), effects: draft.effects };
}

/** When the next transition is due though nothing happens; null: never. */
export function nextVirtualServerWake(
  state: VirtualServerState,
  options: VirtualServerOptions,
): number | null {
  let wake = Number.POSITIVE_INFINITY;
  for (const [name, resource] of state.resources) {
    const policy = policyOf(options, name);
    if (mayHang(resource)) wake = Math.min(wake, resource.reportedAt + policy.pendingMs);
    const isWaiting = resource.phase === "failed" && state.wanted === "online" && state.failingOver === null;
    if (isWaiting && resource.restartAt !== null) wake = Math.min(wake, resource.restartAt);
    if (resource.phase === "online" && !resource.inMaintenance)
      wake = Math.min(
        wake,
        resource.checkingSince === null
          ? Math.min(resource.quickAt, resource.thoroughAt)
          : resource.checkingSince + policy.pendingMs,
      );
  }
  return Number.isFinite(wake) ? wake : null;
}

const isPending = ({ phase }: ResourceState) => phase === "online-pending" || phase === "offline-pending";

/** One that somebody works on may take as long as he needs, except for going away. */
const mayHang = (resource: ResourceState) =>
  isPending(resource) && (resource.phase === "offline-pending" || !resource.inMaintenance);

function policyOf(options: VirtualServerOptions, name: string): ResourcePolicy {
  const policy = options.get(name);
  if (policy === undefined) throw new RangeError(`${name} is no resource of this virtual server`);
  return policy;
}

class Draft {
  readonly effects: VirtualServerEffect[] = [];
  wanted: "online" | "offline";
  #failingOver: string | null;
  readonly #resources: Map<string, ResourceState>;
  readonly #now: number;
  readonly #options: VirtualServerOptions;

  constructor(state: VirtualServerState, now: number, options: VirtualServerOptions) {
    this.wanted = state.wanted;
    this.#failingOver = state.failingOver;
    this.#resources = new Map(state.resources);
    this.#now = now;
    this.#options = options;
  }

  state(): VirtualServerState {
    return { wanted: this.wanted, resources: this.#resources, failingOver: this.#failingOver };
  }

  status(): VirtualServerStatus {
    return statusOf(this.state());
  }

  take(event: VirtualServerEvent): void {
    switch (event.kind) {
      case "tick":
        return;
      case "bring-online":
        // Whoever asks anew wants it tried anew, whatever failed before.
        for (const [name, resource] of this.#resources)
          if (resource.phase === "failed")
            this.#change(name, { phase: "offline", restartAt: null, failures: [] });
        this.wanted = "online";
        this.#failingOver = null;
        return;
      case "take-offline":
        this.wanted = "offline";
        this.#failingOver = null;
        return;
      case "abandon":
        this.wanted = "offline";
        this.#failingOver = null;
        for (const [name, { phase }] of this.#resources)
          if (phase !== "offline") {
            this.#terminate(name);
            this.#change(name, { restartAt: null });
          }
        return;
      case "stay":
        this.#failingOver = null;
        return;
      case "ask-again":
        this.#askAgain();
        return;
      case "maintenance":
        this.#change(event.resource, {
          inMaintenance: event.on,
          checkingSince: null,
          quickAt: this.#now,
          reportedAt: this.#now,
        });
        return;
      case "reported":
        this.#report(event.resource, event.report);
        return;
    }
  }

  #report(name: string, report: Extract<VirtualServerEvent, { kind: "reported" }>["report"]): void {
    const resource = this.#resources.get(name);
    if (resource === undefined) return;
    const { phase } = resource;
    switch (report) {
      case "busy":
        if (isPending(resource)) this.#change(name, { reportedAt: this.#now });
        return;
      case "healthy":
        if (phase === "online") this.#planChecks(name, resource);
        return;
      case "online":
        if (phase === "online-pending") {
          this.#change(name, { phase: "online" });
          this.#planChecks(name, { ...resource, thoroughAt: this.#now });
        }
        return;
      case "offline":
        if (phase === "offline-pending") this.#change(name, { phase: "offline" });
        // Nobody asked it to stop.
        else if (phase === "online" || phase === "online-pending") this.#fail(name);
        return;
      case "failed":
        if (phase === "offline-pending") this.#terminate(name);
        else if (phase === "online" || phase === "online-pending") this.#fail(name);
        return;
    }
  }

  #planChecks(name: string, { thoroughAt }: ResourceState): void {
    const { looksAliveMs, isAliveMs } = policyOf(this.#options, name);
    this.#change(name, {
      checkingSince: null,
      quickAt: this.#now + looksAliveMs,
      thoroughAt: thoroughAt <= this.#now ? this.#now + isAliveMs : thoroughAt,
    });
  }

  #terminate(name: string): void {
    this.effects.push({ kind: "terminate", resource: name });
    this.#change(name, { phase: "offline", checkingSince: null });
  }

  #fail(name: string): void {
    const resource = this.#resources.get(name);
    if (resource === undefined || resource.inMaintenance) return;
    const { restartAction, restartThreshold, restartPeriodMs, restartDelayMs, retryMs } = policyOf(
      this.#options,
      name,
    );
    // Whatever is left of it must not be in the way of the next try.
    this.effects.push({ kind: "terminate", resource: name });
    const failures = [...resource.failures.filter((at) => at > this.#now - restartPeriodMs), this.#now];
    const mayRestart = restartAction !== "none" && failures.length <= restartThreshold;
    const retryAt = retryMs === null ? null : this.#now + retryMs;
    this.#change(name, {
      phase: "failed",
      checkingSince: null,
      failures: mayRestart ? failures : [],
      restartAt: mayRestart ? this.#now + restartDelayMs : retryAt,
    });
    if (mayRestart || restartAction !== "restart-then-failover" || this.wanted === "offline") return;
    if (this.#failingOver !== null) return;
    this.#failingOver = name;
    this.effects.push({ kind: "fail-over", resource: name });
  }

  /** For one that was given up here: it failed, and no restart in place is left to be waited for. */
  #askAgain(): void {
    if (this.wanted === "offline" || this.#failingOver !== null) return;
    for (const [name, { phase, failures }] of this.#resources) {
      const { restartAction } = policyOf(this.#options, name);
      if (phase !== "failed" || failures.length > 0 || restartAction !== "restart-then-failover") continue;
      this.#failingOver = name;
      this.effects.push({ kind: "fail-over", resource: name });
      return;
    }
  }

  /** What has not reported for too long: a resource that comes or goes, and a check that hangs. */
  watchPending(): void {
    for (const [name, resource] of this.#resources) {
      const { pendingMs } = policyOf(this.#options, name);
      if (mayHang(resource) && this.#now >= resource.reportedAt + pendingMs) {
        if (resource.phase === "offline-pending") this.#terminate(name);
        else this.#fail(name);
      }
      const { checkingSince } = resource;
      if (checkingSince !== null && this.#now >= checkingSince + pendingMs) this.#fail(name);
    }
  }

  proceed(): void {
    if (this.wanted === "online") {
      this.#takeDownTheUnsupported();
      this.#restart();
      this.#bringUp();
      this.#check();
    } else
      this.#takeDown(
        () => true,
        () => true,
      );
  }

  /** Who needs what has failed goes offline, those who need them first. */
  #takeDownTheUnsupported(): void {
    const order = onlineOrder(this.#graph());
    const unsupported = new Set<string>();
    for (const name of order) {
      const isThere = (provider: string) => !unsupported.has(provider) && this.#phase(provider) === "online";
      if (this.#isUp(name) && !isFulfilled(this.#dependency(name), isThere)) unsupported.add(name);
    }
    // Who has another provider need not go before this one does.
    this.#takeDown(
      (name) => unsupported.has(name),
      (dependent, name) => this.#needs(dependent, name),
    );
  }

  #takeDown(
    isMeant: (name: string) => boolean,
    isInTheWay: (dependent: string, name: string) => boolean,
  ): void {
    for (const [name, { phase }] of this.#resources) {
      if (!isMeant(name)) continue;
      if (this.wanted === "offline" && phase === "failed")
        this.#change(name, { phase: "offline", restartAt: null });
      if (!this.#isUp(name)) continue;
      const waitsFor = this.#dependents(name).filter((dependent) => isInTheWay(dependent, name));
      if (waitsFor.some((dependent) => this.#isAlive(dependent))) continue;
      this.effects.push({ kind: "offline", resource: name });
      this.#change(name, { phase: "offline-pending", reportedAt: this.#now, checkingSince: null });
    }
  }

  #restart(): void {
    if (this.#failingOver !== null) return;
    for (const [name, { phase, restartAt }] of this.#resources) {
      if (phase !== "failed" || restartAt === null || this.#now < restartAt) continue;
      this.#change(name, { phase: "offline", restartAt: null });
    }
  }

  #bringUp(): void {
    if (this.#failingOver !== null) return;
    for (const [name, { phase, inMaintenance }] of this.#resources) {
      if (phase !== "offline" || inMaintenance) continue;
      if (!isFulfilled(this.#dependency(name), (provider) => this.#phase(provider) === "online")) continue;
      // Who needed its former self may still be going.
      const leaving = this.#dependents(name).filter(
        (dependent) => this.#phase(dependent) === "offline-pending",
      );
      if (leaving.some((dependent) => this.#needs(dependent, name))) continue;
      this.effects.push({ kind: "online", resource: name });
      this.#change(name, { phase: "online-pending", reportedAt: this.#now });
    }
  }

  /** Whether nothing else that is online could stand in for it. */
  #needs(dependent: string, name: string): boolean {
    return !isFulfilled(
      this.#dependency(dependent),
      (other) => other !== name && this.#phase(other) === "online",
    );
  }

  #check(): void {
    for (const [name, resource] of this.#resources) {
      if (resource.phase !== "online" || resource.inMaintenance || resource.checkingSince !== null) continue;
      const thorough = this.#now >= resource.thoroughAt;
      if (!thorough && this.#now < resource.quickAt) continue;
      this.effects.push({ kind: "check", resource: name, thorough });
      this.#change(name, { checkingSince: this.#now });
    }
  }

  #change(name: string, changed: Partial<ResourceState>): void {
    const resource = this.#resources.get(name);
    if (resource !== undefined) this.#resources.set(name, { ...resource, ...changed });
  }

  #graph(): DependencyGraph {
    return new Map([...this.#options].map(([name, { dependency }]) => [name, dependency]));
  }

  #dependency(name: string) {
    return policyOf(this.#options, name).dependency;
  }

  #dependents(name: string): string[] {
    return [...this.#options]
      .filter(([, { dependency }]) => providersOf(dependency).includes(name))
      .map(([dependent]) => dependent);
  }

  #phase(name: string): ResourcePhase | null {
    return this.#resources.get(name)?.phase ?? null;
  }

  /** Online or on the way there. */
  #isUp(name: string): boolean {
    const phase = this.#phase(name);
    return phase === "online" || phase === "online-pending";
  }

  #isAlive(name: string): boolean {
    return this.#isUp(name) || this.#phase(name) === "offline-pending";
  }
}

import { join } from "node:path";
import {
  changeTimes,
  findLeaseFaults,
  type LeaseEvent,
  type LeaseOptions,
  type LeaseTimes,
  type LeaseWish,
  type ServerReport,
  type SettingsReport,
  type VirtualServerDefinition,
} from "@lockstep/core";
import type { Clock } from "@lockstep/platform";
import type { Coordination } from "../coordination/coordination.ts";
import type { CoordinationConfig } from "../coordination/open.ts";
import type {
  FailoverQuestion,
  HostedServer,
  HostNote,
  VirtualServerHostOptions,
} from "../host/host-types.ts";
import type { LeaseTuning } from "../lease-driver.ts";

/** What comes before a virtual server is online and after it went offline; the settings that go with it. */
export interface ServerBelongings {
  beforeOnline(token: number): Promise<void>;
  afterOffline(token: number): Promise<void>;
  define(definition: VirtualServerDefinition): void;
  /** Before a planned move to this node. Rejects with what would keep `beforeOnline` from succeeding. */
  prepare?(): Promise<void>;
  /** What the report of this node says of them. */
  report?(): SettingsReport;
  close(): Promise<void>;
}

/** `noted`: for the history. */
export type OpenServerBelongings = (
  definition: VirtualServerDefinition,
  directory: string,
  noted: (note: HostNote) => void,
) => ServerBelongings;

export interface HostedServersOptions {
  readonly node: string;
  readonly instance: string;
  readonly directory: string;
  readonly coordination: Coordination;
  readonly coordinationConfig: CoordinationConfig | null;
  readonly clock: Clock;
  readonly factories: VirtualServerHostOptions["factories"];
  readonly guard: VirtualServerHostOptions["guard"] | undefined;
  readonly makeHost: (options: VirtualServerHostOptions) => HostedServer;
  readonly openBelongings: OpenServerBelongings;
  readonly listener: HostedServersListener;
}

export interface HostedServersListener {
  noted(note: HostNote): void;
  failoverWanted(server: string, resource: string | null, problem: string, question: FailoverQuestion): void;
  changed(): void;
  measured(term: "guardDelayMs" | "stopMs", ms: number): void;
  send(member: string, server: string, event: LeaseEvent): void;
}

/** What of the cluster goes into a lease. */
export interface LeaseSurroundings {
  readonly times: LeaseTimes;
  readonly members: readonly string[];
  readonly automatic: boolean;
  /** Nobody serves it and nobody has it: only then may the times of its lease change in every way. */
  readonly isFree: boolean;
  /** This node has it. */
  readonly isOurs: boolean;
}

interface Hosted {
  readonly host: HostedServer;
  readonly belongings: ServerBelongings;
  /** Gone by here; what is wanted may differ. */
  times: LeaseTimes;
  /** What is wanted, as a text, and since when we know it, by our own clock. */
  wanted: { readonly text: string; readonly since: number };
  definition: VirtualServerDefinition;
  definitionText: string;
  tuned: string;
  wished: string;
}

/** By then every node that reaches the store has read what we have read: three of the looks that nobody leaves out. */
const READ_BY_ALL_MS = 15_000;

/**
 * The virtual servers of this node: one host for each definition, made, changed and ended as the definitions are.
 *
 * The times of a lease change in two halves (core/lease-change.ts): an owner that trusts a renewal for longer than the
 * others wait would be two owners.
 */
export class HostedServers {
  readonly #options: HostedServersOptions;
  readonly #hosted = new Map<string, Hosted>();
  readonly #ending = new Map<string, Promise<void>>();
  readonly #unsafe = new Map<string, string>();
  #isClosed = false;

  constructor(options: HostedServersOptions) {
    this.#options = options;
  }

  /** Brings what is hosted in step with a definition. */
  define(definition: VirtualServerDefinition, surroundings: LeaseSurroundings): void {
    const { name } = definition;
    // The former host of this name must be gone first.
    if (this.#isClosed || this.#ending.has(name)) return;
    const present = this.#hosted.get(name);
    if (present === undefined) {
      this.#open(definition, surroundings);
      return;
    }
    this.#changeTimes(name, present, surroundings);
    const text = JSON.stringify(definition);
    if (text !== present.definitionText) {
      present.definition = definition;
      present.definitionText = text;
      present.belongings.define(definition);
      present.host.define(definition);
    }
    const tuning = tuningOf(definition, surroundings, present.times);
    const tuned = JSON.stringify(tuning);
    if (tuned === present.tuned) return;
    present.tuned = tuned;
    present.host.tune(tuning);
  }

  /** Ends every host whose definition is gone. */
  keepOnly(names: ReadonlySet<string>): void {
    for (const name of this.#hosted.keys()) if (!names.has(name)) this.#close(name);
    for (const name of this.#unsafe.keys()) if (!names.has(name)) this.#unsafe.delete(name);
  }

  wish(name: string, wish: LeaseWish): void {
    const hosted = this.#hosted.get(name);
    const wished = JSON.stringify(wish);
    if (hosted === undefined || hosted.wished === wished) return;
    hosted.wished = wished;
    hosted.host.wish(wish);
  }

  /** Whether it is hosted here, or it is known why not. */
  isKnown(name: string): boolean {
    return this.#hosted.has(name) || this.#unsafe.has(name);
  }

  /** What would keep a virtual server from coming online here; null: nothing is known. Within seconds. */
  async prepare(name: string): Promise<string | null> {
    const hosted = this.#hosted.get(name);
    if (hosted !== undefined) return await hosted.host.prepare();
    return this.#unsafe.get(name) ?? "it is not known there yet";
  }

  stay(name: string, askAgainMs: number | null): void {
    this.#hosted.get(name)?.host.stay(askAgainMs);
  }

  retry(name: string): void {
    this.#hosted.get(name)?.host.retry();
  }

  hear(name: string, event: LeaseEvent): void {
    this.#hosted.get(name)?.host.hear(event);
  }

  reports(): Readonly<Record<string, ServerReport>> {
    return Object.fromEntries(
      [...this.#hosted].map(([name, { host, belongings, times }]) => {
        const settings = belongings.report?.() ?? null;
        return [name, { ...host.report(), settings, lease: times }];
      }),
    );
  }

  /** Takes everything offline in order and gives every lease back. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const name of [...this.#hosted.keys()]) this.#close(name);
    await Promise.all(this.#ending.values());
  }

  #changeTimes(name: string, present: Hosted, { times, isFree, isOurs }: LeaseSurroundings): void {
    const { clock, listener } = this.#options;
    const text = JSON.stringify(times);
    if (present.wanted.text !== text) present.wanted = { text, since: clock.monotonic() };
    if (JSON.stringify(present.times) === text || !this.#areSafe(name, times)) return;
    const isRead = clock.monotonic() - present.wanted.since >= READ_BY_ALL_MS;
    const notFree = isOurs ? "none" : "trust";
    present.times = changeTimes(present.times, times, !isRead ? "none" : isFree ? "all" : notFree);
    if (JSON.stringify(present.times) === text)
      listener.noted({ server: name, token: null, what: "lease-times", detail: `as wanted: ${text}` });
  }

  #areSafe(name: string, times: LeaseTimes): boolean {
    const told = findLeaseFaults(times)
      .map(({ at, problem }) => `${at}: ${problem}`)
      .join("; ");
    if (told === "") {
      this.#unsafe.delete(name);
      return true;
    }
    if (this.#unsafe.get(name) !== told)
      this.#options.listener.noted({ server: name, token: null, what: "lease-times-unsafe", detail: told });
    this.#unsafe.set(name, told);
    return false;
  }

  #open(definition: VirtualServerDefinition, surroundings: LeaseSurroundings): void {
    const { node, instance, makeHost, openBelongings, listener, directory: root, ...shared } = this.#options;
    const { name } = definition;
    const { times } = surroundings;
    if (!this.#areSafe(name, times)) return;
    const directory = join(root, "servers", name);
    const belongings = openBelongings(definition, directory, (note) => listener.noted(note));
    const tuning = tuningOf(definition, surroundings, times);
    const lease: LeaseOptions = { node, instance, ...tuning };
    const host = makeHost({
      definition,
      lease,
      directory,
      coordination: shared.coordination,
      coordinationConfig: shared.coordinationConfig,
      clock: shared.clock,
      factories: shared.factories,
      ...(shared.guard === undefined ? {} : { guard: shared.guard }),
      beforeOnline: (token) => belongings.beforeOnline(token),
      afterOffline: (token) => belongings.afterOffline(token),
      prepare: async () => await belongings.prepare?.(),
      listener: {
        noted: (note) => listener.noted(note),
        failoverWanted: (resource, problem, question) =>
          listener.failoverWanted(name, resource, problem, question),
        changed: () => listener.changed(),
        measured: (term, ms) => listener.measured(term, ms),
        send: (member, event) => listener.send(member, name, event),
      },
    });
    this.#hosted.set(name, {
      host,
      belongings,
      times,
      wanted: { text: JSON.stringify(times), since: shared.clock.monotonic() },
      definition,
      definitionText: JSON.stringify(definition),
      tuned: JSON.stringify(tuning),
      wished: "",
    });
  }

  #close(name: string): void {
    const hosted = this.#hosted.get(name);
    if (hosted === undefined) return;
    this.#hosted.delete(name);
    const ending = hosted.host
      .close()
      .then(() => hosted.belongings.close())
      .finally(() => {
        this.#ending.delete(name);
        this.#options.listener.changed();
      });
    this.#ending.set(name, ending);
  }
}

function tuningOf(
  { failsafe, lockDelayMs }: VirtualServerDefinition,
  { members, automatic }: LeaseSurroundings,
  { trustMs, waitMs, renewMs, callMs }: LeaseTimes,
): LeaseTuning {
  const times = { trustMs, waitMs, renewMs, callMs, pollMs: waitMs / 2 };
  return { members, automatic, failsafe, lockDelayMs, ...times };
}

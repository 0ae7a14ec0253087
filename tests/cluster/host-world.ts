import { randomUUID } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import {
  type Coordination,
  type FailoverQuestion,
  type HostNote,
  type Resource,
  type ResourceContext,
  resourceFactories,
  type UndoCommand,
  VirtualServerHost,
  type VirtualServerHostOptions,
} from "@lockstep/cluster";
import type { LeaseOptions, VirtualServerDefinition } from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import { sendSignal } from "../support/send-signal.ts";
import { findMarked } from "./marked-processes.ts";

type LeaseTimesOf = Omit<LeaseOptions, "node" | "instance" | "members">;

/** Nobody loses it because the machine stands still. */
const LEASE: LeaseTimesOf = {
  trustMs: 120_000,
  waitMs: 180_000,
  renewMs: 500,
  callMs: 20_000,
  pollMs: 3_000,
  lockDelayMs: 0,
  automatic: true,
  failsafe: false,
};
/** For tests that wait for its end. */
export const BRIEF_LEASE = { trustMs: 4_000, waitMs: 6_000, callMs: 1_500 } as const;

/** A virtual server on this machine with a real guard and a store that can be taken away, and what was told of it. */
export class HostWorld {
  readonly directory: string;
  readonly mark = randomUUID();
  readonly notes: HostNote[] = [];
  readonly failovers: (readonly [string | null, string])[] = [];
  readonly questions: FailoverQuestion[] = [];
  readonly measured: ("guardDelayMs" | "stopMs")[] = [];
  readonly #hosts: VirtualServerHost[] = [];
  readonly #store: Coordination;
  readonly #lease: LeaseTimesOf;
  #isAway = false;
  #lives = 0;

  constructor(t: TestContext, store: Coordination, lease: Partial<LeaseTimesOf> = {}) {
    this.#store = store;
    this.#lease = { ...LEASE, ...lease };
    this.directory = mkdtempSync(join(tmpdir(), "lockstep-test-host-"));
    t.after(async () => {
      await Promise.all(this.#hosts.map((host) => host.close()));
      this.kill();
      rmSync(this.directory, { recursive: true, force: true, maxRetries: 10 });
    });
  }

  /** From now on the store answers nobody. */
  loseStore(): void {
    this.#isAway = true;
  }

  findStore(): void {
    this.#isAway = false;
  }

  /** One life of the daemon. */
  open(
    definition: VirtualServerDefinition,
    changed: Partial<VirtualServerHostOptions> = {},
  ): VirtualServerHost {
    const node = changed.lease?.node ?? "a";
    this.#lives += 1;
    const host = new VirtualServerHost({
      definition,
      lease: { ...this.#lease, node, instance: `${node}#${this.#lives}`, members: ["a", "b"] },
      coordination: this.#coordination(),
      coordinationConfig: null,
      directory: join(this.directory, node),
      factories: resourceFactories,
      clock: systemClock,
      beforeOnline: () => Promise.resolve(),
      listener: {
        noted: (note) => void this.notes.push(note),
        failoverWanted: (resource, problem, question) => {
          this.failovers.push([resource, problem]);
          this.questions.push(question);
        },
        changed: () => {},
        measured: (term) => void this.measured.push(term),
      },
      ...changed,
    });
    this.#hosts.push(host);
    return host;
  }

  /** Processes of services that carry this world's mark. */
  running(): number[] {
    return findMarked(this.mark);
  }

  /** Kills all of them. The end of one may be the end of others. */
  kill(): void {
    for (const pid of this.running()) sendSignal(pid, "SIGKILL");
  }

  /** The guard that this node noted for its next life. */
  guard(node = "a"): number {
    const noted = readFileSync(join(this.directory, node, "guard.json"), "utf8");
    const [guard] = JSON.parse(noted) as { readonly pid: number }[];
    if (guard === undefined) throw new Error("no guard was noted");
    return guard.pid;
  }

  noted(what: string): HostNote[] {
    return this.notes.filter((note) => note.what === what);
  }

  #coordination(): Coordination {
    const store = this.#store;
    const unlessAway = <T>(call: () => Promise<T>) => (this.#isAway ? new Promise<T>(() => {}) : call());
    return {
      ...store,
      read: (name) => unlessAway(() => store.read(name)),
      swap: (name, swap) => unlessAway(() => store.swap(name, swap)),
    };
  }
}

export const TAKE = { kind: "take", delayMs: 0, force: false } as const;
export const LEAVE = { kind: "leave", next: null } as const;

/** Far beyond what a busy machine needs: a test that waits for what does not come says so, and ends. */
const LONGEST_WAIT_MS = 300_000;

export async function until(condition: () => boolean): Promise<void> {
  for (const end = performance.now() + LONGEST_WAIT_MS; !condition(); await systemClock.sleep(10))
    if (performance.now() > end) throw new Error(`waited too long for: ${condition}`);
}

/** One that does what the test says, and says what it was told. */
export interface Script {
  prepare?(): Promise<void>;
  online?(call: number, busy: () => void): Promise<void>;
  offline?(): Promise<void>;
  check?(call: number): Promise<string | null>;
  terminate?(): Promise<void>;
  readonly undo?: readonly UndoCommand[];
  readonly isExclusive?: boolean;
}

/** Makes scripted resources; `log` has what happened to them in order. */
export function scripted(scripts: Readonly<Record<string, Script>>, log: string[]) {
  const contexts: ResourceContext[] = [];
  const counts = new Map<string, number>();
  const count = (key: string) => {
    counts.set(key, (counts.get(key) ?? 0) + 1);
    return counts.get(key) ?? 0;
  };
  const open = (context: ResourceContext): Resource => {
    const { name } = context.definition;
    const script = scripts[name] ?? {};
    contexts.push(context);
    return {
      undo: script.undo ?? [],
      isExclusive: script.isExclusive ?? false,
      ...(script.prepare === undefined ? {} : { prepare: script.prepare }),
      online: async (busy) => {
        log.push(`online ${name}`);
        await script.online?.(count(`online ${name}`), busy);
        log.push(`${name} is online`);
      },
      offline: async () => {
        log.push(`offline ${name}`);
        await script.offline?.();
        log.push(`${name} is offline`);
      },
      check: async () => (await script.check?.(count(`check ${name}`))) ?? null,
      terminate: async () => {
        log.push(`terminate ${name}`);
        await script.terminate?.();
      },
    };
  };
  return { contexts, factories: { ...resourceFactories, "ip-address": open } };
}

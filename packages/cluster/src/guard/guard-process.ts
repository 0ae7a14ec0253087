import { type GuardEffect, type GuardEvent, nextGuardWake, startGuard, stepGuard } from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import { bootClock } from "../boot-clock.ts";
import type { Coordination } from "../coordination/coordination.ts";
import { openCoordination } from "../coordination/open.ts";
import type { ServiceEnd, ServiceRun } from "../host/service-launcher.ts";
import type { UndoCommand } from "../resources/resource.ts";
import { giveBackLease } from "./give-back.ts";
import { type GuardedService, startService } from "./guarded-service.ts";
import { LastResort } from "./last-resort.ts";
import type { FromGuard, GuardConfig, ToGuard } from "./messages.ts";
import { takePriority, tryHostName } from "./privileges.ts";
import { endServices } from "./service-group.ts";
import { runUndo } from "./undo.ts";
import { Watchdog } from "./watchdog.ts";

/**
 * The guard as it runs: the decision of core, the parent of the services, and a pipe to the daemon. It does one thing and
 * loads next to nothing, so that nothing in it can take long.
 *
 * The clock is looked at every few milliseconds while a lease is armed, not by one timer for the deadline: timers stand
 * still while the machine sleeps, the clock does not.
 */
const LOOK_MS = 10;

export class GuardProcess {
  readonly #now = bootClock();
  readonly #tell: (message: FromGuard) => void;
  readonly #exit: () => void;
  #config: GuardConfig | null = null;
  #state = startGuard();
  readonly #services = new Map<string, GuardedService>();
  readonly #undo = new Map<string, readonly UndoCommand[]>();
  readonly #runs = new Map<string, ServiceRun>();
  readonly #ends = new Map<string, ServiceEnd>();
  #lastResort: LastResort | null = null;
  #watchdog: Watchdog | null = null;
  #looking: NodeJS.Timeout | undefined;
  #store: Promise<Coordination | null> = Promise.resolve(null);
  #givingBack: Promise<void> = Promise.resolve();
  #lookedAt = 0;
  /** The longest time between two looks at the clock since somebody asked. */
  #delayMs = 0;
  #killedAt: number | null = null;
  /** Whether the last kill left nothing, and whether the daemon lives that ordered it. */
  #isClean = true;
  #isTold = true;
  readonly #exclusive = new Set<string>();

  constructor(tell: (message: FromGuard) => void, exit: () => void) {
    this.#tell = tell;
    this.#exit = exit;
  }

  take(message: ToGuard): void {
    switch (message.kind) {
      case "hold":
        void this.#hold(message.config);
        return;
      case "touch": {
        const { kind, token, resource, undo, isExclusive = false } = message;
        if (this.#state.kind === "armed" && this.#state.tokenMax === token) {
          this.#undo.set(resource, undo);
          if (isExclusive) this.#exclusive.add(resource);
          else this.#exclusive.delete(resource);
          this.#cover();
        }
        this.#apply({ kind, token, resource });
        return;
      }
      case "launch": {
        const { kind, token, service, run } = message;
        this.#runs.set(service, run);
        this.#apply({ kind, token, service });
        return;
      }
      case "ping":
        this.#answer();
        return;
      default:
        this.#apply(message);
        if (message.kind === "release" && this.#state.tokenMax === message.token) {
          this.#undo.delete(message.resource);
          this.#cover();
        }
    }
  }

  /** The daemon's end of the pipe is closed. */
  closed(): void {
    this.#apply({ kind: "closed" });
  }

  async #hold(config: GuardConfig): Promise<void> {
    this.#config = config;
    this.#lastResort = new LastResort();
    if (config.watchdog !== null)
      this.#watchdog = new Watchdog(config.watchdog, (problem) => this.#ready([problem]));
    this.#store = this.#openStore(config);
    const { pid } = this.#lastResort;
    const problems = await Promise.all([
      pid === null ? "the system refused to start what covers for the guard if it is killed" : null,
      config.priority === null ? null : takePriority(config.priority),
      tryHostName(),
    ]);
    this.#ready(problems.filter((problem) => problem !== null));
  }

  #ready(problems: readonly string[]): void {
    this.#tell({ kind: "ready", lastResort: this.#lastResort?.pid ?? null, problems });
  }

  /** By a timer as the looks at the clock are: as late as it comes, a deadline is noticed. */
  #answer(): void {
    const began = this.#now();
    setTimeout(() => {
      const delayMs = Math.max(this.#delayMs, this.#now() - began);
      this.#delayMs = 0;
      this.#tell({ kind: "pong", delayMs });
    }, LOOK_MS);
  }

  #look(): void {
    const now = this.#now();
    this.#delayMs = Math.max(this.#delayMs, now - this.#lookedAt);
    this.#lookedAt = now;
    this.#apply({ kind: "tick" });
  }

  /** Opened and used once before it is needed: then giving back takes no longer than the store does. */
  async #openStore({ coordination, virtualServer }: GuardConfig): Promise<Coordination | null> {
    if (coordination === null) return null;
    try {
      const store = await openCoordination(coordination, systemClock);
      await store.read(virtualServer).catch(() => {});
      return store;
    } catch {
      return null;
    }
  }

  #apply(event: GuardEvent): void {
    const { state, effects } = stepGuard(this.#state, event, this.#now());
    this.#state = state;
    for (const effect of effects) this.#carryOut(effect);
    if (this.#state.kind === "armed") {
      this.#watchdog?.feed(this.#now());
      // Behind what waits in the pipe: a renewal that was told counts before the clock does.
      if (this.#looking === undefined) {
        this.#lookedAt = this.#now();
        this.#looking = setInterval(() => setImmediate(() => this.#look()), LOOK_MS);
      }
    }
    if (nextGuardWake(this.#state) === null) {
      clearInterval(this.#looking);
      this.#looking = undefined;
    }
    // What could not be undone although the lease has ended, only the end of the machine takes away.
    if (this.#state.kind === "idle" && (this.#isClean || this.#isTold)) this.#watchdog?.callOff();
  }

  #carryOut(effect: GuardEffect): void {
    switch (effect.kind) {
      case "armed":
      case "touched":
        this.#tell(effect);
        return;
      case "stopped": {
        const tookMs = this.#killedAt === null ? null : this.#now() - this.#killedAt;
        this.#killedAt = null;
        this.#tell({ ...effect, tookMs });
        return;
      }
      case "spawn":
        this.#launch(effect.token, effect.service);
        return;
      case "exited":
        this.#tell({ ...effect, ...(this.#ends.get(effect.service) ?? { code: null, signal: null }) });
        return;
      case "kill":
        this.#killedAt = this.#now();
        this.#isTold = effect.why === "told";
        void this.#end(effect.touched).then((isClean) => {
          this.#isClean = isClean;
          this.#apply({ kind: "gone", isClean });
        });
        return;
      case "give-back":
        this.#givingBack = this.#giveBack(effect.token);
        return;
      case "exit":
        void this.#givingBack.finally(() => {
          this.#lastResort?.cover([], []);
          this.#exit();
        });
        return;
    }
  }

  #launch(token: number, name: string): void {
    const run = this.#runs.get(name);
    if (run === undefined) throw new Error(`told to launch ${name} before being told what`);
    const failed = (problem: string) => {
      this.#tell({ kind: "failed", token, service: name, problem });
      this.#apply({ kind: "exited", service: name });
    };
    const service = startService(run, token, (end) => void this.#ended(name, service, end), failed);
    if (service === null) return;
    this.#services.set(name, service);
    this.#cover();
    service.release();
    this.#tell({ kind: "spawned", token, service: name, group: service.group, mark: service.mark });
  }

  /** Ended by itself, or was ended alone; what it left behind ends with it. A kill that is under way does this anyway. */
  async #ended(name: string, service: GuardedService | null, end: ServiceEnd): Promise<void> {
    if (service === null || this.#state.kind === "killing") return;
    await endServices([service]);
    if (this.#services.get(name) !== service) return;
    this.#services.delete(name);
    this.#ends.set(name, end);
    this.#cover();
    this.#apply({ kind: "exited", service: name });
  }

  /** Both at once: a service that cannot be killed must not keep its address. Resolves to whether nothing is left. */
  async #end(touched: readonly string[]): Promise<boolean> {
    const undo = touched.flatMap((resource) => this.#undo.get(resource) ?? []);
    const exclusive = touched
      .filter((resource) => this.#exclusive.has(resource))
      .flatMap((resource) => this.#undo.get(resource) ?? []);
    const undoing = runUndo(undo);
    await endServices([...this.#services.values()]);
    this.#services.clear();
    // What was in use by a service that is gone now can be taken away at the second try.
    const failed = await undoing;
    const left = failed.length > 0 ? await runUndo(failed) : [];
    this.#undo.clear();
    this.#exclusive.clear();
    this.#cover();
    return !left.some((command) => exclusive.includes(command));
  }

  #cover(): void {
    this.#lastResort?.cover([...this.#services.values()], [...this.#undo.values()].flat());
  }

  async #giveBack(token: number): Promise<void> {
    const config = this.#config;
    if (config === null) return;
    const store = (await this.#store) ?? (await this.#openStore(config));
    if (store === null) return;
    const { virtualServer, instance } = config;
    await giveBackLease(store, virtualServer, instance, token).catch(() => {
      // The others wait the lease out, as they would without us.
    });
  }
}

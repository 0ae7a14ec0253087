import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { type GuardEffect, type GuardEvent, nextGuardWake, startGuard, stepGuard } from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import { bootClock } from "../boot-clock.ts";
import { openCoordination } from "../coordination/open.ts";
import { giveBackLease } from "./give-back.ts";
import { type LastResort, watchOverGroup } from "./last-resort.ts";
import type { FromGuard, GuardConfig, ToGuard } from "./messages.ts";
import { endService, GUARD_MARK, signalServiceGroup } from "./service-group.ts";

/**
 * The guard as it runs: the decision of core, the parent of the service, and a pipe to the daemon. It does one thing and
 * loads next to nothing, so that nothing in it can take long.
 *
 * The clock is looked at every few milliseconds while a lease is armed, not by one timer for the deadline: timers stand
 * still while the machine sleeps, the clock does not.
 */
const LOOK_MS = 10;
/**
 * Holds the service back until the last resort knows its group: were we killed in between, the pipe would end and the
 * service never begin. No text of the configuration is read by this shell; it replaces itself by the program.
 */
const HOLD = 'IFS= read -r _ <&3 && exec "$@" 3<&-';
const AFTER_KILL_MS = 2_000;

interface Running {
  readonly child: ChildProcess;
  readonly group: number;
  readonly mark: string;
  readonly lastResort: LastResort;
}

export class GuardProcess {
  readonly #now = bootClock();
  readonly #tell: (message: FromGuard) => void;
  readonly #exit: () => void;
  #config: GuardConfig | null = null;
  #state = startGuard();
  #running: Running | null = null;
  #looking: NodeJS.Timeout | undefined;
  #givingBack: Promise<void> = Promise.resolve();

  constructor(tell: (message: FromGuard) => void, exit: () => void) {
    this.#tell = tell;
    this.#exit = exit;
  }

  take(message: ToGuard): void {
    if (message.kind === "hold") this.#config = message.config;
    else if (message.kind === "terminate") {
      if (this.#running !== null && this.#state.tokenMax === message.token)
        signalServiceGroup(this.#running.group, "SIGTERM");
    } else this.#apply(message);
  }

  /** The daemon's end of the pipe is closed. */
  closed(): void {
    this.#apply({ kind: "closed" });
  }

  #apply(event: GuardEvent): void {
    const { state, effects } = stepGuard(this.#state, event, this.#now());
    this.#state = state;
    for (const effect of effects) this.#carryOut(effect);
    if (nextGuardWake(this.#state) === null) {
      clearInterval(this.#looking);
      this.#looking = undefined;
      // Behind what waits in the pipe: a renewal that was told counts before the clock does.
    } else this.#looking ??= setInterval(() => setImmediate(() => this.#apply({ kind: "tick" })), LOOK_MS);
  }

  #carryOut(effect: GuardEffect): void {
    switch (effect.kind) {
      case "armed":
        this.#tell(effect);
        return;
      case "spawn":
        this.#launch(effect.token);
        return;
      case "kill":
        void this.#end().then(() => this.#apply({ kind: "gone" }));
        return;
      case "stopped":
        this.#tell(effect);
        return;
      case "give-back":
        this.#givingBack = this.#giveBack(effect.token);
        return;
      case "exit":
        void this.#givingBack.finally(this.#exit);
        return;
    }
  }

  #launch(token: number): void {
    const config = this.#config;
    if (config === null) throw new Error("told to launch before being told what");
    const mark = randomUUID();
    const child = spawn("/bin/sh", ["-c", HOLD, "sh", config.program, ...config.arguments], {
      cwd: config.directory,
      env: { ...config.environment, LOCKSTEP_TERM: String(token), [GUARD_MARK]: mark },
      // Our own output is for the daemon; the service's goes where the daemon's errors go.
      stdio: ["ignore", 2, 2, "pipe"],
      detached: true,
    });
    const { pid } = child;
    if (pid === undefined) {
      child.once("error", (error) => {
        this.#tell({ kind: "failed", token, problem: error.message });
        this.#apply({ kind: "gone" });
      });
      return;
    }
    const running = { child, group: pid, mark, lastResort: watchOverGroup(pid) };
    this.#running = running;
    const gate = child.stdio[3];
    if (gate !== null && gate !== undefined && "end" in gate) gate.on("error", () => {}).end("go\n");
    this.#tell({ kind: "spawned", token, group: pid, mark });
    child.once("exit", () => {
      // Ended by itself; what it left behind ends with it. A kill that is under way does this anyway.
      if (this.#state.kind !== "killing") void this.#end().then(() => this.#ended(running));
    });
  }

  #ended(running: Running): void {
    if (this.#running === null || this.#running === running) this.#apply({ kind: "gone" });
  }

  async #end(): Promise<void> {
    const running = this.#running;
    if (running !== null) {
      await endService(running.group, running.mark);
      running.lastResort.release();
      if (this.#running === running) this.#running = null;
    }
    if (this.#state.kind !== "killing") return;
    for (const [program, ...args] of this.#config?.afterKill ?? []) await runQuietly(program, args);
  }

  async #giveBack(token: number): Promise<void> {
    const { coordination, virtualServer, instance } = this.#config ?? {};
    if (coordination === undefined || coordination === null) return;
    if (virtualServer === undefined || instance === undefined) return;
    try {
      const store = await openCoordination(coordination, systemClock);
      await giveBackLease(store, virtualServer, instance, token).finally(() => store.close());
    } catch {
      // The others wait the lease out, as they would without us.
    }
  }
}

function runQuietly(program: string, args: readonly string[]): Promise<void> {
  return new Promise((resolve) => {
    execFile(program, args, { timeout: AFTER_KILL_MS, killSignal: "SIGKILL" }, () => resolve());
  });
}

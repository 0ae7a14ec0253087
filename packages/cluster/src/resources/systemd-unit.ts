import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { commandProblem, runBounded } from "./bounded-command.ts";
import type { UndoCommand } from "./resource.ts";

/** The program that speaks with systemd, or null. */
export function findSystemctl(): string | null {
  for (const directory of (process.env.PATH ?? "").split(delimiter)) {
    const program = join(directory, "systemctl");
    try {
      if (directory.startsWith("/")) accessSync(program, constants.X_OK);
      else continue;
      return program;
    } catch {
      // Not there; the next one.
    }
  }
  return null;
}

const ASK_MS = 10_000;
const AGAIN_MS = 200;

/** A unit of systemd that is started and stopped by the cluster alone. */
export class SystemdUnit {
  readonly #systemctl: string;
  readonly #unit: string;
  #isManual = false;

  constructor(systemctl: string, unit: string) {
    this.#systemctl = systemctl;
    this.#unit = unit;
  }

  /** A stop beside the kill, or a unit that restarts would do so. */
  get undo(): readonly UndoCommand[] {
    return [
      [this.#systemctl, "stop", "--no-block", this.#unit],
      [this.#systemctl, "kill", "--signal=SIGKILL", this.#unit],
    ];
  }

  /** Null: it runs. */
  async start(limitMs: number, calledOff: AbortSignal): Promise<string | null> {
    const end = await runBounded(this.#systemctl, ["start", this.#unit], { limitMs, calledOff });
    return commandProblem(`systemctl start ${this.#unit}`, end, limitMs);
  }

  /** Null: it is stopped. */
  async stop(limitMs: number): Promise<string | null> {
    const end = await runBounded(this.#systemctl, ["stop", this.#unit], { limitMs });
    return commandProblem(`systemctl stop ${this.#unit}`, end, limitMs);
  }

  /** Null: it runs; else its state, in systemd's words. */
  async isActive(): Promise<string | null> {
    const state = await this.#state();
    return state === "active" || state === "reloading" ? null : state;
  }

  /** Not started by the machine itself (S7). Null: done, or done before. */
  async makeManual(): Promise<string | null> {
    if (this.#isManual) return null;
    const end = await runBounded(this.#systemctl, ["disable", this.#unit], { limitMs: ASK_MS });
    this.#isManual = end.status === 0;
    return commandProblem(`systemctl disable ${this.#unit}`, end, ASK_MS);
  }

  /** Resolves when it certainly runs no more. */
  async end(): Promise<void> {
    for (;;) {
      await Promise.all(
        this.undo.map(([program, ...args]) => runBounded(program, args, { limitMs: ASK_MS })),
      );
      if (["inactive", "failed", "unknown"].includes(await this.#state())) return;
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }

  /** The exit status of `is-active` differs with the version; its word does not. */
  async #state(): Promise<string> {
    const end = await runBounded(this.#systemctl, ["is-active", this.#unit], { limitMs: ASK_MS });
    return end.output.trim() || (commandProblem("systemctl is-active", end, ASK_MS) ?? "unknown");
  }
}

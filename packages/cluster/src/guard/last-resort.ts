import { type ChildProcess, spawn } from "node:child_process";
import { startOrRefusal } from "../refused-start.ts";
import type { UndoCommand } from "../resources/resource.ts";
import { GUARD_MARK, type ServiceMark } from "./service-group.ts";

/**
 * What ends the services when the guard itself is killed: a shell in a session of its own that reads from a pipe. Each
 * line is the whole of what would have to be done now. The pipe ends with the guard, however that ended; then the shell
 * does what the last line says. It costs a megabyte and sleeps.
 */
const SHELL = `nl='
'; while IFS= read -r line; do plan=$line; done; eval "$plan"`;
const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

export class LastResort {
  readonly #shell: ChildProcess | null;

  constructor() {
    const shell = startOrRefusal(() =>
      spawn("/bin/sh", ["-c", SHELL], {
        cwd: "/",
        env: { PATH },
        stdio: ["pipe", "ignore", "ignore"],
        detached: true,
      }),
    );
    this.#shell = shell instanceof Error ? null : shell;
    this.#shell?.on("error", () => {});
    this.#shell?.stdin?.on("error", () => {});
  }

  /** Null: the system refused to start it, and nobody covers for the guard. */
  get pid(): number | null {
    return this.#shell?.pid ?? null;
  }

  /** What there is to end now; replaces what was said before. It is in the pipe when this returns. */
  cover(services: readonly ServiceMark[], undo: readonly UndoCommand[]): void {
    this.#shell?.stdin?.write(`${planText(services, undo)}\n`);
  }
}

/**
 * One line of shell: kill the groups, undo, then kill what had left its group; each command bounded. What could not be
 * undone is tried once more: a service that used it is gone then, and a machine that stood still has not used up its time.
 */
function planText(services: readonly ServiceMark[], undo: readonly UndoCommand[]): string {
  const parts: string[] = [];
  for (const { group } of services) parts.push(`kill -s KILL -- -${group}`);
  for (const command of undo) {
    const words = command.map(quote).join(" ");
    const attempt = `timeout -s KILL 1 ${words}`;
    parts.push(`{ ${attempt} || ${attempt}; } & :`);
  }
  if (services.length > 0) {
    const marks = services.map(({ mark }) => `-e ${quote(`${GUARD_MARK}=${mark}`)}`).join(" ");
    const kill = 'while IFS=/ read -r _ _ pid _; do kill -s KILL "$pid"; done';
    parts.push(`for again in 1 2 3; do grep -lsaF ${marks} /proc/[0-9]*/environ | ${kill}; done`);
  }
  return [...parts, "wait"].join("; ");
}

/** A line end would end the plan, so it stands there by its name. */
const quote = (word: string) => `'${word.replaceAll("'", "'\\''").replaceAll("\n", "'\"$nl\"'")}'`;

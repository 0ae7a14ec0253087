/**
 * Programs that do not outlive the hub. Between the hub and each of them stands a small shell that holds a pipe to the
 * hub: when the hub is gone, however it went, the pipe ends, and the shell interrupts the program. So no server stays
 * behind, nor an `initdb` that goes on writing while the next hub cleans up. The shell is the program's parent, so the
 * process id that it signals cannot have been given to another process.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Writable } from "node:stream";
import type { Account } from "./account.ts";
import { CLEAN_ENVIRONMENT } from "./programs.ts";

/** Descriptors given to a program are numbered from here. */
export const FIRST_DESCRIPTOR = 4;

/**
 * 3 is the pipe, 8 keeps the standard input, which a shell takes away from what it starts in the background. The shell
 * ignores what a service manager sends to the whole group: the program gets that as well, and the hub decides. (What a
 * shell ignores its children ignore, but PostgreSQL's programs set their own handlers.)
 */
const SCRIPT = `
trap "" HUP INT TERM
exec 8<&0
"$@" <&8 8<&- 3<&- &
program=$!
{ read -r _ <&3; kill -INT "$program"; } &
watch=$!
wait "$program"
status=$?
kill -KILL "$watch" 2>/dev/null
wait "$watch" 2>/dev/null
exit "$status"
`;

export interface WatchedProcess {
  readonly child: ChildProcess;
  /** Interrupts the program, as the end of the hub would. */
  interrupt(): void;
}

/** Starts a program as the account, with these descriptors inherited from FIRST_DESCRIPTOR on. */
export function startWatched(
  program: string,
  args: readonly string[],
  account: Account | null,
  descriptors: readonly number[],
  input: "ignore" | "pipe" = "ignore",
): WatchedProcess {
  const child = spawn("/bin/sh", ["-c", SCRIPT, "lockstep-watch", program, ...args], {
    ...account,
    cwd: "/",
    env: CLEAN_ENVIRONMENT,
    // Apart from the hub's process group: an interrupt from the terminal is the hub's to handle, in its order.
    detached: true,
    stdio: [input, "pipe", "pipe", "pipe", ...descriptors],
  });
  // Nothing is ever written into it: its end is the message. It breaks when the program ends first.
  const pipe = child.stdio[3] as Writable;
  pipe.on("error", () => {});
  return { child, interrupt: () => pipe.end() };
}

import type { ChildProcess } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { constants, devNull } from "node:os";
import { getSystemErrorMessage } from "node:util";
import { systemErrorCode } from "@lockstep/platform";

/**
 * Starting a program can be refused in three ways: some refusals come later, as an event of the child, others (too long
 * arguments, no memory) are thrown by the call itself; and where no file descriptor is left, a child comes back that has no
 * pipes, whatever its type says. Whoever starts programs for a virtual server must survive all of them: the refusal
 * concerns one resource, and what runs already must go on.
 */

/**
 * What `start` returns, or why it cannot be; never throws. A refusal that comes later is the child's event as ever. `open` takes
 * one file descriptor and returns it.
 */
export function startOrRefusal<T extends ChildProcess>(
  start: () => T,
  open: () => number = openNothing,
): T | Error {
  try {
    const child = start();
    if (child.stdio !== undefined) return child;
    // Told once more, later, and by then nobody listens.
    child.on("error", () => {});
    const code = whoseLimit(open);
    return Object.assign(new Error(`spawn ${code}`), { code, errno: -constants.errno[code] });
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** More than the pipes of a child take. */
const DESCRIPTORS = 16;

/**
 * Whether this process has no file descriptor left (EMFILE) or the whole machine has none (ENFILE), which somebody else must
 * mend: the child will say it, but not now, and the same is told to whoever opens as much.
 */
function whoseLimit(open: () => number): "EMFILE" | "ENFILE" {
  const opened: number[] = [];
  try {
    while (opened.length < DESCRIPTORS) opened.push(open());
  } catch (error) {
    if (systemErrorCode(error) === "ENFILE") return "ENFILE";
  } finally {
    for (const descriptor of opened) closeSync(descriptor);
  }
  return "EMFILE";
}

function openNothing(): number {
  return openSync(devNull, "r");
}

/** The system's code and its words for it, for people: `E2BIG: argument list too long (spawn E2BIG)`. */
export function refusalText(error: Error): string {
  const { code, errno } = error as NodeJS.ErrnoException;
  // Those of the file system say it themselves.
  if (code === undefined || errno === undefined || error.message.startsWith(`${code}:`)) return error.message;
  return `${code}: ${getSystemErrorMessage(errno)} (${error.message})`;
}

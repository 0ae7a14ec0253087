import { execFile } from "node:child_process";
import { startOrRefusal } from "../refused-start.ts";
import type { UndoCommand } from "../resources/resource.ts";

/** One that takes longer hangs, and must not keep the others from being done. */
const UNDO_MS = 1_000;

/**
 * Runs them all at once. Resolves with those that failed or hung; whether that means anything they alone know, since what
 * is not there cannot be taken away either.
 */
export async function runUndo(commands: readonly UndoCommand[]): Promise<UndoCommand[]> {
  const ended = await Promise.all(commands.map(async (command) => ({ command, isDone: await run(command) })));
  return ended.filter(({ isDone }) => !isDone).map(({ command }) => command);
}

function run([program, ...args]: UndoCommand): Promise<boolean> {
  return new Promise((resolve) => {
    // One in an uninterruptible sleep does not even end when it is killed: nobody waits for it.
    const limit = setTimeout(() => resolve(false), UNDO_MS + 100);
    const end = (isDone: boolean) => {
      clearTimeout(limit);
      resolve(isDone);
    };
    const child = startOrRefusal(() =>
      execFile(program, args, { timeout: UNDO_MS, killSignal: "SIGKILL" }, (error) => end(error === null)),
    );
    if (child instanceof Error) end(false);
  });
}

// Starting a program so that the caller cannot tell us from it: same input and output, same signals, same exit status.
import { spawn } from "node:child_process";
import { constants } from "node:os";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"];

/** Runs a program with inherited stdio. Resolves to its exit status; a death by signal counts 128 + its number. */
export function run(file, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { stdio: "inherit", ...options });
    // A terminal sends Ctrl-C to the whole process group, a supervisor to us alone: forwarding serves the second, and
    // the programs that we start count two signals within a moment as one.
    const forward = (signal) => child.kill(signal);
    for (const signal of SIGNALS) process.on(signal, forward);
    const done = () => {
      for (const signal of SIGNALS) process.off(signal, forward);
    };
    child.once("error", (error) => {
      done();
      reject(error);
    });
    child.once("exit", (status, signal) => {
      done();
      resolve(signal === null ? (status ?? 1) : 128 + (constants.signals[signal] ?? 0));
    });
  });
}

/** Runs a program and ends this process exactly as it ended. */
export async function passThrough(file, args, options) {
  const status = await run(file, args, options);
  const signal = SIGNALS.find((each) => status === 128 + constants.signals[each]);
  if (signal !== undefined && process.platform !== "win32") process.kill(process.pid, signal);
  process.exit(status);
}

/**
 * The command `lockstep` (design, section 9).
 *
 * Machines start it often: `check` runs at every program start of every workstation. So nothing is imported before it
 * is known to be needed: `check` is recognised by hand and does not even load the argument parser, every other command
 * loads its own file and no other one's, and errors are put into words only where there is one.
 */

/** Our program runs again in each thread of the loader, with this as its only argument. */
const WORKER_ARGUMENT = "--lockstep-load-worker";

process.stdout.on("error", endQuietly);
process.stderr.on("error", endQuietly);

try {
  process.exitCode = await run(process.argv.slice(2));
} catch (error) {
  const { reportFailure } = await import("./failure.ts");
  process.exitCode = reportFailure(error, { json: process.argv.includes("--json"), stdout: process.stdout });
}

async function run(argv: readonly string[]): Promise<number> {
  if (argv[0] === WORKER_ARGUMENT) {
    await import("./load/worker-thread.ts");
    return 0;
  }
  if (argv[0] === "check") {
    const { parseCheck, runCheck } = await import("./commands/check.ts");
    const request = parseCheck(argv.slice(1));
    if (request !== null) return await runCheck(request);
  }
  const { runProgram } = await import("./program.ts");
  return await runProgram(argv);
}

/** Whoever read our output has gone (`lockstep files list | head`): no one is left to tell. */
function endQuietly(error: NodeJS.ErrnoException): void {
  if (error.code === "EPIPE") process.exit(process.exitCode ?? 0);
  throw error;
}

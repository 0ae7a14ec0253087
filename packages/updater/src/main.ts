/**
 * The updater as a program of its own: what Update.zip carries as updater.mjs.
 *
 *   updater.mjs apply [DIR]   carries out a run that another updater hands over, or updates DIR by itself
 *   updater.mjs self-test     carries out a small update in an empty directory; prints "self-test passed"
 *   updater.mjs version       prints its version
 */
import { exitStatus } from "@lockstep/protocol/wire";
import { describeProblem } from "./report.ts";
import { UPDATER_VERSION } from "./version.ts";

const [command, directory] = process.argv.slice(2);

async function main(): Promise<number> {
  if (command === "version") {
    console.log(UPDATER_VERSION);
    return 0;
  }
  if (command === "self-test") {
    const { selfTest } = await import("./self-test.ts");
    await selfTest();
    console.log("self-test passed");
    return 0;
  }
  if (command === "apply" && directory === undefined && process.send !== undefined) {
    const { serveRun } = await import("./serve-run.ts");
    return await serveRun();
  }
  if (command === "apply" && directory !== undefined) {
    const { updateAlone } = await import("./serve-run.ts");
    return await updateAlone(directory);
  }
  console.error("usage: updater.mjs apply [DIR] | self-test | version");
  return exitStatus("USAGE");
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(describeProblem(error));
  process.exitCode = 1;
}

/**
 * A hub in a process of its own, to be killed by tests. Its first argument is JSON: options of startHub. Prints
 * `ready URL`, or `failed CODE`. SIGTERM stops it.
 */
import { silentLogger } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol";
import { startHub } from "../../../packages/hub/src/hub.ts";
import { TEST_UPDATER } from "./test-hub.ts";

try {
  const options = JSON.parse(process.argv[2] ?? "{}");
  const hub = await startHub({ listen: "127.0.0.1:0", log: silentLogger, updater: TEST_UPDATER, ...options });
  process.on("SIGTERM", () => {
    hub.stop().then(
      () => process.stdout.write("stopped\n"),
      (error: unknown) => process.stdout.write(`failed ${String(error)}\n`),
    );
  });
  process.stdout.write(`ready ${hub.url}\n`);
} catch (error) {
  process.stdout.write(`failed ${isLockstepError(error) ? error.code : String(error)}\n`);
  process.exitCode = 1;
}

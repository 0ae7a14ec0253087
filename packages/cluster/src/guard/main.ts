import { GuardProcess } from "./guard-process.ts";
import { lineReader, type ToGuard } from "./messages.ts";

// The guard of one virtual server. Started by its daemon (guard-client.ts), fed through standard input, and never told
// to end: it ends when its daemon does, after it has seen to it that nothing of the service is left.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {});
// A daemon that is gone hears nothing; that is what the end of our input says.
process.stdout.on("error", () => {});
const guard = new GuardProcess(
  (message) => process.stdout.write(`${JSON.stringify(message)}\n`),
  () => process.exit(0),
);
process.stdin.on(
  "data",
  lineReader<ToGuard>((message) => guard.take(message)),
);
process.stdin.on("end", () => guard.closed());
process.stdin.on("error", () => guard.closed());

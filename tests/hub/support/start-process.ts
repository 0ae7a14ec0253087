/** A hub in a process of its own: to be killed, or to have its memory measured. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { TestContext } from "node:test";

/** Starts one that ends with the test. `options`: those of startHub, as far as JSON can say them. */
export async function startProcess(
  t: TestContext,
  options: object,
): Promise<{ url: string; process: ChildProcess }> {
  const program = join(import.meta.dirname, "hub-process.ts");
  const child = spawn(process.execPath, [program, JSON.stringify(options)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGTERM");
    await once(child, "exit");
  });
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.startsWith("ready ")) return { url: line.slice(6), process: child };
    throw new Error(line);
  }
  throw new Error("the hub ended without a word");
}

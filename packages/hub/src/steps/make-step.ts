import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { ContentFile, FromMaker, ToMaker } from "./messages.ts";

/** A checkout runs the source; what ships has the maker as a bundle of its own beside the hub's. */
const MAIN = fileURLToPath(
  new URL(import.meta.url.endsWith(".ts") ? "./main.ts" : "./step-maker.mjs", import.meta.url),
);
/** One arena for all threads: those of V8 and zlib, which do little, had 4 MiB in arenas of their own (307.8 MiB, not 311.8). */
const ENVIRONMENT = { MALLOC_ARENA_MAX: "1" };
const MESSAGE_BYTES_MAX = 64 * 1024;

export interface StepOrder {
  /** Files with the texts of both manifests. */
  readonly from: string;
  readonly to: string;
  readonly target: string;
  /** Provides the contents that the step is made of, as files. */
  readonly provide: (
    contents: Extract<FromMaker, { kind: "needs" }>["contents"],
  ) => Promise<Readonly<Record<string, ContentFile>>>;
  readonly signal: AbortSignal;
}

/** Makes a step in a process of its own. Resolves to its length in bytes, or null where nothing would be saved. */
export async function makeStepApart(order: StepOrder): Promise<number | null> {
  const child = spawn(process.execPath, [MAIN], {
    cwd: "/",
    env: ENVIRONMENT,
    stdio: ["pipe", "pipe", "pipe"],
    signal: order.signal,
    killSignal: "SIGKILL",
  });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once("error", reject).once("close", resolve);
  });
  // Awaited below, after everything that it said; until then its failure is nobody's surprise.
  ended.catch(() => {});
  let problem = "";
  child.stderr.on("data", (chunk: Buffer) => {
    if (problem.length < MESSAGE_BYTES_MAX) problem += chunk.toString();
  });
  child.stdin.on("error", () => {});
  const tell = (message: ToMaker) => void child.stdin.write(`${JSON.stringify(message)}\n`);
  tell({ kind: "plan", from: order.from, to: order.to });
  let made: Extract<FromMaker, { kind: "made" }> | null = null;
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      const message = JSON.parse(line) as FromMaker;
      if (message.kind === "made") made = message;
      else tell({ kind: "make", contents: await order.provide(message.contents), target: order.target });
    }
  } catch (error) {
    child.kill("SIGKILL");
    await ended.catch(() => {});
    throw error;
  }
  const status = await ended;
  if (made === null)
    throw new Error(`the maker of a step ended with ${status ?? "a signal"}: ${problem.trim()}`);
  return made.bytes;
}

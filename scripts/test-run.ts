import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import type { StepOutcome } from "./step.ts";
import { readTally } from "./test-tally.ts";

/**
 * Runs test files with node:test and counts by the runner's own figures.
 *
 * `together` runs all files in one process, which is ten times quicker and right for tests that touch nothing outside;
 * `apart` gives each file a process, for those with databases, servers and signals.
 */
export interface TestRun {
  readonly files: readonly string[];
  readonly isolation: "together" | "apart";
  /** How many files run at once when they run apart. */
  readonly concurrency: number;
  /** A test that takes longer has hung, in milliseconds. */
  readonly timeoutMs: number;
  /** Show progress as it comes, or keep the output for the outcome. */
  readonly output: "live" | "kept";
}

const here = import.meta.dirname;
const PROPERTY_SEED = pathToFileURL(join(here, "../tests/support/property-seed.ts")).href;

export async function runTests(run: TestRun): Promise<StepOutcome> {
  if (run.files.length === 0) return { ok: true, output: "", passed: 0, failed: 0, skipped: [] };
  const directory = await mkdtemp(join(tmpdir(), "lockstep-tally-"));
  try {
    const tallyFile = join(directory, "tally");
    const { status, output } = await start(run, tallyFile);
    const tally = readTally(await readFile(tallyFile, "utf8").catch(() => ""));
    // A runner that died has no figures: that is one failure, however many tests it had passed.
    if (tally === null) return { ok: false, output, passed: 0, failed: 1, skipped: [] };
    const skipped = tally.skipped.map((each) => ({ ...each, file: relative(".", each.file) }));
    const failed = tally.failed === 0 && status !== 0 ? 1 : tally.failed;
    return { ok: failed === 0, output, passed: tally.passed, failed, skipped };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function start(run: TestRun, tallyFile: string): Promise<{ status: number; output: string }> {
  const args = [
    "--test",
    ...(run.isolation === "together"
      ? ["--import", PROPERTY_SEED, "--test-isolation=none"]
      : [`--test-concurrency=${run.concurrency}`]),
    `--test-timeout=${run.timeoutMs}`,
    `--test-reporter=${join(here, "test-progress.ts")}`,
    "--test-reporter-destination=stdout",
    `--test-reporter=${join(here, "test-tally.ts")}`,
    `--test-reporter-destination=${tallyFile}`,
    ...run.files,
  ];
  return new Promise((resolve) => {
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    if (run.output === "live" && process.stdout.isTTY) env.FORCE_COLOR = "1";
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"], env });
    const chunks: Buffer[] = [];
    const take = (chunk: Buffer) => {
      if (run.output === "live") process.stdout.write(chunk);
      else chunks.push(chunk);
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    child.once("error", (error) => resolve({ status: 1, output: error.message }));
    child.once("close", (status) =>
      resolve({ status: status ?? 1, output: Buffer.concat(chunks).toString("utf8") }),
    );
  });
}

import { glob } from "node:fs/promises";
import { join } from "node:path";
import { programStep, type Step } from "./step.ts";
import { runTests } from "./test-run.ts";

const bin = (name: string) => join("node_modules", ".bin", name);

/** The files that a pattern names, in a fixed order. */
export async function findFiles(...patterns: string[]): Promise<string[]> {
  const files: string[] = [];
  for await (const file of glob(patterns)) files.push(file);
  return files.sort();
}

const UNIT_TIMEOUT_MS = 120_000;

/** Everything that needs neither database nor network nor a second process; under two minutes on two slow cores. */
export function checkSteps(): Step[] {
  const tests = (name: string, pattern: string): Step => ({
    name,
    run: async () =>
      runTests({
        files: await findFiles(pattern),
        isolation: "together",
        concurrency: 1,
        timeoutMs: UNIT_TIMEOUT_MS,
        output: "kept",
      }),
  });
  return [
    tests("unit and property tests", "packages/*/src/**/*.test.ts"),
    programStep("types", bin("tsc"), ["-p", "."]),
    programStep("types of core, without Node", bin("tsc"), ["-p", "packages/core"]),
    programStep("format and lint", bin("biome"), ["check", "--error-on-warnings"]),
    tests("layers and tidiness", "tests/tidy/*.test.ts"),
    programStep("unused code", bin("knip"), ["--no-config-hints"]),
  ];
}

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { BOMBS } from "./bombs.ts";

/** B6: little that becomes much, stopped at its cap. */
const GROWTH_MIB_MAX = 64;
const skip = process.platform === "linux" ? false : "reads /proc";

interface Said {
  readonly name: string;
  readonly outcome: string;
  readonly grownMiB: number;
  readonly bytes: number;
}

async function goOff(way: "read" | "harm", names: readonly string[]): Promise<Said[]> {
  const program = join(import.meta.dirname, "bomb-process.ts");
  const child = spawn(process.execPath, ["--expose-gc", "--max-semi-space-size=2", program, way, ...names], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, MALLOC_ARENA_MAX: "1" },
  });
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  await new Promise((resolve) => child.once("close", resolve));
  return said
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Said);
}

test("B6: no bomb goes off: each is stopped at its cap, in little memory", { skip }, async () => {
  const said = await goOff("read", Object.keys(BOMBS));
  assert.ok(said.length >= 12);
  assert.deepEqual(
    said.map(({ name }) => name),
    Object.keys(BOMBS),
  );
  for (const { name, outcome, grownMiB } of said) {
    const bomb = BOMBS[name];
    assert.match(outcome, bomb?.says ?? /never/, name);
    assert.ok(grownMiB < (bomb?.growthMiBMax ?? GROWTH_MIB_MAX), `${name}: ${grownMiB} MiB`);
  }
});

test("B6: the control: without limits the same bytes take far more", { skip }, async () => {
  const compared = Object.keys(BOMBS).filter((name) => BOMBS[name]?.isCompared === true);
  assert.ok(compared.length >= 6);
  for (const each of compared) {
    // In a process of its own: what one leaves free would hide what the next one takes.
    const [said] = await goOff("harm", [each]);
    assert.ok(Number(said?.grownMiB) > 2 * GROWTH_MIB_MAX, `${each}: ${said?.grownMiB} MiB`);
  }
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { askedSeed } from "@lockstep/testing";
import { SETTINGS_RULES, type SettingsRules } from "./settings-disk.ts";
import { type SettingsCounts, SettingsViolation, SettingsWorld } from "./settings-world.ts";

/** LOCKSTEP_SEED=fresh gives others; a failure prints its seed. */
const FIXED_SEED = 1;
const OTHER_SEED = askedSeed(2_000_000);
const SEEDS = 150;
const MUTANT_SEEDS_MAX = 300;

for (const [name, seed] of [
  ["fixed", FIXED_SEED],
  ["other", OTHER_SEED],
] as const)
  test(`a service finds what its last owner stored, whatever crashed (${name} seed ${seed})`, async (t) => {
    const sums: Record<string, number> = {};
    for (let each = seed; each < seed + SEEDS; each++) {
      let counts: SettingsCounts;
      try {
        counts = await new SettingsWorld(each).run();
      } catch (error) {
        throw new Error(`seed ${each}: ${String(error)}`, { cause: error });
      }
      for (const [what, count] of Object.entries(counts)) sums[what] = (sums[what] ?? 0) + count;
    }
    t.diagnostic(`${SEEDS} seeds: ${JSON.stringify(sums)}`);
    // All of it must have happened, or the runs prove little.
    for (const [what, count] of Object.entries(sums))
      assert.ok(count >= SEEDS / 10, `${what}: only ${count}`);
  });

const MUTANTS: Readonly<Record<string, Partial<SettingsRules>>> = {
  "no token": { token: false },
  "manifest before contents": { contentsFirst: false },
  "no fsync of files": { syncFiles: false },
  "no fsync of directories": { syncDirectories: false },
};

for (const [name, rules] of Object.entries(MUTANTS))
  test(`missed when it is gone: ${name}`, async (t) => {
    for (let seed = 1; seed <= MUTANT_SEEDS_MAX; seed++) {
      try {
        await new SettingsWorld(seed, { ...SETTINGS_RULES, ...rules }).run();
      } catch (error) {
        if (!(error instanceof SettingsViolation)) throw error;
        t.diagnostic(`told after ${seed} seeds: ${error.message.slice(0, 200)}`);
        return;
      }
    }
    assert.fail(`passes for the real rules in ${MUTANT_SEEDS_MAX} seeds`);
  });

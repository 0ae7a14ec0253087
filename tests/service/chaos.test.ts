import assert from "node:assert/strict";
import { test } from "node:test";
import { askedSeed } from "@lockstep/testing";
import { usePostgres } from "../support/postgres.ts";
import { runChaos } from "./chaos.ts";

const server = usePostgres();

/** `npm run sim -- --jobs` runs it with ten thousand steps and two hundred kills. */
const STEPS = Number(process.env.LOCKSTEP_CHAOS_STEPS ?? 400);
const KILLS = Number(process.env.LOCKSTEP_CHAOS_KILLS ?? 10);
const SEED = askedSeed(20261123);

test(`${STEPS} steps, ${KILLS} kills of services, workers and hub: none lost, none recorded twice (seed ${SEED})`, async (t) => {
  const began = Date.now();
  const report = await runChaos(t, server, {
    seed: SEED,
    steps: STEPS,
    kills: KILLS,
    pauseMs: 600,
    progress: (text) => t.diagnostic(`${Math.round((Date.now() - began) / 1000)} s: ${text}`),
  });
  t.diagnostic(JSON.stringify({ ...report, problems: report.problems.length }));
  assert.deepEqual(report.problems.slice(0, 20), []);
  assert.ok(report.steps >= STEPS);
});

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Prng } from "@lockstep/testing";
import { usePostgres } from "../support/postgres.ts";
import { HubProcess } from "./hub-process.ts";
import { findHistoryFaults, type HistoryMark, type HistoryStep } from "./job-history.ts";
import {
  call,
  killQuietly,
  readJob,
  startJob,
  startService,
  type TestService,
  temporaryDirectory,
  until,
} from "./service-world.ts";

/**
 * Many small processes over three job servers, and SIGKILLs of whatever there is while they run. More of both:
 * LOCKSTEP_KILLS_PROCESSES, LOCKSTEP_KILLS_COUNT, LOCKSTEP_KILLS_SEED.
 */
const PROCESSES = Number(process.env.LOCKSTEP_KILLS_PROCESSES ?? 40);
const KILLS = Number(process.env.LOCKSTEP_KILLS_COUNT ?? 12);
const SEED = Number(process.env.LOCKSTEP_KILLS_SEED ?? Date.now() % 1_000_000_000);
const QUEUES = ["\\A", "\\B", "\\C"] as const;

const server = usePostgres();

/** A fork and a join, and beside it a step that must not run twice. */
const AFTER: Readonly<Record<string, readonly string[]>> = {
  first: [],
  left: ["first"],
  right: ["first"],
  last: ["left", "right"],
  once: [],
};

test(`steps survive SIGKILLs of services, workers and hub (seed ${SEED})`, async (t) => {
  const prng = new Prng(SEED);
  const hub = await HubProcess.start(t, await server.database(t));
  await call(hub, "PUT", "/v1/settings", { "Common/Jobs/LeaseSeconds": 5 });
  const trace = join(temporaryDirectory(t), "trace");
  writeFileSync(trace, "");
  const homes = QUEUES.map(() => temporaryDirectory(t));
  const start = (at: number) =>
    startService(t, hub, {
      queues: [QUEUES[at] ?? ""],
      machine: `machine-${at}`,
      directory: homes[at] ?? "",
    });
  const services: TestService[] = [];
  for (let at = 0; at < QUEUES.length; at++) services.push(await start(at));
  const jobs: number[] = [];
  for (let number = 0; number < PROCESSES; number++)
    jobs.push(
      await startJob(
        hub,
        `kills-${number}`,
        Object.keys(AFTER).map((name) => ({
          name,
          component: "Command",
          task: "Script",
          queue: prng.pick(QUEUES),
          parameters: {
            shell: "sh",
            script: 'echo "$2 begun" >> "$1"; sleep "$3"; echo "$2 done" >> "$1"',
            arguments: [trace, `${number} ${name}`, String(prng.below(20) / 100)],
          },
          onSuccess: Object.keys(AFTER).filter((each) => AFTER[each]?.includes(name)),
          onCrash: name === "once" ? ("freeze" as const) : ("rerun" as const),
          crashes: 100,
        })),
      ),
    );
  const counts = { service: 0, engine: 0, worker: 0, hub: 0 };
  const marksSoFar = () => readFileSync(trace, "utf8").split("\n").length;
  for (let kill = 0; kill < KILLS; kill++) {
    // In the middle of work, not in the middle of a start.
    const wanted = Math.min(marksSoFar() + 1 + prng.below(6), PROCESSES * 2);
    await until(() => marksSoFar() >= wanted);
    const at = prng.below(services.length);
    const service = services[at];
    const what = prng.pick(["service", "engine", "worker", "worker", "hub"] as const);
    counts[what] += 1;
    if (what === "hub") {
      await hub.kill();
      await hub.restart();
    } else if (what === "engine") killQuietly(service?.engine() ?? 0);
    else if (what === "worker") for (const pid of service?.workers().slice(0, 1) ?? []) killQuietly(pid);
    else {
      await service?.kill();
      services[at] = await start(at);
    }
  }
  const details = await Promise.all(
    jobs.map((job) =>
      until(async () => {
        const detail = await readJob(hub, job);
        return detail.process.state === "running" ? null : detail;
      }),
    ),
  );
  const steps: HistoryStep[] = details.flatMap(({ steps: each }, number) =>
    each.map(({ name, state, outcome, runs }) => ({
      process: number,
      name,
      after: AFTER[name] ?? [],
      onCrash: name === "once" ? "freeze" : "rerun",
      state,
      outcome,
      runs: runs.map((run) => run.outcome),
    })),
  );
  const marks = readFileSync(trace, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map(readMark);
  const lost = steps.flatMap(({ runs }) => runs).filter((outcome) => outcome === "lost").length;
  t.diagnostic(
    `${steps.length} steps, ${KILLS} kills (${JSON.stringify(counts)}), ${lost} claims lost, ${marks.length} marks`,
  );
  assert.deepEqual(findHistoryFaults(steps, marks), [], `seed ${SEED}`);
  for (const service of services) assert.equal(await service.stop(), 0);
});

function readMark(line: string): HistoryMark {
  const [number, name = "", kind] = line.split(" ");
  return { process: Number(number), name, kind: kind === "begun" ? "begun" : "done" };
}

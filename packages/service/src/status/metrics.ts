import type { LogProblem } from "../log/types.ts";
import { MetricsText } from "./metrics-text.ts";
import type { QueueState, ServiceState, StepCounters } from "./types.ts";

/** What the machine says of this process. */
export interface ProcessUse {
  readonly residentBytes: number;
  readonly cpuSeconds: number;
}

const PREFIX = "lockstep_service_";
const PHASES = ["starting", "running", "updating", "draining", "stopped", "failed"] as const;

/** The metrics of a service in Prometheus' text format. Documented in docs/operating/service.md. */
export function formatMetrics(
  state: ServiceState,
  logProblem: LogProblem | null,
  use: ProcessUse,
  nowMs: number,
): string {
  const text = new MetricsText();
  const gauge = (name: string, help: string, value: number | null) =>
    text.add("gauge", PREFIX + name, help, value === null ? [] : [{ value }]);
  const byQueue = (name: string, help: string, read: (queue: QueueState) => number | null) =>
    text.add("gauge", PREFIX + name, help, samplesOf(state, read));
  const { version, machine, instance } = state;
  text.add("gauge", `${PREFIX}info`, "Always 1; what runs here.", [
    { value: 1, labels: { version, machine, instance } },
  ]);
  text.add(
    "gauge",
    `${PREFIX}phase`,
    "1 for the phase that the service is in, 0 for the others.",
    PHASES.map((phase) => ({ value: phase === state.phase ? 1 : 0, labels: { phase } })),
  );
  gauge("start_time_seconds", "When the service started, in seconds since 1970.", state.startedAtMs / 1000);
  gauge("software_revision", "Software revision of the service's installation.", state.revision);
  gauge(
    "config_awaiting_restart",
    "Changed parameters that take effect at the next start.",
    state.config.awaitingRestart.length,
  );
  gauge(
    "config_refused",
    "Faults of the changed configuration that was not taken over.",
    state.config.refused.length,
  );
  byQueue("hub_revision", "Software revision of the hub as last heard.", ({ hub }) => hub.revision);
  byQueue("hub_reachable", "Whether the hub answered last time.", ({ hub }) =>
    hub.reachable === null ? null : Number(hub.reachable),
  );
  byQueue("hub_last_answer_seconds", "Time since the hub last answered.", ({ hub }) =>
    hub.lastAnswerAtMs === null ? null : Math.max(0, nowMs - hub.lastAnswerAtMs) / 1000,
  );
  byQueue(
    "lease_seconds",
    "Time until the lease ends; 0 when none is held.",
    ({ leaseLeftMs }) => Math.max(0, leaseLeftMs ?? 0) / 1000,
  );
  byQueue("updating", "Whether the hub gives update steps only.", ({ updating }) => Number(updating));
  byQueue("withheld", "Whether the hub gives no steps at the moment.", ({ withheld }) =>
    Number(withheld !== null),
  );
  bySlots(text, state, "slots_used", "Slots in which a step runs.", "used");
  bySlots(text, state, "slots", "Slots that there are.", "total");
  byQueue("steps_waiting", "Fetched steps that have not begun.", ({ waiting }) => waiting);
  byQueue("results_waiting", "Results that the hub has not confirmed.", ({ results }) => results.waiting);
  byQueue(
    "results_limit",
    "Results that may wait before no further step is asked for.",
    ({ results }) => results.limit,
  );
  byQueue("results_oldest_seconds", "Age of the oldest result that waits.", ({ results }) =>
    results.oldestAtMs === null ? 0 : Math.max(0, nowMs - results.oldestAtMs) / 1000,
  );
  text.add(
    "gauge",
    `${PREFIX}workers`,
    "Worker processes.",
    state.queues.map(({ queue }) => ({
      value: state.workers.filter((worker) => worker.queue === queue).length,
      labels: { queue },
    })),
  );
  addCounters(text, state);
  gauge("log_broken", "Whether the log cannot be written as configured.", Number(logProblem !== null));
  gauge("log_records_lost", "Records that are missing from the log since it broke.", logProblem?.lost ?? 0);
  text.add("gauge", "process_resident_memory_bytes", "Resident memory of the service.", [
    { value: use.residentBytes },
  ]);
  text.add("counter", "process_cpu_seconds_total", "Processor time of the service.", [
    { value: use.cpuSeconds },
  ]);
  return text.toString();
}

function samplesOf(state: ServiceState, read: (queue: QueueState) => number | null) {
  return state.queues.flatMap((queue) => {
    const value = read(queue);
    return value === null ? [] : [{ value, labels: { queue: queue.queue } }];
  });
}

function bySlots(
  text: MetricsText,
  state: ServiceState,
  name: string,
  help: string,
  member: "used" | "total",
): void {
  const samples = state.queues.flatMap(({ queue, internal, external }) => [
    { value: internal[member], labels: { queue, kind: "internal" } },
    { value: external[member], labels: { queue, kind: "external" } },
  ]);
  text.add("gauge", PREFIX + name, help, samples);
}

const OUTCOMES = [
  ["success", "succeeded"],
  ["error", "failed"],
  ["deferred", "deferred"],
  ["given-back", "givenBack"],
] as const satisfies readonly (readonly [string, keyof StepCounters])[];

function addCounters(text: MetricsText, state: ServiceState): void {
  const counter = (name: string, help: string, member: keyof StepCounters) =>
    text.add(
      "counter",
      PREFIX + name,
      help,
      samplesOf(state, ({ counters }) => counters[member]),
    );
  counter("steps_claimed_total", "Steps fetched from the hub.", "claimed");
  text.add(
    "counter",
    `${PREFIX}steps_ended_total`,
    "Steps that ended, by outcome.",
    state.queues.flatMap(({ queue, counters }) =>
      OUTCOMES.map(([outcome, member]) => ({ value: counters[member], labels: { queue, outcome } })),
    ),
  );
  counter("claims_lost_total", "Claims that the hub took away.", "lost");
  counter("steps_timed_out_total", "Steps ended at their time limit.", "timedOut");
  counter("worker_crashes_total", "Worker processes that died over a step.", "workerCrashes");
  counter("exchanges_total", "Requests to the hub.", "exchanges");
  counter("exchanges_failed_total", "Requests to the hub that failed.", "exchangesFailed");
}

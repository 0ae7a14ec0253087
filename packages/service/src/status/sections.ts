import { counted } from "@lockstep/core";
import type { LogProblem } from "../log/types.ts";
import { type Html, html } from "./html.ts";
import type { QueueState, ServicePhase, ServiceState, ShownStep, SlotState } from "./types.ts";

/** Everything above the log: what changes while one looks. */
export function renderState(state: ServiceState, problem: LogProblem | null, nowMs: number): Html {
  return html`${renderNotes(state, problem)}${renderFigures(state, nowMs)}
<h2>Queues</h2>
${
  state.queues.length === 0
    ? html`<p class="card empty">No queue is configured: this service gets no steps.</p>`
    : html`<div class="queues">${state.queues.map((queue) => renderQueue(queue, nowMs))}</div>`
}
<h2>Steps</h2>
${renderSteps(state.steps, nowMs)}`;
}

const PHASE_LOOK: Record<ServicePhase, string> = {
  starting: "",
  running: "good",
  updating: "warn",
  draining: "warn",
  stopped: "",
  failed: "bad",
};

export function renderPhase(phase: ServicePhase): Html {
  return html`<span class="pill ${PHASE_LOOK[phase]}">${phase}</span>`;
}

/** What somebody should look at. */
function renderNotes(state: ServiceState, problem: LogProblem | null): Html[] {
  const notes: Html[] = [];
  const note = (look: string, title: string, text: string) =>
    notes.push(html`<div class="note ${look}" role="status"><b>${title}</b>${text}</div>`);
  if (state.detail !== null)
    note(state.phase === "failed" ? "bad" : "warn", `The service is ${state.phase}`, state.detail);
  if (problem !== null)
    note(
      "bad",
      "The log cannot be written; the service works on",
      `${problem.problem} (${counted(problem.lost, "record")} lost)`,
    );
  if (state.config.refused.length > 0)
    note(
      "bad",
      "The changed configuration has faults and was not taken over",
      state.config.refused.join("; "),
    );
  if (state.config.awaitingRestart.length > 0)
    note("warn", "Changed parameters take effect at the next start", state.config.awaitingRestart.join(", "));
  for (const { queue, hub, withheld, results } of state.queues) {
    if (hub.lastError !== null)
      note(
        "bad",
        hub.reachable === false
          ? `${queue}: the hub is out of reach`
          : `${queue}: another service has the queue`,
        `${hub.lastError.code}: ${hub.lastError.message}`,
      );
    if (withheld !== null) note("warn", `${queue}: the hub gives no steps`, withheld);
    if (results.waiting >= results.limit)
      note(
        "bad",
        `${queue}: the buffer of results is full`,
        "No further step is asked for until the hub takes them.",
      );
  }
  return notes;
}

function renderFigures(state: ServiceState, nowMs: number): Html {
  const sum = (read: (queue: QueueState) => number) =>
    state.queues.reduce((total, queue) => total + read(queue), 0);
  const used = sum(({ internal, external }) => internal.used + external.used);
  const total = sum(({ internal, external }) => internal.total + external.total);
  const hubRevision =
    state.queues.map(({ hub }) => hub.revision).find((revision) => revision !== null) ?? null;
  const behind = state.revision !== null && hubRevision !== null && state.revision !== hubRevision;
  return html`<div class="figures">
${figure("Software revision", state.revision === null ? "none" : String(state.revision), behind ? `hub ${hubRevision}` : "")}
${figure("Slots in use", String(used), `of ${total}`)}
${figure("Steps done", formatCount(sum(({ counters }) => counters.succeeded)), "")}
${figure("Steps failed", formatCount(sum(({ counters }) => counters.failed)), "")}
${figure("Results waiting", formatCount(sum(({ results }) => results.waiting)), "")}
${figure("Up for", formatDuration(nowMs - state.startedAtMs), "")}
</div>`;
}

function figure(name: string, value: string, more: string): Html {
  return html`<div class="card figure"><span>${name}</span><strong>${value}</strong>${more === "" ? null : html`<em>${more}</em>`}</div>`;
}

function renderQueue(queue: QueueState, nowMs: number): Html {
  const { hub, counters, results } = queue;
  return html`<section class="card">
<div class="top"><h3>${queue.queue}</h3>${queue.updating ? html`<span class="pill warn">updating</span>` : null}${renderHub(queue)}</div>
<p class="sub">${hub.url}${hub.lastAnswerAtMs === null ? null : html` · last answer ${renderTime(hub.lastAnswerAtMs)}`}${
    queue.leaseLeftMs === null ? null : html` · lease ${formatDuration(Math.max(0, queue.leaseLeftMs))}`
  }</p>
${renderBar("internal", queue.internal)}
${renderBar("external", queue.external)}
${renderBar("results", { used: results.waiting, total: results.limit })}
<dl>${pair("waiting", queue.waiting)}${pair("done", counters.succeeded)}${pair("failed", counters.failed)}${pair(
    "deferred",
    counters.deferred,
  )}${pair("given back", counters.givenBack)}${pair("lost", counters.lost)}${pair("timed out", counters.timedOut)}${
    results.oldestAtMs === null ? null : pair("oldest result", formatDuration(nowMs - results.oldestAtMs))
  }</dl>
</section>`;
}

function renderHub({ hub, withheld }: QueueState): Html {
  if (hub.reachable === null) return html`<span class="pill">asks the hub</span>`;
  if (!hub.reachable) return html`<span class="pill bad">hub out of reach</span>`;
  if (hub.lastError !== null) return html`<span class="pill bad">taken over</span>`;
  return withheld === null
    ? html`<span class="pill good">serving</span>`
    : html`<span class="pill warn">withheld</span>`;
}

function renderBar(name: string, { used, total }: SlotState): Html {
  const percent = total === 0 ? 0 : Math.min(100, (100 * used) / total);
  // Something is more than nothing, also where one in ten thousand would not show.
  const width = used > 0 ? Math.max(percent, 1.5) : 0;
  return html`<div class="bar ${used >= total && total > 0 ? "full" : ""}"><span>${name}</span><svg viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true"><rect width="${width.toFixed(1)}" height="1"/></svg><span>${used} / ${formatCount(total)}</span></div>`;
}

const pair = (name: string, value: number | string) =>
  html`<div><dt>${name}</dt><dd>${typeof value === "number" ? formatCount(value) : value}</dd></div>`;

const STEP_LOOK: Record<ShownStep["state"], string> = {
  waiting: "",
  processing: "warn",
  success: "good",
  error: "bad",
  deferred: "warn",
  "given-back": "",
  lost: "bad",
};

function renderSteps(steps: readonly ShownStep[], nowMs: number): Html {
  if (steps.length === 0) return html`<p class="card empty">No steps yet.</p>`;
  return html`<div class="card steps"><table>
<thead><tr><th>State</th><th>Step</th><th>Process</th><th>Message</th><th>Queue</th><th>Since</th><th class="num">Took</th></tr></thead>
<tbody>${steps.map((step) => renderStep(step, nowMs))}</tbody></table></div>`;
}

function renderStep(step: ShownStep, nowMs: number): Html {
  const tookMs = step.startedAtMs === null ? null : (step.endedAtMs ?? nowMs) - step.startedAtMs;
  return html`<tr><td><span class="pill ${STEP_LOOK[step.state]}">${step.state}</span></td>
<td>${step.name}<small>${step.id} · ${step.component} ${step.task} · ${step.execution}${step.attempt > 1 ? ` · try ${step.attempt}` : ""}</small></td>
<td>${step.process.name}<small>${step.process.id}</small></td>
<td class="text">${step.message.slice(0, 300)}</td>
<td data-name="queue">${step.queue}</td>
<td data-name="since">${renderTime(step.endedAtMs ?? step.startedAtMs ?? step.claimedAtMs)}</td>
<td class="num" data-name="took">${tookMs === null ? "–" : formatDuration(tookMs)}</td></tr>`;
}

/** In UTC; the page's script puts it into the reader's time zone. */
export function renderTime(timeMs: number): Html {
  const iso = new Date(timeMs).toISOString();
  return html`<time datetime="${iso}">${iso.slice(0, 19).replace("T", " ")} UTC</time>`;
}

function formatCount(value: number): string {
  return value.toLocaleString("en-US").replaceAll(",", "\u202f");
}

/** `350 ms`, `4.2 s`, `12 min`, `3 h 20 min`, `5 d 3 h` */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(Math.max(0, ms))} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

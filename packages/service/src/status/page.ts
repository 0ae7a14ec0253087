import { SEVERITIES } from "../log/line.ts";
import type { LogProblem, LogRecord } from "../log/types.ts";
import { Html, html } from "./html.ts";
import { isWanted, type LogFilter } from "./log-filter.ts";
import { SCRIPT } from "./script.ts";
import { renderPhase, renderState, renderTime } from "./sections.ts";
import { STYLE } from "./style.ts";
import type { ServiceState } from "./types.ts";

export interface PageInput {
  readonly state: ServiceState;
  readonly records: readonly LogRecord[];
  readonly problem: LogProblem | null;
  readonly filter: LogFilter;
  readonly nowMs: number;
  /** Of this answer's content security policy. */
  readonly nonce: string;
}

/** More would make the page heavy; the log file has all of them. */
const RECORDS_SHOWN_MAX = 400;

const ICON =
  "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' height='16' rx='4' fill='%232f5fd0'/%3E%3Cpath d='M4 5h8M4 8h8M4 11h5' stroke='%23fff' stroke-width='1.6' stroke-linecap='round'/%3E%3C/svg%3E";

/** The status page: whole without its script, and without anything from elsewhere. */
export function renderPage({ state, records, problem, filter, nowMs, nonce }: PageInput): string {
  const names = state.queues.map(({ queue }) => queue).join(", ");
  return html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>${names === "" ? state.machine : names} · job service</title><link rel="icon" href="${ICON}">
<style nonce="${nonce}">${new Html(STYLE)}</style></head>
<body><header><div><h1>Job service<small>${state.machine}</small></h1>${renderPhase(state.phase)}
<span class="live" id="live"><i></i><span>as of ${renderTime(nowMs)}</span></span>
<span class="facts">Lockstep ${state.version} · started ${renderTime(state.startedAtMs)}</span></div></header>
<main><div id="state">${renderState(state, problem, nowMs)}</div>
<h2 id="log-title">Log</h2>
${renderFilter(filter)}
${renderLog(records, filter)}
<footer>${state.config.file}${state.installation === null ? null : html` · installation ${state.installation}`} · instance ${state.instance}<br>
<a href="status.json">status.json</a> · <a href="metrics">metrics</a> · <a href="health">health</a></footer></main>
<script nonce="${nonce}">${new Html(SCRIPT)}</script></body></html>
`.text;
}

function renderFilter(filter: LogFilter): Html {
  const options = SEVERITIES.map((severity) => {
    const name =
      severity === "Info" ? "everything" : severity === "Warning" ? "warnings and worse" : "serious ones";
    const selected = severity === filter.severity ? new Html(" selected") : null;
    return html`<option value="${severity}"${selected}>${name}</option>`;
  });
  return html`<form method="get" action="./#log-title"><select name="severity" aria-label="severity">${options}</select>
<input name="text" value="${filter.text}" placeholder="only records with this text" aria-label="text" maxlength="200"><button>Filter</button></form>`;
}

function renderLog(records: readonly LogRecord[], filter: LogFilter): Html {
  const wanted = records.filter((record) => isWanted(record, filter)).slice(-RECORDS_SHOWN_MAX);
  const items = wanted
    .reverse()
    .map(
      ({ severity, timeMs, text }) =>
        html`<li class="${severity}">${renderTime(timeMs)}<span><b>${severity}</b> ${text}</span></li>`,
    );
  const empty = html`<li class="empty" id="no-log">${records.length === 0 ? "Nothing was logged yet." : "No record fits the filter."}</li>`;
  return html`<ul class="card log" id="log" data-newest="${records.at(-1)?.number ?? 0}">${items.length === 0 ? empty : items}</ul>`;
}

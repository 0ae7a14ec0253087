/**
 * What the page does beyond being read: it puts times into the reader's own time zone, and takes the server's word for
 * every change. Without it everything is there as well, as of the moment of loading.
 *
 * The server sends ready parts of the page, escaped where they were made; records of the log are put in as text.
 */
export const SCRIPT = `
"use strict";
const state = document.getElementById("state");
const log = document.getElementById("log");
const live = document.getElementById("live");
const form = document.querySelector("form");
const RECORDS_MAX = 1000;

function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    const today = at.toDateString() === new Date().toDateString();
    const clock = at.toLocaleTimeString(undefined, { hour12: false });
    time.textContent = today ? clock : at.toLocaleDateString() + " " + clock;
    time.title = at.toISOString();
  }
}

function wanted(record) {
  const order = ["Info", "Warning", "Serious"];
  return order.indexOf(record.severity) >= order.indexOf(form.severity.value)
    && record.text.toLowerCase().includes(form.text.value.toLowerCase());
}

function show(record) {
  if (!wanted(record)) return;
  const item = document.createElement("li");
  item.className = record.severity;
  const time = document.createElement("time");
  time.dateTime = new Date(record.timeMs).toISOString();
  const text = document.createElement("span");
  const severity = document.createElement("b");
  severity.textContent = record.severity;
  text.append(severity, " " + record.text);
  item.append(time, text);
  localTimes(item);
  document.getElementById("no-log")?.remove();
  log.prepend(item);
  while (log.children.length > RECORDS_MAX) log.lastElementChild.remove();
}

localTimes(document);
let newest = Number(log.dataset.newest);
const events = new EventSource("events?after=" + newest);
events.addEventListener("state", (event) => {
  const part = document.createElement("template");
  part.innerHTML = JSON.parse(event.data);
  localTimes(part.content);
  state.replaceChildren(part.content);
});
events.addEventListener("log", (event) => {
  for (const record of JSON.parse(event.data)) {
    if (record.number <= newest) continue;
    newest = record.number;
    show(record);
  }
});
events.addEventListener("restart", () => location.reload());
const shine = (on) => {
  live.classList.toggle("on", on);
  live.lastElementChild.textContent = on ? "live" : "not connected";
};
events.onopen = () => shine(true);
events.onerror = () => shine(false);
form.severity.addEventListener("change", () => form.requestSubmit());
`;

import { defineTask, permanentError } from "./task.ts";
import type { Component } from "./types.ts";

/**
 * Steps that wait hold no slot: they end as `deferred`, and the hub hands them out again at the time they name. So a
 * thousand steps may wait for weeks, and no restart forgets them.
 */
const POLL_MS_DEFAULT = 15_000;
/** The clock of this machine may be ahead of the one that made the time; ask again in pieces, and lastly close. */
const DEFER_MS_MAX = 6 * 3_600_000;

const delay = defineTask({
  execution: "internal",
  description: "Waits for a time, counted from when the step was first taken up.",
  parameters: {
    seconds: {
      type: "integer",
      required: true,
      minimum: 0,
      maximum: 31_536_000,
      description: "How long, in seconds.",
    },
  },
  run: async ({ parameters: { seconds }, step: { waitedMs } }) => {
    if (waitedMs === undefined)
      return permanentError("the hub does not say since when the step waits; it is of another version");
    const leftMs = seconds * 1000 - waitedMs;
    return leftMs <= 0
      ? { kind: "success", message: `waited for ${seconds} s` }
      : { kind: "deferred", afterMs: leftMs, message: `waits for ${seconds} s` };
  },
});

const until = defineTask({
  execution: "internal",
  description: "Waits until a moment.",
  parameters: {
    time: {
      type: "text",
      required: true,
      check: (value) =>
        parseTime(String(value)) === null ? "must be a time as in ISO 8601 with its zone" : null,
      description: "The moment in ISO 8601 with its zone, such as `2031-05-01T04:00:00+02:00`.",
    },
  },
  run: async ({ parameters: { time } }) => {
    const leftMs = (parseTime(time) ?? 0) - Date.now();
    return leftMs <= 0
      ? { kind: "success", message: `${time} has come` }
      : { kind: "deferred", afterMs: Math.min(leftMs, DEFER_MS_MAX), message: `waits until ${time}` };
  },
});

const forProcess = defineTask({
  execution: "internal",
  description: "Waits until another process has ended.",
  parameters: {
    process: { type: "integer", required: true, minimum: 1, description: "The number of the process." },
    expect: {
      type: "text",
      choices: ["finished", "failed", "any"],
      default: "finished",
      description: "How it has to end for this step to succeed.",
    },
    pollSeconds: {
      type: "integer",
      minimum: 1,
      maximum: 86_400,
      default: POLL_MS_DEFAULT / 1000,
      description: "How often to look, in seconds.",
    },
  },
  run: async (context) => {
    const { process: id, expect, pollSeconds } = context.parameters;
    if (id === context.step.process.id) return permanentError("a process that waits for itself never ends");
    if (context.hub === null) throw new TypeError("this task runs inside the service only");
    const summary = await context.hub.summary(id, context.signal);
    if (summary === null) return permanentError(`the hub knows no process ${id}`);
    const { state, name } = summary;
    if (state === "running" || state === "stuck")
      return {
        kind: "deferred",
        afterMs: pollSeconds * 1000,
        message: `process ${id} (${name}) is ${state}`,
      };
    const message = `process ${id} (${name}) is ${state}`;
    return expect === "any" || expect === state
      ? { kind: "success", message, output: { process: id, state } }
      : { kind: "error", message: `${message}, expected ${expect}`, permanent: true };
  },
});

export const component: Component = {
  name: "Wait",
  tasks: { Delay: delay, Until: until, Process: forProcess },
};

/** A moment in milliseconds, or null. A time without a zone would mean another moment on each machine. */
function parseTime(text: string): number | null {
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/.test(text)) return null;
  const time = Date.parse(text);
  return Number.isNaN(time) ? null : time;
}

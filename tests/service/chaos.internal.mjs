// The work of the chaos run: says when it begins and when it ends, takes a moment, and sometimes fails.
import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const now = () => performance.timeOrigin + performance.now();

const work = (execution) => ({
  execution,
  description: "Does what a test can count.",
  parameters: {
    effects: {
      type: "text",
      required: true,
      description: "File that gets a line at the begin and at the end.",
    },
    millis: { type: "integer", default: 5, description: "How long it takes." },
    errors: { type: "integer", default: 0, description: "So many tries fail." },
  },
  async run({ step, parameters, signal }) {
    const say = (what) => appendFileSync(parameters.effects, `${what} ${step.id} ${step.claim} ${now()}\n`);
    say("begin");
    try {
      await sleep(parameters.millis, undefined, { signal });
    } catch {
      // Told to stop: this claim says nothing more of itself.
      return { kind: "error", message: "stopped" };
    }
    say("end");
    return step.attempt <= parameters.errors
      ? { kind: "error", message: `try ${step.attempt} fails` }
      : { kind: "success", output: { by: step.claim } };
  },
});

export const components = [{ name: "Chaos", tasks: { Inside: work("internal"), Outside: work("external") } }];

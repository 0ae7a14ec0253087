import { defineTask, permanentError } from "./task.ts";
import type { Component } from "./types.ts";

/**
 * Asks a job server whether it still knows a step (in the original: CheckJob of JobCheckComponent). Put into the queue of
 * the server in question, the step is answered by that server alone: what it has in hand, beside what the hub believes.
 */
export const component: Component = {
  name: "JobCheck",
  tasks: {
    Check: defineTask({
      execution: "internal",
      description: "Asks this job server and the hub whether they still know a step.",
      parameters: {
        process: { type: "integer", required: true, minimum: 1, description: "The number of its process." },
        step: { type: "integer", required: true, minimum: 1, description: "The number of the step." },
        fail: {
          type: "boolean",
          default: false,
          description:
            "End with an error where the hub believes the step here but this server does not know it.",
        },
      },
      run: async ({ parameters, hub, service, signal }) => {
        if (hub === null) return permanentError("this task runs inside the service only");
        const detail = await hub.process(parameters.process, signal);
        const step = detail?.steps.find(({ id }) => id === parameters.step) ?? null;
        const knownByServer = hub.holdsStep(parameters.step);
        const isOurs = step?.runs.some((run) => run.outcome === null && run.queue === service.queue) ?? false;
        const output = {
          knownByHub: step !== null,
          knownByServer,
          state: step?.state ?? null,
          missing: isOurs && !knownByServer,
        };
        const who = `step ${parameters.step}: ${step === null ? "not known to the hub" : step.state}, ${knownByServer ? "in hand" : "not in hand"} on ${service.queue}`;
        return output.missing && parameters.fail
          ? { kind: "error", message: who, permanent: true, output }
          : { kind: "success", message: who, output };
      },
    }),
  },
};

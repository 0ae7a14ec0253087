import { defineTask, permanentError } from "./task.ts";
import type { Component } from "./types.ts";

/**
 * The update of the service's own installation (domain: job servers update themselves by a step in their own queue).
 * The engine handles the step itself, because the service has to end for it and the next one gives the result; what
 * stands here is its table, and the answer where no service stands around it.
 */
export const component: Component = {
  name: "AutoUpdate",
  tasks: {
    CheckAndUpdate: defineTask({
      execution: "internal",
      description:
        "Brings the installation of the service to the hub's software revision and restarts the service.",
      parameters: {
        revision: {
          type: "integer",
          minimum: 0,
          description: "The software revision that the hub saw when it asked for the update.",
        },
      },
      run: async () => permanentError("the service updates itself; this step cannot run anywhere else"),
    }),
  },
};

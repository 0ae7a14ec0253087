// The same work as a component of the job service.
import { appendFileSync } from "node:fs";

export const components = [
  {
    name: "Bench",
    tasks: {
      Noop: {
        execution: "internal",
        description: "Does nothing, and says when.",
        parameters: { mark: { type: "text", description: "File that gets the time of the call." } },
        run: async ({ parameters }) => {
          if (parameters.mark !== undefined)
            appendFileSync(parameters.mark, `${performance.timeOrigin + performance.now()}\n`);
          return { kind: "success" };
        },
      },
    },
  },
];

// What a service on a virtual server does beside its steps: it keeps a setting.
import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";

export const components = [
  {
    name: "Setting",
    tasks: {
      Write: {
        execution: "internal",
        description: "Replaces a file of the service's settings.",
        parameters: {
          file: { type: "text", required: true, description: "Which." },
          text: { type: "text", required: true, description: "What it holds from now on." },
        },
        async run({ step, parameters }) {
          mkdirSync(dirname(parameters.file), { recursive: true });
          writeFileSync(`${parameters.file}.new`, `${parameters.text} ${step.claim}\n`);
          renameSync(`${parameters.file}.new`, parameters.file);
          return { kind: "success" };
        },
      },
    },
  },
];

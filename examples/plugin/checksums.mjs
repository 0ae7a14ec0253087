// A plug-in of the job service: a component that checks files against a list of SHA-256 sums, as `sha256sum` writes it.
//
//     [Service]
//     Plugins = ["plugins/checksums.mjs"]
//
// A plug-in is an ES module that exports `components`. It needs nothing of Lockstep: what it may use comes with the
// context, what it has to say is its result.
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";

export const components = [
  {
    name: "Checksums",
    tasks: {
      Verify: {
        execution: "either",
        description: "Checks files against a list of SHA-256 sums.",
        // Checked by the service before `run`, all faults at once; unknown names are faults too.
        parameters: {
          list: {
            type: "text",
            required: true,
            description: "The list; its paths are relative to its directory.",
          },
          failuresNamed: {
            type: "integer",
            minimum: 1,
            default: 10,
            description: "How many failures are named.",
          },
        },
        async run({ parameters, signal, log }) {
          const text = await readFile(parameters.list, "utf8");
          const failures = [];
          let files = 0;
          for (const line of text.split("\n").filter((each) => each.trim() !== "")) {
            const [, sum, path] = /^([0-9a-f]{64}) [ *](.+)$/.exec(line) ?? [];
            // A result, not an exception: nobody can mend the list by trying again.
            if (path === undefined)
              return { kind: "error", message: `no line of a list: ${line}`, permanent: true };
            files += 1;
            const problem = await check(resolve(dirname(parameters.list), path), sum, signal);
            if (problem === null) continue;
            log.warn(`${path}: ${problem}`);
            failures.push(`${path}: ${problem}`);
          }
          if (failures.length === 0)
            return { kind: "success", message: `${files} files are as listed`, output: { files } };
          const named = failures.slice(0, parameters.failuresNamed).join("; ");
          return {
            kind: "error",
            message: `${failures.length} of ${files} files are not as listed: ${named}`,
          };
        },
      },
    },
  },
];

async function check(path, sum, signal) {
  const hash = createHash("sha256");
  try {
    // The signal ends the reading when the step has to stop.
    for await (const chunk of createReadStream(path, { signal })) hash.update(chunk);
  } catch (error) {
    signal.throwIfAborted();
    return error.code === "ENOENT" ? "is missing" : error.message;
  }
  return hash.digest("hex") === sum ? null : "has another content";
}

// Works on jobs with graphile-worker. node graphile.mjs MODULES CONNECTION CONCURRENCY batched|single
import { appendFileSync } from "node:fs";
import { createRequire } from "node:module";

const [modules, connectionString, concurrency, how] = process.argv.slice(2);
const { Logger, run } = createRequire(`${modules}/`)("graphile-worker");
const batched = how === "batched";
await run({
  connectionString,
  noHandleSignals: true,
  logger: new Logger(() => () => {}),
  preset: {
    worker: {
      connectionString,
      concurrentJobs: Number(concurrency),
      maxPoolSize: Number(concurrency) + 2,
      ...(batched
        ? {
            localQueue: { size: Math.max(50, Number(concurrency) * 4) },
            completeJobBatchDelay: 0,
            failJobBatchDelay: 0,
          }
        : {}),
    },
  },
  taskList: {
    noop: async (payload) => {
      if (payload.mark !== undefined)
        appendFileSync(payload.mark, `${performance.timeOrigin + performance.now()}\n`);
    },
  },
});
process.stdout.write("working\n");

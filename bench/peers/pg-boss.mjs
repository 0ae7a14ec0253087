// Works on jobs with pg-boss. node pg-boss.mjs MODULES CONNECTION CONCURRENCY
import { appendFileSync } from "node:fs";
import { createRequire } from "node:module";

const [modules, connectionString, concurrency] = process.argv.slice(2);
const { PgBoss } = await import(createRequire(`${modules}/`).resolve("pg-boss"));
const boss = new PgBoss({
  connectionString,
  useListenNotify: true,
  max: Number(concurrency) + 4,
  supervise: false,
  schedule: false,
});
boss.on("error", (error) => process.stderr.write(`${error.message}\n`));
await boss.start();
await boss.work(
  "noop",
  {
    batchSize: 50,
    burstWhenBatchFull: true,
    pollingIntervalSeconds: 0.5,
    localConcurrency: Number(concurrency),
  },
  async (jobs) => {
    for (const job of jobs)
      if (job.data.mark !== undefined)
        appendFileSync(job.data.mark, `${performance.timeOrigin + performance.now()}\n`);
  },
);
process.stdout.write("working\n");

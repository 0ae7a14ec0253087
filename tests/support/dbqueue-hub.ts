/**
 * A hub process that does nothing but process the DBQueue, to be killed by tests. Reads {address, tuning} as JSON from
 * its first argument; prints "ready", and "began OBJECT" whenever a run begins. SIGTERM stops it.
 */
import { silentLogger } from "@lockstep/platform";
import { openDatabase } from "../../packages/hub/src/db/connect.ts";
import { createDbQueue } from "../../packages/hub/src/dbqueue/processor.ts";
import { count, procedure, QUICK } from "./dbqueue.ts";

const { address, tuning } = JSON.parse(process.argv[2] ?? "{}");
const database = await openDatabase(address, { max: 8 });
const say = (line: string) => process.stdout.write(`${line}\n`);

const queue = createDbQueue({
  pool: database.pool,
  hubId: crypto.randomUUID(),
  log: silentLogger,
  tuning: { ...QUICK, ...tuning },
  procedures: [
    procedure(
      "single",
      async (run) => {
        await count(run);
        say(`began ${run.rows.map(({ object }) => object).join(" ")}`);
        await run.transaction.client.query("select pg_sleep($1)", [Number(run.rows[0]?.subObject || 0)]);
        return undefined;
      },
      { maxInstance: 3 },
    ),
    procedure("serial", count),
    procedure("bulk", count, { bulk: true, maxInstance: 2 }),
    procedure("follower", count, { predecessors: ["bulk"], maxInstance: 9 }),
  ],
});
await queue.start();
process.on("SIGTERM", () => {
  void queue.stop().then(async () => {
    await database.close();
    process.exit(0);
  });
});
say("ready");

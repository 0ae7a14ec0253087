/**
 * A hub process that only runs the embedded database, to be killed by tests. Its first argument is JSON: the options of
 * startEmbeddedPostgres. Prints "started PID-OF-THE-SERVER", then "acknowledged N" for each row that it wrote into the
 * table row; or "failed CODE MESSAGE". SIGTERM stops it.
 */
import { silentLogger } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol";
import { openDatabase } from "../../packages/hub/src/db/connect.ts";
import { startEmbeddedPostgres } from "../../packages/hub/src/db/embedded/embedded.ts";

const say = (line: string) => process.stdout.write(`${line}\n`);
try {
  const embedded = await startEmbeddedPostgres({ ...JSON.parse(process.argv[2] ?? "{}"), log: silentLogger });
  const database = await openDatabase(embedded.address, { max: 2 });
  await database.pool.query("create table if not exists row (n int primary key)");
  say(`started ${await embedded.pid()}`);
  let stopping = false;
  process.on("SIGTERM", () => {
    stopping = true;
  });
  const { rows } = await database.pool.query<{ n: number }>("select coalesce(max(n), 0) as n from row");
  for (let n = (rows[0]?.n ?? 0) + 1; !stopping; ) {
    try {
      await database.pool.query("insert into row values ($1) on conflict do nothing", [n]);
      say(`acknowledged ${n}`);
      n += 1;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  await database.close();
  await embedded.stop();
} catch (error) {
  say(isLockstepError(error) ? `failed ${error.code} ${error.message}` : `failed ${String(error)}`);
  process.exitCode = 1;
}

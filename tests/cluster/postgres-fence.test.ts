import assert from "node:assert/strict";
import test from "node:test";
import { openPostgres } from "@lockstep/cluster";
import { systemClock } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import { usePostgres } from "../support/postgres.ts";

const server = usePostgres();
const recordOf = (node: string, token: number, write: number) => ({
  node,
  instance: `${node}#1`,
  token,
  write,
  next: null,
});

test("a guarded write that takes long holds up a takeover, but no renewal, and none goes on after the takeover", async (t) => {
  const database = await server.database(t, { empty: true });
  const open = async (callMs: number) => {
    const store = await openPostgres({
      connection: database.address,
      callMs,
      watchMs: 50,
      clock: systemClock,
    });
    database.beforeClose(() => store.close());
    return store;
  };
  // Far above what is needed, but for the one that is to give up.
  const owner = await open(120_000);
  const other = await open(120_000);
  const hasty = await untilOpen(1_000);
  const taken = await owner.swap("JOBS", { expected: 0, record: recordOf("a", 1, 1), takes: true });
  assert.ok(taken.swapped);

  // Somebody's transaction has looked at the fence and is not done.
  const writer = await database.pool.connect();
  await writer.query("begin");
  await writer.query("select token from cluster_fence where name = 'JOBS' and token = 1 for share");
  const renewed = await owner.swap("JOBS", {
    expected: taken.revision,
    record: recordOf("a", 1, 2),
    takes: false,
  });
  assert.ok(renewed.swapped);
  const takeover = { expected: renewed.revision, record: recordOf("b", 2, 1), takes: true };
  // Given up in time, and then nothing of it has happened.
  await assert.rejects(
    () => hasty.swap("JOBS", takeover),
    (error) => isLockstepError(error, "COORDINATION_UNREACHABLE"),
  );
  // The server gives up by a clock of its own.
  while (await isWaiting()) await systemClock.sleep(20);
  assert.equal((await other.read("JOBS")).revision, renewed.revision);

  const order: string[] = [];
  const taking = other.swap("JOBS", takeover).then((answer) => {
    order.push("taken");
    return answer;
  });
  // A takeover that waits does not become one before the write is done.
  while (!(await isWaiting())) await systemClock.sleep(20);
  order.push("committed");
  await writer.query("commit");
  writer.release();
  assert.ok((await taking).swapped);
  assert.deepEqual(order, ["committed", "taken"]);
  assert.equal(await owner.writeGuarded("JOBS", 1, new Map([["late", "x"]])), false);

  /** To open it has to be done in so short a time as well. */
  async function untilOpen(callMs: number) {
    for (;;) {
      try {
        return await open(callMs);
      } catch (error) {
        if (!isLockstepError(error, "COORDINATION_UNREACHABLE")) throw error;
      }
    }
  }

  async function isWaiting(): Promise<boolean> {
    const { rows } = await database.pool.query(
      "select count(*)::int as waiting from pg_locks where not granted",
    );
    return rows[0]?.waiting > 0;
  }
});

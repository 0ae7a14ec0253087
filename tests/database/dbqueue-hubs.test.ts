/** Several hubs on one database: they share the work, lose none of it and do none of it twice, whoever dies when. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import test, { type TestContext } from "node:test";
import { silentLogger } from "@lockstep/platform";
import { putBack } from "../../packages/hub/src/dbqueue/claim.ts";
import { type DbQueueTuning, DEFAULT_TUNING } from "../../packages/hub/src/dbqueue/options.ts";
import { giveBackDead } from "../../packages/hub/src/dbqueue/watchdog.ts";
import {
  ask,
  count,
  counts,
  createCounter,
  isIdle,
  procedure,
  startQueue,
  until,
} from "../support/dbqueue.ts";
import { type TestDatabase, usePostgres } from "../support/postgres.ts";

const server = usePostgres();
const HUB = new URL("../support/dbqueue-hub.ts", import.meta.url).pathname;

interface HubProcess {
  readonly child: ChildProcess;
  /** Resolves when a run of this object has begun. */
  readonly began: (object: string) => Promise<void>;
}

async function startHub(
  t: TestContext,
  database: TestDatabase,
  tuning: Partial<DbQueueTuning> = {},
): Promise<HubProcess> {
  const child = spawn(process.execPath, [HUB, JSON.stringify({ address: database.address, tuning })], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => child.kill("SIGKILL"));
  const lines: string[] = [];
  const reader = createInterface({ input: child.stdout });
  reader.on("line", (line) => lines.push(line));
  await once(reader, "line");
  return {
    child,
    began: (object) => until(() => lines.some((line) => line.startsWith("began") && line.includes(object))),
  };
}

async function kill({ child }: HubProcess): Promise<void> {
  const exited = once(child, "exit");
  child.kill("SIGKILL");
  await exited;
}

test("a hub killed in the middle of a task leaves nothing of it; another does it, once", async (t) => {
  const database = await server.database(t);
  await createCounter(database.pool);
  const first = await startHub(t, database);
  await database.pool.query("select dbqueue_insert_single('single', 'o', '3600')");
  await first.began("o");
  await kill(first);
  // Nobody has waited for a heartbeat to run out: the session is gone, and that is enough.
  await database.pool.query("update dbqueue_hub set heartbeat_at = now() + interval '1 day'");
  await startQueue(database, [procedure("single", count)]);
  await until(() => isIdle(database.pool));
  assert.deepEqual(await counts(database.pool), new Map([["o", 1]]));
  const { rows } = await database.pool.query("select detail from dbqueue_journal where event = 'given-back'");
  assert.equal(rows.length, 1);
});

test("a frozen hub loses its claim, and cannot finish it when it thaws", async (t) => {
  const database = await server.database(t);
  await createCounter(database.pool);
  const frozen = await startHub(t, database);
  await database.pool.query("select dbqueue_insert_single('single', 'o', '0.3')");
  await frozen.began("o");
  frozen.child.kill("SIGSTOP");
  await database.pool.query("update dbqueue_hub set heartbeat_at = now() - interval '1 hour'");
  await startQueue(database, [procedure("single", count)]);
  await until(() => isIdle(database.pool));
  frozen.child.kill("SIGCONT");
  await database.pool.query("select dbqueue_insert_single('single', 'after')");
  await until(() => isIdle(database.pool));
  assert.deepEqual(
    await counts(database.pool),
    new Map([
      ["after", 1],
      ["o", 1],
    ]),
  );
});

for (const isolation of ["read committed", "repeatable read"] as const) {
  test(`a hub whose claim was taken away rolls back what it did (${isolation})`, async (t) => {
    const database = await server.database(t);
    await createCounter(database.pool);
    let runs = 0;
    const queue = await startQueue(database, [
      procedure(
        "T",
        async (run) => {
          runs += 1;
          await count(run);
          if (runs > 1) return undefined;
          const { rows } = await database.pool.query<{ claim: string }>("select claim from dbqueue_current");
          await putBack(database.pool, rows[0]?.claim ?? "", {
            event: "given-back",
            reason: "a test",
            notBeforeMs: null,
            idleFromMs: null,
            countsAsAttempt: true,
          });
          return undefined;
        },
        { isolation },
      ),
    ]);
    await ask(database, "T", ["o"]);
    await until(() => isIdle(database.pool));
    await queue.stop();
    assert.equal(runs, 2);
    assert.deepEqual(await counts(database.pool), new Map([["o", 1]]));
  });
}

test("the watchdog leaves the living alone", async (t) => {
  const database = await server.database(t);
  await createCounter(database.pool);
  const hub = await startHub(t, database);
  await database.pool.query("select dbqueue_insert_single('single', 'o', '3600')");
  await hub.began("o");
  assert.equal(await giveBackDead(database.pool, DEFAULT_TUNING, silentLogger), 0);
  await kill(hub);
  await until(async () => (await giveBackDead(database.pool, DEFAULT_TUNING, silentLogger)) === 1);
});

test("a serial task runs once at a time over all hubs", async (t) => {
  const database = await server.database(t, { max: 32 });
  let running = 0;
  let most = 0;
  const serial = procedure("T", async () => {
    running += 1;
    most = Math.max(most, running);
    await new Promise((resolve) => setTimeout(resolve, 2));
    running -= 1;
    return undefined;
  });
  for (let hub = 0; hub < 4; hub += 1) await startQueue(database, [serial]);
  await ask(
    database,
    "T",
    Array.from({ length: 40 }, (_, n) => `o${n}`),
  );
  await until(() => isIdle(database.pool));
  assert.equal(most, 1);
});

test("hubs and sessions die at random, claims are taken away at random: each task is done exactly once", async (t) => {
  const database = await server.database(t, { max: 8 });
  await createCounter(database.pool);
  const tuning = { deadAfterMs: 1_500, bulkRowsMax: 7 };
  const hubs = await Promise.all([1, 2, 3].map(() => startHub(t, database, tuning)));
  const expected = new Set<string>();
  let kills = 0;
  const put = async (round: number) => {
    for (const task of ["single", "serial", "bulk", "follower"]) {
      const objects = Array.from({ length: 6 }, (_, n) => `${task}-${round}-${n}`);
      for (const object of objects) expected.add(object);
      await ask(database, task, objects);
    }
  };
  const chaos = [
    async (round: number) => {
      const victim = round % hubs.length;
      const hub = hubs[victim];
      if (hub === undefined) return;
      await kill(hub);
      hubs[victim] = await startHub(t, database, tuning);
    },
    async () => {
      await database.pool.query(
        "select pg_terminate_backend(pid) from (select pid from dbqueue_current order by random() limit 1) as one",
      );
    },
    async () => {
      const { rows } = await database.pool.query<{ claim: string }>(
        "select claim from dbqueue_current order by random() limit 1",
      );
      await putBack(database.pool, rows[0]?.claim ?? crypto.randomUUID(), {
        event: "given-back",
        reason: "chaos",
        notBeforeMs: null,
        idleFromMs: null,
        countsAsAttempt: true,
      });
    },
    async () => {
      await database.pool.query("update dbqueue_hub set heartbeat_at = now() - interval '1 hour'");
    },
  ];
  for (let round = 0; round < 24; round += 1) {
    await put(round);
    await chaos[round % chaos.length]?.(Math.floor(round / chaos.length));
    kills += 1;
  }
  await until(() => isIdle(database.pool));
  const done = await counts(database.pool);
  assert.deepEqual([...done.keys()].sort(), [...expected].sort(), "a task was lost");
  assert.deepEqual(
    [...done].filter(([, n]) => n !== 1),
    [],
    "a task was done twice",
  );
  assert.equal(kills, 24);
  // The test means something only if the chaos hit running work.
  const { rows } = await database.pool.query<{ n: number }>(
    "select count(*) as n from dbqueue_journal where event = 'given-back'",
  );
  assert.ok((rows[0]?.n ?? 0) > 0, "no claim was ever interrupted");
  for (const hub of hubs) {
    const exited = once(hub.child, "exit");
    hub.child.kill("SIGTERM");
    assert.deepEqual(await exited, [0, null]);
  }
});

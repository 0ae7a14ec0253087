import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { findLogFaults } from "@lockstep/testing";
import { parseLine } from "../../packages/service/src/log/line.ts";
import { startTestHub } from "../hub/support/test-hub.ts";
import { usePostgres } from "../support/postgres.ts";
import {
  configure,
  runService,
  servers,
  startJob,
  temporaryDirectory,
  until,
  untilEnded,
} from "./service-world.ts";

const server = usePostgres();
const QUEUE = "\\VS1";

test("one log over a failover: node and term in each record, the frozen former owner writes no more", async (t) => {
  const hub = await startTestHub(t, server);
  const shared = temporaryDirectory(t);
  const log = join(shared, "JobService.log");
  const start = async (node: string, term: number) => {
    const directory = temporaryDirectory(t);
    const file = configure(hub, directory, { queues: [QUEUE] });
    const text = readFileSync(file, "utf8")
      .replace('"service.log"', JSON.stringify(log))
      .replace(/^Machine = .*\n/m, "");
    writeFileSync(file, text);
    const environment = { LOCKSTEP_NODE: node, LOCKSTEP_TERM: String(term), JOURNAL_STREAM: "8:1" };
    return await runService(t, directory, file, environment);
  };
  const step = (name: string) =>
    startJob(hub, name, [
      { name, component: "Wait", task: "Delay", queue: QUEUE, parameters: { seconds: 0 } },
    ]).then(async (id) => assert.equal((await untilEnded(hub, id)).process.state, "finished"));
  const shown = async () => {
    const [found] = await servers(hub);
    return { machine: found?.machine, node: found?.node, term: found?.term };
  };

  const alpha = await start("alpha", 5);
  await step("first");
  assert.deepEqual(await shown(), { machine: "alpha", node: "alpha", term: 5 });
  // Cut off and not aware of it: its engine goes on, and has the log open.
  const beta = await start("beta", 6);
  await until(async () => (await shown()).node === "beta");
  await step("second");
  assert.deepEqual(await shown(), { machine: "beta", node: "beta", term: 6 });
  await until(() => alpha.stderr().includes("no longer written here: beta has taken the log over"));
  assert.equal(await beta.stop(), 0);
  const written = readFileSync(log, "utf8");
  await alpha.stop();
  assert.equal(readFileSync(log, "utf8"), written, "the former owner wrote on");
  const records = written.trimEnd().split("\n").map(parseLine);
  const origins = records.map((record) => `${record?.origin?.node} ${record?.origin?.term}`);
  assert.deepEqual([...new Set(origins)], ["alpha 5", "beta 6"]);
  assert.deepEqual(origins, [...origins].sort(), "lines of the two are mixed");
  assert.deepEqual(findLogFaults([written]), []);
  assert.deepEqual(
    readdirSync(shared).filter((name) => name.startsWith("JobService.log")),
    ["JobService.log", "JobService.log.owner-0000000000000006-beta"],
  );
});

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import type { HistoryEntry } from "@lockstep/core";
import { silentLogger } from "@lockstep/platform";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../packages/hub/src/db/embedded/embedded.ts";
import { DaemonLab, SLOW_TIMES } from "./daemon-lab.ts";
import { urlOf } from "./database-url.ts";

const PROGRAM = fileURLToPath(new URL("../../packages/cli/src/main.ts", import.meta.url));

/** The server and every process of it, so that it neither answers nor refuses. */
function signalServer(server: number, signal: NodeJS.Signals): void {
  const children = readFileSync(`/proc/${server}/task/${server}/children`, "utf8").trim().split(" ");
  for (const pid of [server, ...children.filter((each) => each !== "").map(Number)]) {
    try {
      process.kill(pid, signal);
    } catch {
      // One that was just ending.
    }
  }
}

async function pidOf(server: EmbeddedPostgres): Promise<number> {
  const pid = await server.pid();
  assert.ok(pid !== null);
  return pid;
}

/** `lockstep cluster set` as an administrator runs it. */
async function setCluster(lab: DaemonLab, options: readonly string[]) {
  const args = [PROGRAM, "cluster", "set", "--config", lab.configFile("alpha"), ...options];
  const command = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
  const [said, told, [status]] = await Promise.all([
    command.stdout.toArray(),
    command.stderr.toArray(),
    once(command, "exit") as Promise<[number]>,
  ]);
  return { status, said: Buffer.concat([...said, ...told]).toString() };
}

test("three daemons on PostgreSQL: a move, one that is given up, a killed owner, the database away and back", {
  skip: process.platform !== "linux" && "needs /proc",
}, async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-test-postgres-"));
  const server = await startEmbeddedPostgres({ dataDirectory: directory, log: silentLogger });
  const ends: (() => Promise<void>)[] = [
    async () => {
      await server.stop();
      await rm(directory, { recursive: true, force: true });
    },
  ];
  t.after(async () => {
    for (const end of ends.reverse()) await end();
  });
  const { address } = server;
  assert.ok(!("connectionString" in address));
  const url = urlOf({ ...address, database: address.database ?? "lockstep" });
  const lab = await DaemonLab.open("", {
    nodes: ["alpha", "beta", "gamma"],
    times: SLOW_TIMES,
    store: { store: "postgres", url, callMs: 10_000, watchMs: 50 },
  });
  ends.push(async () => {
    signalServer(await pidOf(server), "SIGCONT");
    await lab.close();
    assert.deepEqual(lab.together, []);
  });
  await lab.add("APP", { preferredOwners: ["alpha", "beta", "gamma"] });
  await lab.untilServing("APP", ["alpha"]);
  await lab.untilOnline("APP");
  // New times of the lease, in two halves: what is safe beside the old ones at once.
  const refused = await setCluster(lab, ["--time", "trustMs=15000"]);
  assert.equal(refused.status, 3);
  assert.match(refused.said, /LEASE_TIMES_UNSAFE/);
  const newTimes = ["--time", "trustMs=13600", "--time", "waitMs=21000"];
  assert.equal((await setCluster(lab, newTimes)).status, 0);
  const timesOf = async (node: string) => {
    const times = (await lab.documents.reports()).found.get(node)?.servers.APP?.lease;
    return [times?.trustMs, times?.waitMs].join("/");
  };
  for (const node of lab.nodes)
    await lab.until("half of the new times", async () =>
      (await timesOf(node)) === "13500/21000" ? true : null,
    );
  assert.equal((await setCluster(lab, newTimes)).status, 0);

  await lab.order("APP", { kind: "move", to: "beta" });
  await lab.untilServing("APP", ["beta"]);
  await lab.untilOnline("APP");

  // A target that is cut off at that moment: nothing has stopped, and the order is given up.
  const before = await lab.coordination.read("APP");
  lab.daemon("gamma").kill("SIGSTOP");
  await lab.order("APP", { kind: "move", to: "gamma" });
  await lab.untilHistory("order", ({ detail }) => /given up: gamma has not said within/.test(detail));
  assert.deepEqual(lab.serving("APP"), ["beta"]);
  assert.equal((await lab.coordination.read("APP")).record?.token, before.record?.token);
  const ofGamma = ({ node, detail }: HistoryEntry) => node === "beta" && detail.startsWith("gamma ");
  const down = await lab.untilHistory("node-down", ofGamma);
  lab.daemon("gamma").kill("SIGCONT");
  await lab.untilHistory("node-up", (entry) => ofGamma(entry) && entry.number > down.number);
  await lab.order("APP", { kind: "move", to: "gamma" });
  await lab.untilServing("APP", ["gamma"]);
  await lab.untilOnline("APP");

  // Long since read by everybody: whoever does not own trusts for longer now, also one that takes over at once.
  await lab.until("the new times", async () => ((await timesOf("alpha")) === "13600/21000" ? true : null));

  // Its guard gives the lease back: nobody waits it out.
  await lab.end("gamma", "SIGKILL");
  await lab.untilServing("APP", ["alpha"]);
  await lab.untilOnline("APP");
  await lab.start("gamma");

  // The database hangs: the owner ends its service by itself, and owns again when it is back.
  signalServer(await pidOf(server), "SIGSTOP");
  await lab.untilServing("APP", []);
  signalServer(await pidOf(server), "SIGCONT");
  await lab.untilServing("APP", 1);
  const owner = await lab.untilOnline("APP");
  await lab.untilHistory("lost", ({ node, detail }) => node === "alpha" && /deadline/.test(detail));
  // How long that took is known from now on.
  await lab.until("stop measured", async () => {
    const { found } = await lab.documents.reports();
    return (found.get("alpha")?.measured.stopMs ?? 0) > 0 ? true : null;
  });

  // It dies and is started again, every connection is cut: back in time, nothing of it is seen outside; else the owner
  // ended its service by itself, and owns again.
  const { record } = await lab.coordination.read("APP");
  const tokenBefore = record?.token ?? 0;
  signalServer(await pidOf(server), "SIGKILL");
  const after = await lab.until("renewed", async () => {
    const now = (await lab.coordination.read("APP").catch(() => null))?.record ?? null;
    if (now === null || now.node === null) return null;
    return now.token > tokenBefore || now.write > (record?.write ?? 0) + 2 ? now : null;
  });
  if (after.token === tokenBefore) assert.deepEqual(lab.serving("APP"), [owner]);
  else
    await lab.untilHistory(
      "lost",
      ({ token, detail }) => token === tokenBefore && /deadline|store/.test(detail),
    );
  await lab.untilServing("APP", 1);
});

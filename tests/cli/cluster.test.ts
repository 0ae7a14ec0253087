import assert from "node:assert/strict";
import { chmodSync, existsSync, statSync, writeFileSync } from "node:fs";
import { after, before, suite, test } from "node:test";
import { findEtcd } from "../cluster/etcd-cluster.ts";
import { ClusterLab } from "./cluster-lab.ts";
import { documentOf, type ErrorDocument, ended, lockstep } from "./lockstep.ts";

/**
 * A cluster from its founding to the loss of a node, by the command alone: real daemons on a real etcd. The tests are one
 * story and stand in its order.
 */
const program = findEtcd();
const NODES = ["alpha", "beta", "gamma"];

interface Status {
  readonly healthy: boolean;
  readonly problems: readonly string[];
  readonly nodes: readonly {
    readonly node: string;
    readonly state: string;
    readonly owns: readonly string[];
  }[];
  readonly virtualServers: readonly {
    readonly name: string;
    readonly state: string;
    readonly wanted: string;
    readonly isEnabled: boolean;
    readonly owner: string | null;
    readonly token: number | null;
    readonly candidates: readonly string[];
  }[];
}

suite("lockstep cluster", { skip: program === null && "etcd is not on this machine" }, () => {
  let lab: ClusterLab;
  before(async () => {
    lab = await ClusterLab.open(program ?? "", NODES);
  });
  after(() => lab.close());

  const refusal = async (node: string, args: readonly string[], status: number) =>
    (await lab.ask<ErrorDocument>(node, args, status)).error;
  const codeOf = async (node: string, args: readonly string[], status: number) =>
    (await refusal(node, args, status)).code;
  /** Of a cluster that changes: again until it is as wanted, at most as often as a test may take. */
  const statusUntil = async (node: string, isWanted: (status: Status) => boolean): Promise<Status> => {
    for (let tries = 0; ; tries++) {
      const run = await lab.run(node, "status", "--json");
      const status = documentOf<Status>(run);
      assert.equal(run.status, status.healthy ? 0 : 10);
      if (isWanted(status)) return status;
      if (tries === 240) assert.fail(JSON.stringify(status));
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  };
  const ownerOf = (status: Status, name: string) =>
    status.virtualServers.find((server) => server.name === name)?.owner ?? null;
  const owner = async (name: string): Promise<string> =>
    ownerOf(await statusUntil("alpha", (status) => ownerOf(status, name) !== null), name) ?? "";

  test("what has no cluster, no configuration or a wrong one says so by its code", async () => {
    assert.equal(await codeOf("alpha", ["status"], 1), "CLUSTER_UNKNOWN");
    assert.equal(await codeOf("alpha", ["join"], 1), "CLUSTER_UNKNOWN");
    const nowhere = await lockstep(["cluster", "status", "--config", lab.pathOf("none.toml"), "--json"]);
    assert.deepEqual([nowhere.status, documentOf<ErrorDocument>(nowhere).error.code], [2, "NODE_CONFIG"]);
    writeFileSync(lab.pathOf("bad.toml"), 'nmae = "x"\naddress = 5\n');
    const bad = await lockstep(["cluster", "status", "--config", lab.pathOf("bad.toml"), "--json"]);
    const faults = documentOf<ErrorDocument>(bad).error.faults ?? [];
    assert.equal(bad.status, 2);
    assert.match(faults.map(({ where, problem }) => `${where} ${problem}`).join("\n"), /bad\.toml:1.*name/s);
    assert.ok(faults.length > 1, "every fault at once");
  });

  test("init proves the times, and refuses those under which two could own", async () => {
    const { faults, code } = await refusal("alpha", ["init", "--time", "trustMs=2900"], 3);
    assert.equal(code, "LEASE_TIMES_UNSAFE");
    assert.match(faults?.[0]?.problem ?? "", /waitMs ≥ 3606\.5/);
    assert.equal(await codeOf("alpha", ["init", "--time", "waitMs"], 2), "USAGE");
    assert.equal(await codeOf("alpha", ["init", "--profile", "turbo"], 2), "USAGE");
    const tried = await lab.run("alpha", "init", "--dry-run");
    assert.match(tried.stdout, /^safety\twaitMs\t3000\tat-least\t2504\.3\t495\.7$/m);
    assert.ok(!existsSync(lab.keyOf("alpha")), "a dry run makes nothing");
    assert.equal(await codeOf("alpha", ["status"], 1), "CLUSTER_UNKNOWN");
  });

  test("of two administrators who found at once one is told that the other was faster", async () => {
    writeFileSync(lab.pathOf("a.toml"), lab.configText("a", "127.0.0.1:1", "/lockstep/race/"));
    writeFileSync(lab.pathOf("b.toml"), lab.configText("b", "127.0.0.1:2", "/lockstep/race/"));
    const runs = await Promise.all(
      ["a", "b"].map((name) =>
        lockstep(["cluster", "init", "--json", ...lab.times, "--config", lab.pathOf(`${name}.toml`)]),
      ),
    );
    assert.deepEqual(runs.map(({ status }) => status).sort(), [0, 3]);
    const lost = runs.find(({ status }) => status === 3);
    assert.ok(lost !== undefined);
    assert.equal(documentOf<ErrorDocument>(lost).error.code, "CLUSTER_EXISTS");
  });

  test("a machine joins when it is fit for it, and is told everything that is wrong", async () => {
    await lab.ask("alpha", ["init", ...lab.times]);
    assert.equal(await codeOf("alpha", ["init"], 3), "CLUSTER_EXISTS");
    assert.equal(statSync(lab.keyOf("alpha")).mode & 0o777, 0o600);
    assert.equal(await codeOf("beta", ["join"], 3), "CLUSTER_CHECK_FAILED");
    writeFileSync(lab.keyOf("beta"), `${"0".repeat(64)}\n`);
    chmodSync(lab.keyOf("beta"), 0o644);
    const { code, faults = [] } = await refusal("beta", ["join"], 3);
    assert.equal(code, "CLUSTER_KEY_DIFFERS");
    assert.equal(faults.length, 2, "its mode, and that it is another one");
    assert.deepEqual((await lab.ask<Status>("alpha", ["status"])).nodes, []);
    for (const node of ["beta", "gamma"]) lab.copyKey("alpha", node);
    for (const node of NODES) assert.equal((await lab.ask<{ joined: boolean }>(node, ["join"])).joined, true);
    assert.equal((await lab.ask<{ joined: boolean }>("beta", ["join"])).joined, false, "joined before");
    const status = await lab.ask<Status>("alpha", ["status"], 10);
    assert.deepEqual(
      status.nodes.map(({ node, state }) => [node, state]),
      NODES.map((node) => [node, "down"]),
    );
  });

  test("with its daemons the cluster is healthy, and nothing differs", async () => {
    await Promise.all(NODES.map((node) => lab.startDaemon(node)));
    const status = await statusUntil("alpha", ({ healthy }) => healthy);
    assert.deepEqual(status.problems, []);
    const rows = (await lab.run("gamma", "status")).stdout.trimEnd().split("\n");
    assert.match(rows[0] ?? "", /^cluster\ttest\thealthy$/);
    assert.match(rows[1] ?? "", /^node\talpha\tup\t-\t0\.1\.0\t127\.0\.0\.1:[0-9]+\t$/);
  });

  test("a definition with faults is refused with all of them, and nothing is registered", async () => {
    const { code, faults = [] } = await refusal(
      "alpha",
      [
        ...["virtual-server", "add", "beta", "--service", lab.writeService("beta")],
        ...["--preferred", "delta", "--set", "service.prgram=1", "--needs", "service=[disk]"],
      ],
      3,
    );
    assert.equal(code, "VIRTUAL_SERVER_INVALID");
    const told = faults.map(({ where, problem }) => `${where}: ${problem}`).join("\n");
    assert.match(told, /beta is the name of a node/);
    assert.match(told, /delta is no node/);
    assert.match(told, /\[service\].*prgram/);
    assert.match(told, /\[disk\], which is no resource/);
    writeFileSync(lab.pathOf("vs.toml"), 'weight = -1\n\n[[resources]]\nname = "x"\ntype = "ip"\n');
    const file = await refusal("alpha", ["virtual-server", "add", "X", "--file", lab.pathOf("vs.toml")], 3);
    assert.deepEqual(
      file.faults?.map(({ where }) => where),
      ["vs.toml:5 resources[0].type", "vs.toml:1 weight"],
    );
    const lacking = await refusal("alpha", ["virtual-server", "add", "X", "--service", "/nowhere/at/all"], 3);
    assert.equal(lacking.code, "CLUSTER_CHECK_FAILED");
    assert.deepEqual(
      lacking.faults?.map(({ where }) => where),
      NODES,
    );
    assert.deepEqual((await lab.ask<Status>("alpha", ["virtual-server", "list"])).virtualServers, []);
  });

  test("one command registers a service and brings it online on one node", async () => {
    const service = lab.writeService("orders");
    writeFileSync(lab.pathOf("orders.toml"), '[[JobServiceDestination]]\nQueue = "alpha"\n');
    const wrong = await refusal(
      "alpha",
      [
        ...["virtual-server", "add", "ORDERS", "--service", service],
        ...["--config-file", lab.pathOf("orders.toml")],
      ],
      3,
    );
    assert.equal(wrong.code, "CONFIG_QUEUE_REFUSED");
    assert.equal(wrong.faults?.length, 2, "a node's name, and not the virtual server's (S9)");
    const added = await lab.ask<{ owner: string; token: number }>("beta", [
      ...["virtual-server", "add", "ORDERS", "--service", service],
    ]);
    assert.ok(NODES.includes(added.owner));
    assert.deepEqual(await lab.runsOf("orders", 1), [added.owner]);
    const status = await statusUntil("alpha", ({ healthy }) => healthy);
    const [orders] = status.virtualServers;
    assert.deepEqual([orders?.state, orders?.owner, orders?.token], ["online", added.owner, added.token]);
    assert.equal(
      await codeOf("alpha", ["virtual-server", "add", "ORDERS", "--service", service], 3),
      "VIRTUAL_SERVER_EXISTS",
    );
  });

  test("a move is predicted, made, and predicted better", async () => {
    interface Prediction {
      readonly to: string | null;
      readonly steps: readonly string[];
      readonly outage: { readonly ms: number | null; readonly basis: string };
    }
    const from = await owner("ORDERS");
    const to = NODES.find((node) => node !== from) ?? "";
    const before = await lab.ask<Prediction>("alpha", ["move", "ORDERS", "--to", to, "--dry-run"]);
    assert.deepEqual([before.to, before.outage.ms], [to, null]);
    assert.match(before.steps[0] ?? "", new RegExp(`^${to}: says that it is ready`));
    assert.match(before.steps[1] ?? "", new RegExp(`^${from}: \\[service\\].* goes offline$`));
    assert.equal((await lab.runsOf("orders", 1)).length, 1, "a prediction moves nothing");
    const moved = await lab.ask<{ owner: string; outageMs: number }>("alpha", ["move", "ORDERS", "--to", to]);
    assert.equal(moved.owner, to);
    assert.ok(moved.outageMs > 0);
    assert.deepEqual(await lab.runsOf("orders", 2), [from, to]);
    await lab.ask("alpha", ["move", "ORDERS", "--to", from]);
    const again = await lab.ask<Prediction>("alpha", ["move", "ORDERS", "--to", to, "--dry-run"]);
    assert.equal(again.outage.ms, moved.outageMs);
    assert.match(again.outage.basis, /1 earlier planned move/);
    assert.equal(await codeOf("alpha", ["move", "ORDERS", "--to", from], 1), "ALREADY_OWNER");
    assert.equal(await codeOf("alpha", ["move", "ORDERS", "--to", "delta"], 1), "NODE_UNKNOWN");
    const unknown = await refusal("alpha", ["move", "ORDER"], 1);
    assert.match(unknown.hint ?? "", /ORDERS/);
  });

  test("two administrators at once both have their way, where they change different things", async () => {
    const runs = await Promise.all([
      lab.run("alpha", "virtual-server", "set", "ORDERS", "--weight", "7"),
      lab.run("beta", "virtual-server", "set", "ORDERS", "--preferred", "gamma,beta"),
      lab.run("gamma", "virtual-server", "set", "ORDERS", "--set", "service.stopMs=4000"),
    ]);
    assert.deepEqual(
      runs.map(({ status }) => status),
      [0, 0, 0],
    );
    interface Shown {
      readonly definition: {
        readonly weight: number;
        readonly preferredOwners: readonly string[];
        readonly resources: readonly { readonly settings: Readonly<Record<string, unknown>> }[];
      };
    }
    const { definition } = await lab.ask<Shown>("alpha", ["virtual-server", "show", "ORDERS"]);
    assert.equal(definition.weight, 7);
    assert.deepEqual(definition.preferredOwners, ["gamma", "beta"]);
    assert.equal(definition.resources[0]?.settings.stopMs, 4000);
    assert.equal(await codeOf("alpha", ["virtual-server", "set", "ORDERS"], 2), "USAGE");
    assert.equal(
      await codeOf("alpha", ["virtual-server", "set", "NOBODY", "--weight", "1"], 1),
      "VIRTUAL_SERVER_UNKNOWN",
    );
  });

  test("maintenance holds everything still; offline and disabled end the service", async () => {
    await lab.ask("alpha", ["virtual-server", "maintenance", "ORDERS", "on"]);
    assert.equal(await codeOf("alpha", ["move", "ORDERS"], 1), "VIRTUAL_SERVER_IN_MAINTENANCE");
    const held = await refusal("alpha", ["virtual-server", "offline", "ORDERS"], 1);
    assert.equal(held.code, "VIRTUAL_SERVER_IN_MAINTENANCE");
    assert.match(String(held.found), /^on .*online/);
    assert.equal(await codeOf("alpha", ["virtual-server", "disable", "ORDERS"], 1), held.code);
    // Not even stored: a node would carry it out when maintenance ends, or before the command looks.
    const [still] = (await lab.ask<Status>("alpha", ["virtual-server", "list"])).virtualServers;
    assert.deepEqual([still?.state, still?.wanted, still?.isEnabled], ["online", "online", true]);
    await lab.ask("alpha", ["virtual-server", "maintenance", "ORDERS", "off"]);
    await lab.ask("alpha", ["virtual-server", "offline", "ORDERS"]);
    // Who owned it says so until its next report.
    const off = await statusUntil(
      "beta",
      ({ healthy, virtualServers }) => healthy && virtualServers[0]?.state === "offline",
    );
    assert.equal(off.virtualServers[0]?.owner, null);
    await lab.ask("alpha", ["virtual-server", "online", "ORDERS"]);
    await lab.ask("alpha", ["virtual-server", "disable", "ORDERS"]);
    await statusUntil("beta", ({ virtualServers }) => virtualServers[0]?.state === "disabled");
    assert.equal(await codeOf("alpha", ["virtual-server", "online", "ORDERS"], 2), "USAGE");
    await lab.ask("alpha", ["virtual-server", "enable", "ORDERS"]);
    await owner("ORDERS");
  });

  test("a node is drained, stays paused, and takes back what prefers it", async () => {
    await statusUntil("alpha", ({ healthy }) => healthy);
    const from = await owner("ORDERS");
    assert.equal(await codeOf("alpha", ["leave", from], 3), "NODE_IN_USE");
    assert.equal(await codeOf("alpha", ["drain", from, "--to", from], 2), "USAGE");
    await lab.ask("alpha", ["virtual-server", "set", "ORDERS", "--preferred", from]);
    await lab.ask("alpha", ["drain", from]);
    const drained = await statusUntil("alpha", ({ healthy }) => healthy);
    assert.notEqual(ownerOf(drained, "ORDERS"), from);
    assert.equal(drained.nodes.find(({ node }) => node === from)?.state, "paused");
    assert.equal(await codeOf("alpha", ["move", "ORDERS", "--to", from], 1), "NODE_PAUSED");
    const stuck = await refusal("alpha", ["drain", ownerOf(drained, "ORDERS") ?? "", "--to", from], 1);
    assert.deepEqual([stuck.code, stuck.found], ["NODE_PAUSED", `${from} takes nothing`]);
    await lab.ask("alpha", ["resume", from, "--failback", "immediate"]);
    assert.equal(await owner("ORDERS"), from);
    assert.equal((await lab.ask<{ released: boolean }>("alpha", ["release", from])).released, false);
  });

  test("Ctrl-C leaves what was ordered, and what was not enabled yet is taken away", async () => {
    const slow = lab.writeService("slow");
    const adding = lab.begin(
      "alpha",
      ...["virtual-server", "add", "SLOW", "--service", slow, "--set", "service.readyMs=600000"],
    );
    const end = ended(adding);
    await statusUntil("alpha", ({ virtualServers }) =>
      virtualServers.some(({ name, state }) => name === "SLOW" && state === "pending"),
    );
    adding.kill("SIGINT");
    const { status, stderr } = await end;
    assert.equal(status, 130);
    assert.match(stderr, /what was ordered stands/);
    assert.match(stderr, /^error INTERRUPTED/m);
    assert.equal(await codeOf("alpha", ["virtual-server", "remove", "SLOW"], 3), "CONFIRMATION_REQUIRED");
    await lab.ask("alpha", ["virtual-server", "remove", "SLOW", "--yes"]);
    const { virtualServers } = await lab.ask<Status>("alpha", ["virtual-server", "list"]);
    assert.deepEqual(
      virtualServers.map(({ name }) => name),
      ["ORDERS"],
    );
  });

  test("the history is one timeline, and can be followed until Ctrl-C", async () => {
    const run = await lab.run("beta", "history", "--server", "ORDERS", "--last", "100000", "--json");
    const entries = run.stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as { what: string; node: string; at: number; number: number });
    assert.ok(entries.some(({ what }) => what === "order"));
    assert.ok(entries.filter(({ what }) => what === "online").length >= 4);
    for (const node of NODES) {
      const numbers = entries.filter((entry) => entry.node === node).map(({ number }) => number);
      assert.deepEqual(
        numbers,
        numbers.toSorted((a, b) => a - b),
      );
    }
    assert.equal(await codeOf("alpha", ["history", "--server", "NOBODY"], 1), "VIRTUAL_SERVER_UNKNOWN");
    assert.equal(await codeOf("alpha", ["history", "--since", "soon"], 2), "USAGE");
    const following = lab.begin("alpha", "history", "--last", "1", "--follow");
    following.stdout?.once("data", () => following.kill("SIGINT"));
    assert.equal((await ended(following)).status, 0);
  });

  test("a node that dies is told, replaced, and leaves by command", async () => {
    const dead = await owner("ORDERS");
    const [from = "", other = ""] = NODES.filter((node) => node !== dead);
    await lab.endDaemon(dead, "SIGKILL");
    const after = await statusUntil(
      from,
      (status) =>
        status.nodes.some(({ node, state }) => node === dead && state === "down") &&
        ![null, dead].includes(ownerOf(status, "ORDERS")) &&
        status.virtualServers[0]?.state === "online",
    );
    assert.equal(after.healthy, false);
    assert.match(after.problems.join("\n"), new RegExp(`^${dead}: does not answer$`, "m"));
    const failover = await lab.run(from, "failover", "ORDERS", "--any", "--json");
    assert.equal(documentOf<ErrorDocument>(failover).error.code, "CONFIRMATION_REQUIRED");
    assert.match(failover.stderr, /warning: .*answers/);
    assert.equal(await codeOf(from, ["failover", "ORDERS"], 2), "USAGE");
    const owning = ownerOf(after, "ORDERS") ?? "";
    const target = owning === from ? other : from;
    const moved = await lab.ask<{ owner: string }>(from, ["failover", "ORDERS", "--to", target, "--yes"]);
    assert.equal(moved.owner, target);
    await lab.ask(from, ["leave", dead]);
    const status = await statusUntil(from, ({ nodes }) => nodes.length === 2);
    assert.ok(!status.nodes.some(({ node }) => node === dead));
    assert.equal(await codeOf(from, ["leave", dead], 1), "NODE_UNKNOWN");
  });

  test("a store that is silent for a moment ends no command", async () => {
    const most = lab.etcd.members.slice(1);
    for (const member of most) member.kill("SIGSTOP");
    const running = lab.begin("alpha", "status", "--json");
    running.stdin?.end();
    const whole = ended(running);
    // Only once it has met the silence.
    let told = "";
    await new Promise<void>((resolve) => {
      running.once("exit", () => resolve());
      running.stderr?.on("data", (text) => {
        told += String(text);
        if (told.includes("asked again")) resolve();
      });
    });
    for (const member of most) member.kill("SIGCONT");
    const run = await whole;
    assert.match(run.stderr, /the coordination store does not answer; it is asked again/);
    assert.ok(run.status === 0 || run.status === 10, run.stdout);
    await statusUntil("alpha", ({ virtualServers }) => virtualServers[0]?.state === "online");
  });

  test("without a majority of the store nothing is said that could be wrong", async () => {
    for (const member of lab.etcd.members.slice(1)) member.kill("SIGKILL");
    const run = await lab.run("alpha", "status", "--json");
    assert.equal(run.status, 1);
    assert.equal(documentOf<ErrorDocument>(run).error.code, "COORDINATION_UNREACHABLE");
    for (const member of lab.etcd.members.slice(1)) await member.restart();
    await lab.untilStoreWell();
    await statusUntil(NODES[0] ?? "", ({ virtualServers }) => virtualServers[0]?.state === "online");
  });
});

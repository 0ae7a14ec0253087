import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { after, before, suite, test } from "node:test";
import { fileURLToPath } from "node:url";
import { documentOf, type ErrorDocument, ended, PROGRAM } from "../cli/lockstep.ts";
import { freePorts } from "./etcd-cluster.ts";
import { NODES, type NodeName, World, whyNoCluster, whyNoNetwork } from "./world.ts";

/**
 * Drills on a real cluster by the real command: each loss, what a client saw of it, and that everything is as before. The
 * test knows by itself what the report must say: it looks into the process table and asks the store.
 */
interface Report {
  readonly passed: boolean;
  readonly isInterrupted: boolean;
  readonly probe: string | null;
  readonly rounds: readonly {
    readonly victim: string;
    readonly recoveredOn: string | null;
    readonly tokens: { readonly before: number; readonly after: number };
    readonly outage: { readonly ms: number; readonly asked: number; readonly failed: number } | null;
    readonly wayBack: { readonly to: string } | null;
    readonly verdicts: readonly { readonly name: string; readonly ok: boolean; readonly detail: string }[];
    readonly timeline: readonly { readonly what: string }[];
  }[];
}

const networked = whyNoNetwork() === null;
const SERVICE = fileURLToPath(new URL("./world-service.ts", import.meta.url));

suite("lockstep cluster drill", { skip: whyNoCluster() ?? false }, () => {
  let world: World;
  let port = 8080;
  const address = "10.77.0.50";

  before(async () => {
    world = await World.open(networked);
    if (!networked) [port = 0] = await freePorts(1);
    await world.found();
    writeFileSync(world.path("app.toml"), `Port = ${port}\n`);
    await world.ask("alpha", [
      ...["virtual-server", "add", "APP", "--service", process.execPath, "--preferred", "alpha,beta,gamma"],
      ...["--argument", SERVICE, "--argument", world.path("app.toml")],
      // So long that a client which stands still for a moment sees it all the same.
      ...["--policy", "service.restartDelayMs=3000"],
      ...[
        "--set",
        `service.probeTcp=127.0.0.1:${port}`,
        ...(networked ? ["--address", `${address}/24`] : []),
      ],
    ]);
    await world.owner("APP");
  });
  after(() => world.close());

  const drill = async (...args: readonly string[]): Promise<Report> => {
    const run = await world.lockstep("client", "cluster", "drill", "APP", "--yes", "--json", ...args);
    assert.equal(run.status, 0, `${run.stdout}\n${run.stderr}`);
    return documentOf<Report>(run);
  };
  const refusal = async (from: string, ...args: readonly string[]) => {
    const run = await world.lockstep(from, "cluster", "drill", "APP", "--yes", "--json", ...args);
    assert.equal(run.status, 3, `${run.stdout}\n${run.stderr}`);
    const { code, faults = [] } = documentOf<ErrorDocument>(run).error;
    return { code, faults: faults.map(({ where, problem }) => `${where}: ${problem}`).join("\n") };
  };
  /** As it must be after each drill, whatever the report says of it. */
  const asBefore = async (owner: NodeName) => {
    await world.until("all well", async () => ((await world.status()).healthy ? true : null));
    assert.equal(await world.owner("APP"), owner);
    assert.deepEqual(world.servingOn("APP"), [owner]);
    for (const node of NODES) assert.equal(world.daemonsOf(node).length, 1, `one daemon of ${node}`);
  };

  test("without --yes and without a person nothing is taken away", async () => {
    const run = await world.lockstep("client", "cluster", "drill", "APP", "--json");
    assert.equal(documentOf<ErrorDocument>(run).error.code, "CONFIRMATION_REQUIRED");
    assert.match(run.stderr, /this is real/);
  });

  test("a killed service is restarted in place, and the client sees how long that takes", async () => {
    const owner = await world.owner("APP");
    const report = await drill("--what", "service");
    const [round] = report.rounds;
    assert.ok(round !== undefined);
    assert.deepEqual([round.victim, round.recoveredOn], [owner, owner]);
    assert.equal(round.tokens.after, round.tokens.before, "the lease was never lost");
    assert.ok((round.outage?.failed ?? 0) > 0 && (round.outage?.ms ?? 0) > 0, "the client noticed");
    assert.ok(round.timeline.some(({ what }) => what === "resource-failed"));
    assert.equal(round.wayBack, null);
    await asBefore(owner);
  });

  test("a killed daemon costs the ownership, comes back by itself, and gets it back", async () => {
    const owner = await world.owner("APP");
    const [pid] = world.daemonsOf(owner);
    const [html, json] = [world.path("drill.html"), world.path("drill.json")];
    const report = await drill("--what", "daemon", "--report", html, "--report", json);
    const [round] = report.rounds;
    assert.ok(round !== undefined && report.passed);
    assert.notEqual(round.recoveredOn, owner);
    assert.ok(round.tokens.after > round.tokens.before);
    assert.equal(round.wayBack?.to, owner);
    assert.notEqual(world.daemonsOf(owner)[0], pid, "it really was killed");
    assert.deepEqual(JSON.parse(readFileSync(json, "utf8")), report);
    const page = readFileSync(html, "utf8");
    assert.match(page, /^<!doctype html>/);
    assert.doesNotMatch(page, /(?:src|href)=|<script|@import|url\(/, "it needs nothing else");
    for (const { name } of round.verdicts) assert.ok(page.includes(name), name);
    await asBefore(owner);
  });

  test("a lost node is waited out, round after round, and is not kept out for it", async () => {
    const owner = await world.owner("APP");
    const report = await drill("--what", "node", "--rounds", "3");
    assert.equal(report.rounds.length, 3, "a third exit within the hour would have been quarantine");
    for (const round of report.rounds) {
      assert.equal(round.victim, owner);
      assert.notEqual(round.recoveredOn, owner);
      // Nobody gave the lease back: the others waited for as long as the lease says.
      assert.ok(round.timeline.some(({ what }) => what === "took"));
      assert.ok((round.outage?.ms ?? 0) > 4_500, `${round.outage?.ms} ms`);
    }
    await asBefore(owner);
  });

  const noNetwork = networked ? false : (whyNoNetwork() ?? "no network");

  test("a cut ends by itself although the daemon that made it is dead", { skip: noNetwork }, async () => {
    const owner = await world.owner("APP");
    const { code, faults } = await refusal(owner, "--what", "network");
    assert.equal(code, "DRILL_REFUSED");
    assert.match(faults, /runs on the node that is cut off/);
    const running = world.begin(
      ...(["client", process.execPath, PROGRAM, "cluster", "drill", "APP"] as const),
      ...["--yes", "--json", "--what", "network"],
    );
    running.stdin?.end();
    const whole = ended(running);
    const client = world.lab?.host("client");
    const ping = async () =>
      (await client?.run("ping", ["-c", "1", "-W", "1", world.machine(owner).address]))?.status;
    // In force, not only slow to answer: a daemon that dies before has not begun it.
    const table = ["list", "table", "inet", "lockstep_drill"];
    const isCut = async () => (await world.lab?.host(owner).run("nft", table))?.status === 0;
    await world.until("cut", async () => ((await isCut()) && (await ping()) !== 0 ? true : null));
    await world.killDaemon(owner);
    await world.until("back", async () => ((await ping()) === 0 ? true : null));
    await world.startDaemon(owner);
    const run = await whole;
    assert.equal(run.status, 0, `${run.stdout}\n${run.stderr}`);
    const [round] = documentOf<Report>(run).rounds;
    assert.equal(round?.victim, owner);
    assert.notEqual(round?.recoveredOn, owner, "another began while it was cut off");
    await asBefore(owner);
  });

  test("a node without the store gives up what it owns", { skip: noNetwork }, async () => {
    const owner = await world.owner("APP");
    const report = await drill("--what", "store");
    assert.notEqual(report.rounds[0]?.recoveredOn, owner);
    await asBefore(owner);
  });

  test("Ctrl-C: what was taken away is waited for and put back", async () => {
    const owner = await world.owner("APP");
    const running = world.begin(
      ...(["client", process.execPath, PROGRAM, "cluster", "drill", "APP"] as const),
      ...["--yes", "--json", "--what", "daemon", "--rounds", "50", "--lasts", "20"],
    );
    running.stdin?.end();
    const whole = ended(running);
    await world.until("the daemon is dead", () => (world.daemonsOf(owner).length === 0 ? true : null));
    running.kill("SIGINT");
    const run = await whole;
    assert.notEqual(run.status, 0);
    const [line = ""] = run.stdout.split("\n");
    const report = JSON.parse(line) as Report;
    assert.deepEqual([report.isInterrupted, report.rounds.length], [true, 1]);
    await asBefore(owner);
  });

  test("where something is not well nothing is taken away", async () => {
    await world.ask("client", ["drain", "gamma"]);
    await world.ask("client", ["drain", "beta"]);
    const { code, faults } = await refusal("client", "--what", "node");
    assert.equal(code, "DRILL_REFUSED");
    assert.match(faults, /no other node can own it/);
    for (const node of ["beta", "gamma"]) await world.ask("client", ["resume", node]);
    const tried = await refusal("client", "--probe", `127.0.0.1:${port === 1 ? 2 : 1}`);
    assert.match(tried.faults, /does not answer before anything is taken away/);
    assert.deepEqual(world.servingOn("APP"), [await world.owner("APP")]);
  });
});

import assert from "node:assert/strict";
import { after, before, suite, type TestContext, test } from "node:test";
import { at, MEMBERS, REPORTS, SERVERS } from "@lockstep/cluster";
import type { HistoryEntry } from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import { sendSignal } from "../support/send-signal.ts";
import { DaemonLab, type LabOptions, SLOW_TIMES } from "./daemon-lab.ts";
import { type EtcdCluster, findEtcd, startEtcd } from "./etcd-cluster.ts";

const program = findEtcd();
/** One for all tests of this file: each lab has a prefix of its own. */
let etcd: EtcdCluster | null = null;
const NODES = ["alpha", "beta", "gamma"];

async function open(t: TestContext, options: Partial<LabOptions> = {}): Promise<DaemonLab> {
  const lab = await DaemonLab.open(program ?? "", {
    nodes: NODES,
    ...(etcd === null ? {} : { etcd }),
    ...options,
  });
  t.after(async () => {
    await lab.close();
    assert.deepEqual(lab.together, []);
    assert.ok(lab.samples > 0);
  });
  return lab;
}

suite("the daemons of a cluster", { skip: program === null && "etcd is not on this machine" }, () => {
  before(async () => {
    etcd = await startEtcd(program ?? "");
  });
  after(() => etcd?.stop());

  test("a virtual server comes online on one node, moves, and leaves when its node is told to end", async (t) => {
    const lab = await open(t);
    await lab.add("APP", { preferredOwners: ["beta"] });
    await lab.untilServing("APP", ["beta"]);
    assert.equal(await lab.untilOnline("APP"), "beta");

    await lab.order("APP", { kind: "move", to: "gamma" });
    await lab.untilServing("APP", ["gamma"]);
    await lab.untilHistory("order", ({ node, detail }) => node === "beta" && /moves to gamma/.test(detail));
    await lab.untilHistory("took", ({ node }) => node === "gamma");
    // Without a target: the best of the others.
    await lab.untilOnline("APP");
    await lab.order("APP", { kind: "move", to: null });
    await lab.untilServing("APP", ["beta"]);

    await lab.untilOnline("APP");
    await lab.end("beta", "SIGTERM");
    assert.ok(!lab.serving("APP").includes("beta"));
    await lab.untilServing("APP", ["alpha"]);
    const { found } = await lab.documents.members();
    assert.deepEqual(
      [...found.values()].map(({ exits }) => exits),
      [[], [], []],
    );
  });

  test("a daemon that is killed loses everything to others, and is counted", async (t) => {
    const lab = await open(t);
    await lab.add("ONE", { preferredOwners: ["alpha"] });
    await lab.add("TWO", { preferredOwners: ["alpha"] });
    await lab.untilServing("ONE", ["alpha"]);
    await lab.untilServing("TWO", ["alpha"]);
    await lab.untilOnline("ONE");
    await lab.untilOnline("TWO");
    await lab.end("alpha", "SIGKILL");
    const [one] = await lab.until("elsewhere", () => elsewhere(lab, "ONE", "alpha"));
    const [two] = await lab.until("elsewhere", () => elsewhere(lab, "TWO", "alpha"));
    // What fell together is spread.
    assert.notEqual(one, two);
    await lab.start("alpha");
    const exit = await lab.until("counted", async () => {
      const member = await lab.documents.read(at(MEMBERS, "alpha"));
      return member !== null && member.exits.length > 0 ? member : null;
    });
    assert.equal(exit.exits.length, 1);
    assert.equal(exit.quarantinedUntil, null);
    await lab.untilHistory("node-exit", ({ detail }) => /^alpha dropped out/.test(detail));
  });

  test("a frozen node is waited out, loses what it had and is kept out when it happens again and again", async (t) => {
    const lab = await open(t, {
      times: SLOW_TIMES,
      changed: { quarantine: { exits: 1, periodMs: 3_600_000, outMs: 7_200_000 } },
    });
    await lab.add("APP", { preferredOwners: ["alpha"] });
    await lab.untilServing("APP", ["alpha"]);
    await lab.untilOnline("APP");
    lab.daemon("alpha").kill("SIGSTOP");
    const [owner] = await lab.until("elsewhere", () => elsewhere(lab, "APP", "alpha"));
    // Seen to be down and up again by whoever is asked below: what does not answer is refused for that.
    const ofAlpha = ({ node, detail }: HistoryEntry) => node === owner && detail.startsWith("alpha ");
    const down = await lab.untilHistory("node-down", ofAlpha);
    lab.daemon("alpha").kill("SIGCONT");
    await lab.untilHistory("node-up", (entry) => ofAlpha(entry) && entry.number > down.number);
    const out = await lab.until("quarantined", async () => {
      const member = await lab.documents.read(at(MEMBERS, "alpha"));
      return member?.quarantinedUntil != null ? member : null;
    });
    assert.equal(out.exits.length, 1);
    await lab.untilHistory(
      "took",
      ({ node, detail }) => node !== "alpha" && /before: alpha with token 1, last change at/.test(detail),
    );
    await lab.untilHistory("quarantined", ({ node }) => node === "alpha");
    // Kept out, it is no target; released by a person, it is.
    await lab.order("APP", { kind: "move", to: "alpha" });
    await lab.untilHistory("order", ({ detail }) => /given up: alpha dropped out too often/.test(detail));
    await lab.documents.change(
      at(MEMBERS, "alpha"),
      (member) => member && { ...member, exits: [], quarantinedUntil: null },
    );
    await lab.untilHistory("released", ({ node }) => node === "alpha");
    await lab.order("APP", { kind: "move", to: "alpha" });
    await lab.untilServing("APP", ["alpha"]);
  });

  test("where it failed a moment ago it is tried again only when somebody orders it there", async (t) => {
    const lab = await open(t);
    const service = lab.define("APP").resources.map((resource) => ({
      ...resource,
      policy: { ...resource.policy, restartThreshold: 0 },
    }));
    await lab.add("APP", { preferredOwners: ["alpha", "beta"], resources: service });
    await lab.untilServing("APP", ["alpha"]);
    await lab.untilOnline("APP");
    for (const pid of lab.marked("alpha", "LOCKSTEP_NODE")) sendSignal(pid, "SIGKILL");
    await lab.untilServing("APP", ["beta"]);
    await lab.untilOnline("APP");
    await lab.order("APP", { kind: "move", to: "alpha" });
    await lab.untilServing("APP", ["alpha"]);
    // A node serves before what it did is written down.
    const owners = await lab.until("all written down", async () => {
      const took = (await lab.documents.history()).filter(({ what }) => what === "took");
      return took.length < 3 ? null : took.map(({ node }) => node);
    });
    assert.deepEqual(owners, ["alpha", "beta", "alpha"]);
  });

  test("paused, a node gives nothing up and takes nothing, also after a restart; drained, it is empty", async (t) => {
    const lab = await open(t);
    await lab.add("APP", { preferredOwners: ["alpha", "beta"] });
    await lab.untilServing("APP", ["alpha"]);
    await lab.untilOnline("APP");
    await lab.pause("alpha", true);
    await lab.untilHistory("paused", ({ node }) => node === "alpha");
    assert.deepEqual(lab.serving("APP"), ["alpha"]);
    // Drained: what it has moves off.
    await lab.order("APP", { kind: "move", to: "beta" });
    await lab.untilServing("APP", ["beta"]);
    await lab.untilOnline("APP");
    await lab.end("alpha", "SIGTERM");
    const { number: last } = await lab.untilHistory("daemon-ended", ({ node }) => node === "alpha");
    await lab.start("alpha");
    await lab.untilHistory("paused", ({ node, number }) => node === "alpha" && number > last);
    await lab.end("beta", "SIGTERM");
    await lab.untilServing("APP", ["gamma"]);
    await lab.untilOnline("APP");
    await lab.pause("alpha", false);
    await lab.untilHistory("resumed", ({ node }) => node === "alpha");
    await lab.end("gamma", "SIGTERM");
    await lab.untilServing("APP", ["alpha"]);
  });

  test("wanted offline, not enabled, changed and removed: the service follows its definition", async (t) => {
    const lab = await open(t);
    await lab.add("APP", { preferredOwners: ["alpha"] });
    await lab.untilServing("APP", ["alpha"]);
    await lab.untilOnline("APP");
    await lab.change("APP", { wanted: "offline" });
    await lab.untilServing("APP", []);
    await lab.until("given back", async () => ((await lab.owner("APP")) === null ? true : null));
    await lab.change("APP", { wanted: "online" });
    await lab.untilServing("APP", ["alpha"]);

    // What a resource is changes while it runs: it comes back as what it is now.
    await lab.untilOnline("APP");
    const { resources } = lab.define("APP");
    const [service] = resources;
    assert.ok(service !== undefined);
    const environment = [
      ...((service.settings.environment as readonly string[]) ?? []),
      "LOCKSTEP_TEST_OTHER=second",
    ];
    await lab.change("APP", { resources: [{ ...service, settings: { ...service.settings, environment } }] });
    await lab.until("changed", () => (lab.marked("second", "LOCKSTEP_TEST_OTHER").length > 0 ? true : null));
    assert.deepEqual(lab.serving("APP"), ["alpha"]);

    await lab.change("APP", { isEnabled: false });
    await lab.untilServing("APP", []);
    await lab.until("disabled everywhere", async () => {
      const { found } = await lab.documents.list(REPORTS);
      return [...found.values()].every(({ servers }) => servers.APP?.role === "disabled") ? true : null;
    });
    await lab.change("APP", { isEnabled: true });
    await lab.untilServing("APP", ["alpha"]);
    await lab.untilOnline("APP");
    await lab.documents.change(at(SERVERS, "APP"), () => null);
    await lab.untilServing("APP", []);
  });

  test("the store goes away: the service ends at its deadline, nobody counts as down, and it comes back", async (t) => {
    const lab = await open(t, { times: SLOW_TIMES });
    await lab.add("APP", { preferredOwners: ["alpha"] });
    await lab.untilServing("APP", ["alpha"]);
    await lab.untilOnline("APP");
    for (const member of lab.etcd.members.slice(1)) member.kill("SIGSTOP");
    await lab.untilServing("APP", []);
    for (const member of lab.etcd.members.slice(1)) member.kill("SIGCONT");
    await lab.untilServing("APP", 1);
    await lab.untilHistory("lost", ({ node, detail }) => node === "alpha" && /deadline/.test(detail));
    await lab.untilHistory("store-back");
    const history = await lab.documents.history();
    assert.deepEqual(
      history.filter(({ what }) => what === "node-down"),
      [],
    );
  });

  test("with failsafe an owner stays while the store is away, because every other daemon agreed", async (t) => {
    const lab = await open(t, { times: SLOW_TIMES });
    await lab.add("APP", { preferredOwners: ["alpha"], failsafe: true });
    await lab.untilServing("APP", ["alpha"]);
    await lab.untilOnline("APP");
    for (const member of lab.etcd.members.slice(1)) member.kill("SIGSTOP");
    // Twice the time for which it trusts a renewal.
    await systemClock.sleep(2 * SLOW_TIMES.trustMs);
    assert.deepEqual(lab.serving("APP"), ["alpha"]);
    // One that does not agree is enough.
    lab.daemon("gamma").kill("SIGSTOP");
    await lab.untilServing("APP", []);
    lab.daemon("gamma").kill("SIGCONT");
    for (const member of lab.etcd.members.slice(1)) member.kill("SIGCONT");
    await lab.untilServing("APP", 1);
    await lab.untilHistory("stays-without-store", ({ node }) => node === "alpha");
    await lab.untilHistory("promised", ({ node }) => node === "beta");
  });

  test("a service that cannot start goes elsewhere so many times and then stays, said in the history", async (t) => {
    const lab = await open(t);
    const [service] = lab.define("APP").resources;
    assert.ok(service !== undefined);
    await lab.add("APP", {
      preferredOwners: ["alpha", "beta"],
      failover: { threshold: 1, periodMs: 3_600_000 },
      resources: [
        {
          ...service,
          settings: { ...service.settings, arguments: ["-c", "exit 1"] },
          policy: {
            ...service.policy,
            restartThreshold: 1,
            restartDelayMs: 10,
            restartPeriodMs: 60_000,
            retryMs: null,
          },
        },
      ],
    });
    await lab.untilHistory("failover", ({ node, detail }) => node === "alpha" && /goes to beta/.test(detail));
    await lab.untilHistory(
      "stays",
      ({ node, detail }) => node === "beta" && /failed over once within/.test(detail),
    );
    assert.equal(await lab.owner("APP"), "beta");
    // It would stay so for ever: somebody orders it to be tried again.
    await lab.order("APP", { kind: "online", to: null });
    await lab.untilHistory("tried-again", ({ node }) => node === "beta");
    await lab.untilHistory(
      "order",
      ({ node, detail }) => node === "beta" && /tried again on beta/.test(detail),
    );
  });

  test("two nodes without a third vote do not replace a lost owner by themselves, but on demand", async (t) => {
    const lab = await open(t, {
      nodes: ["alpha", "beta"],
      times: SLOW_TIMES,
      changed: { votes: [{ name: "m0", onNode: "alpha" }] },
    });
    await lab.add("APP", { preferredOwners: ["alpha"] });
    await lab.untilServing("APP", ["alpha"]);
    await lab.untilOnline("APP");
    await lab.untilHistory(
      "votes",
      ({ node, detail }) => node === "beta" && /two nodes need a third vote/.test(detail),
    );
    lab.daemon("alpha").kill("SIGSTOP");
    await lab.untilServing("APP", []);
    await lab.untilHistory("node-down", ({ node, detail }) => node === "beta" && /^alpha/.test(detail));
    assert.equal(await lab.owner("APP"), "alpha");
    await lab.order("APP", { kind: "move", to: "beta" });
    await lab.untilHistory("order", ({ detail }) => /given up: alpha does not answer/.test(detail));
    assert.deepEqual(lab.serving("APP"), []);
    await lab.order("APP", { kind: "failover", to: null });
    await lab.untilServing("APP", ["beta"]);
    lab.daemon("alpha").kill("SIGCONT");
    await lab.untilHistory("lost", ({ node }) => node === "alpha");
    assert.deepEqual(lab.serving("APP"), ["beta"]);
  });
});

function elsewhere(lab: DaemonLab, name: string, not: string): string[] | null {
  const serving = lab.serving(name);
  return serving.length === 1 && serving[0] !== not ? serving : null;
}

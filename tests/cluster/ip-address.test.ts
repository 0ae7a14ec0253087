import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { suite, type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { ResourceDefinition } from "@lockstep/core";
import { type Lab, labNow, openLab, whyNoLab } from "../support/lab.ts";
import type { LabHost } from "../support/lab-host.ts";
import { measureOutage, startProbe } from "../support/lab-probe.ts";
import { findTwoOwners, watchTruth } from "../support/lab-truth.ts";

const HOST = fileURLToPath(new URL("./resource-host.ts", import.meta.url));
const RESPONDER = fileURLToPath(new URL("../support/lab-responder.ts", import.meta.url));
const PORT = 8080;
const skip = whyNoLab("arping", "ndptool") ?? false;

/** The kernel takes no address away because its host stands still. */
const PATIENT = { lifetimeSeconds: 600 };
/** An answer of another owner, or of a peer, is waited for although programs start slowly. */
const LISTENS = { probeMs: 5_000 };

interface Said {
  readonly at: number;
  readonly event: "done" | "note" | "failed";
  readonly text: string | null;
}

/** The resource on one host, driven by words. */
class AddressHost {
  readonly host: LabHost;
  readonly heard: Said[] = [];
  readonly #child: ChildProcess;
  #rest = "";

  constructor(lab: Lab, name: string, settings: ResourceDefinition["settings"]) {
    this.host = lab.host(name);
    const argument = JSON.stringify([{ ...PATIENT, ...settings }, `${lab.directory}/${name}`]);
    this.#child = this.host.start(process.execPath, [HOST, argument], { output: "pipe" });
    this.#child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      const lines = (this.#rest + text).split("\n");
      this.#rest = lines.pop() ?? "";
      for (const line of lines) this.heard.push(JSON.parse(line) as Said);
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  async #done(count: number): Promise<Said> {
    for (;;) {
      const said = this.heard.filter(({ event }) => event === "done")[count];
      if (said !== undefined) return said;
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) throw new Error("it ended");
      await pause(1);
    }
  }

  /** What it answers: null where all is well. */
  async say(word: string): Promise<string | null> {
    const done = this.heard.filter(({ event }) => event === "done").length;
    this.#child.stdin?.write(`${word}\n`);
    return (await this.#done(done)).text;
  }

  async must(word: string): Promise<void> {
    assert.equal(await this.say(word), null, word);
  }

  /** Waits for a note or a failure that says this. */
  async says(event: "note" | "failed", pattern: RegExp): Promise<void> {
    await until(() => this.heard.some((said) => said.event === event && pattern.test(said.text ?? "")));
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await once(this.#child, "exit");
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await pause(5);
}

async function useLab(t: TestContext, ...names: string[]): Promise<Lab> {
  const lab = await openLab(names);
  t.after(() => lab.close());
  return lab;
}

async function respond(host: LabHost): Promise<void> {
  const service = host.start(process.execPath, [RESPONDER, String(PORT)], { output: "pipe" });
  if (service.stdout !== null) await once(service.stdout, "data");
}

const has = async (host: LabHost, address: string): Promise<boolean> =>
  (await host.must("ip", "-o", "addr", "show", "to", address)).includes(address);

suite("ip-address", { skip }, () => {
  for (const [protocol, address, cidr] of [
    ["IPv4", "10.77.0.50", "10.77.0.50/24"],
    ["IPv6", "fd77::50", "fd77::50/64"],
  ] as const) {
    test(`an ${protocol} address moves: never two owners, the client follows by the announcement`, async (t) => {
      const lab = await useLab(t, "a", "b", "client");
      const client = lab.host("client");
      const nodes = [
        new AddressHost(lab, "a", { address: cidr }),
        new AddressHost(lab, "b", { address: cidr }),
      ] as const;
      for (const node of nodes) {
        await respond(node.host);
        await node.must("terminate");
      }
      const truth = await watchTruth(lab, { addresses: [address], ports: [PORT] });
      await nodes[0].must("online");
      const gaps: number[] = [];
      for (let turn = 0; turn < 4; turn++) {
        const [from, to] = turn % 2 === 0 ? nodes : ([nodes[1], nodes[0]] as const);
        const mac = await to.host.mac();
        const probe = await startProbe(client, { address, port: PORT });
        await pause(400);
        const faultAt = labNow();
        await from.must("offline");
        await to.must("online");
        await until(async () => (await client.neighbour(address)) === mac);
        await pause(400);
        const outage = measureOutage(await probe.stop(), faultAt);
        assert.equal(outage.flapbacks, 0);
        gaps.push(outage.gapMs);
        assert.equal(await to.say("check"), null);
        assert.equal(await to.say("thorough"), null);
      }
      await nodes[0].must("offline");
      const samples = await truth.stop();
      assert.deepEqual(findTwoOwners(samples, address), []);
      assert.deepEqual(samples.at(-1)?.owners[address], []);
      t.diagnostic(`outages that the client saw, ms: ${gaps.map(Math.round).join(", ")}`);
      for (const node of nodes)
        assert.deepEqual(
          node.heard.filter(({ event }) => event !== "done"),
          [],
        );
    });

    test(`a foreign owner of an ${protocol} address is named, before and afterwards`, async (t) => {
      const lab = await useLab(t, "a", "stranger");
      const stranger = lab.host("stranger");
      const notes = new AddressHost(lab, "a", { ...LISTENS, address: cidr });
      const fails = new AddressHost(lab, "a", { ...LISTENS, address: cidr, foreignOwner: "fail" });
      await stranger.plant(cidr);
      assert.match((await fails.say("online")) ?? "", /^RESOURCE_FAILED .*another host \(.+\) answers for/);
      assert.ok(!(await has(fails.host, address)));
      await notes.must("online");
      await notes.says("note", /^foreign owner of the address: another host/);
      assert.equal(await notes.say("thorough"), null);
      await notes.must("offline");
      await stranger.unplant(cidr);
      await fails.must("online");
      assert.equal(await fails.say("thorough"), null);
      await stranger.plant(cidr);
      assert.match((await fails.say("thorough")) ?? "", /another host \(.+\) answers for/);
      const mac = protocol === "IPv4" ? await stranger.mac() : address;
      assert.ok(fails.heard.some(({ event, text }) => event === "note" && text?.includes(mac)));
      await fails.must("offline");
    });
  }

  test("without a token nothing is added and nothing is announced", async (t) => {
    const lab = await useLab(t, "a", "client");
    const a = new AddressHost(lab, "a", { address: "10.77.0.50/24" });
    await a.must("fence");
    assert.match((await a.say("online")) ?? "", /RESOURCE_FAILED .*the lease has ended/);
    assert.ok(!(await has(a.host, "10.77.0.50")));
  });

  test("what a killed daemon left is taken away by the guard's command, by the next life, and by the kernel", async (t) => {
    const lab = await useLab(t, "a");
    const settings = { address: "10.77.0.50/24", lifetimeSeconds: 20 };
    const host = lab.host("a");
    const secondsLeft = async () => {
      const said = await host.must("ip", "-j", "addr", "show", "to", "10.77.0.50");
      const links = JSON.parse(said) as { addr_info?: { local?: string; valid_life_time?: number }[] }[];
      const found = links.flatMap((link) => link.addr_info ?? []).find((each) => each.local === "10.77.0.50");
      return found?.valid_life_time ?? 0;
    };
    const first = new AddressHost(lab, "a", { ...settings, lifetimeSeconds: 0 });
    const [[program, ...args]] = JSON.parse((await first.say("undo")) ?? "") as [[string, ...string[]]];
    await first.must("online");
    await first.kill();
    assert.ok(await has(host, "10.77.0.50"));
    await host.must(program, ...args);
    assert.ok(!(await has(host, "10.77.0.50")));
    await host.must(program, ...args);

    const second = new AddressHost(lab, "a", { ...settings, lifetimeSeconds: 0 });
    await second.must("online");
    await second.kill();
    const third = new AddressHost(lab, "a", settings);
    await third.must("terminate");
    assert.ok(!(await has(host, "10.77.0.50")));

    await third.must("online");
    // It only falls, unless somebody extends it.
    let least = await secondsLeft();
    for (let left = least; left <= least; left = await secondsLeft()) {
      assert.ok(left > 0, "somebody extends it");
      least = left;
      await pause(50);
    }
    process.kill(third.pid, "SIGSTOP");
    await until(async () => !(await has(host, "10.77.0.50")));
    process.kill(third.pid, "SIGCONT");
    await third.says("failed", /10\.77\.0\.50 is not on eth0 any more/);
  });

  test("the guard's command ends what is still on its way to the kernel", async (t) => {
    const lab = await useLab(t, "a");
    const a = new AddressHost(lab, "a", { address: "10.77.0.50/24" });
    const [[program, ...args]] = JSON.parse((await a.say("undo")) ?? "") as [[string, ...string[]]];
    await a.must("online");
    const children = async () =>
      (await a.host.run("pgrep", ["-P", String(a.pid), "-f", "^/.*ip -4 -json -force -batch"])).stdout
        .trim()
        .split("\n");
    const before = await children();
    assert.notDeepEqual(before, [""]);
    // Whoever stands still meanwhile learns of both at once, in whatever order.
    process.kill(a.pid, "SIGSTOP");
    await a.host.must(program, ...args);
    await until(async () => !(await children()).some((pid) => before.includes(pid)));
    assert.ok(!(await has(a.host, "10.77.0.50")));
    process.kill(a.pid, "SIGCONT");
    await a.says("failed", /not on eth0 any more/);
    await a.must("terminate");
    await a.must("online");
    assert.ok(await has(a.host, "10.77.0.50"), "and it works again");
  });

  test("a pulled cable is a failure; who comes back announces again, also to whom it missed", async (t) => {
    const lab = await useLab(t, "a", "b", "client");
    const client = lab.host("client");
    const a = new AddressHost(lab, "a", {
      address: "10.77.0.50/24",
      carrierGraceMs: 100,
      announceEverySeconds: 1,
    });
    await a.must("online");
    await a.host.unplug();
    await a.says("failed", /eth0 has had no carrier/);
    assert.match((await a.say("check")) ?? "", /no carrier/);
    // Meanwhile another answered there.
    const b = lab.host("b");
    await b.plant("10.77.0.50/24");
    await until(
      async () => (await client.run("ping", ["-n", "-c", "1", "-W", "1", "10.77.0.50"])).status === 0,
    );
    const strange = await b.mac();
    assert.equal(await client.neighbour("10.77.0.50"), strange);
    await b.unplant("10.77.0.50/24");
    await a.host.plug();
    const own = await a.host.mac();
    await until(async () => (await client.neighbour("10.77.0.50")) === own);
    assert.equal(await a.say("check"), null);

    // The same without loss of carrier: nobody tells that it is over.
    await a.host.silence("both");
    await b.plant("10.77.0.50/24");
    await until(async () => {
      await b.must("arping", "-q", "-U", "-c", "1", "-I", "eth0", "10.77.0.50");
      return (await client.neighbour("10.77.0.50")) === strange;
    });
    await b.unplant("10.77.0.50/24");
    await a.host.hear();
    await until(async () => (await client.neighbour("10.77.0.50")) === own);
  });

  test("peers that do not find us are named, and asked until they do", async (t) => {
    const lab = await useLab(t, "a", "gateway");
    await respond(lab.host("gateway"));
    const gateway = lab.host("gateway").address;
    const a = new AddressHost(lab, "a", {
      ...LISTENS,
      address: "10.77.0.50/24",
      peers: [gateway, `${gateway}:${PORT}`, `${gateway}:9`],
    });
    await lab.host("gateway").silence("both");
    await a.must("online");
    await a.says("note", /does not find us at 10\.77\.0\.50/);
    await lab.host("gateway").hear();
    await a.says("note", /is found by all peers/);
  });

  test("connections of the address are reset when it goes, where that is wanted and the kernel can", async (t) => {
    const lab = await useLab(t, "a", "client");
    const a = new AddressHost(lab, "a", { address: "10.77.0.50/24", closeConnections: true });
    const serve = `require("net").createServer((s) => s.on("error", () => {})).listen(${PORT}, () => console.log("ready"))`;
    const server = a.host.start(process.execPath, ["-e", serve], { output: "pipe" });
    if (server.stdout !== null) await once(server.stdout, "data");
    await a.must("online");
    const connect = `require("net").connect(${PORT}, "10.77.0.50", () => console.log("open"))
      .on("error", (error) => { console.log(error.code); process.exit(); });`;
    const client = lab.host("client").start(process.execPath, ["-e", connect], { output: "pipe" });
    let said = "";
    client.stdout?.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
    await until(() => said === "open\n");
    await a.must("offline");
    if ((await a.host.must("ss", "-Htn", "state", "established", "src", "10.77.0.50")) !== "")
      return t.skip("this kernel closes no socket for somebody else");
    await until(() => said === "open\nECONNRESET\n");
  });

  test("an interface that is not there or has no network of the address is named", async (t) => {
    const lab = await useLab(t, "a");
    for (const [settings, expected] of [
      [{ address: "10.99.0.50/24" }, /no interface has an address in the network of 10\.99\.0\.50\/24/],
      [{ address: "10.77.0.50/24", interface: "eth7" }, /there is no interface eth7 \(there are lo, eth0\)/],
    ] as const)
      assert.match((await new AddressHost(lab, "a", settings).say("online")) ?? "", expected);
    const elsewhere = new AddressHost(lab, "a", { address: "10.99.0.50/24", interface: "eth0" });
    await elsewhere.must("online");
    assert.ok(await has(elsewhere.host, "10.99.0.50"));
    await elsewhere.must("offline");
    assert.ok(!(await has(elsewhere.host, "10.99.0.50")));
  });
});

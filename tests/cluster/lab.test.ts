import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync } from "node:fs";
import { suite, type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { type Lab, labNow, openLab, whyNoLab } from "../support/lab.ts";
import { startLabEtcd } from "../support/lab-etcd.ts";
import { processState } from "../support/lab-namespaces.ts";
import { startProbe } from "../support/lab-probe.ts";
import { watchTruth } from "../support/lab-truth.ts";
import { findEtcd } from "./etcd-cluster.ts";

const RESPONDER = fileURLToPath(new URL("../support/lab-responder.ts", import.meta.url));
const skip = whyNoLab("ping") ?? false;

async function useLab(t: TestContext, ...names: string[]): Promise<Lab> {
  const lab = await openLab(names);
  t.after(() => lab.close());
  return lab;
}

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 5));
}

const reaches = async (lab: Lab, from: string, to: string): Promise<boolean> =>
  (await lab.host(from).run("ping", ["-n", "-c", "1", "-W", "1", to])).status === 0;

suite("the lab of hosts", { skip }, () => {
  test("hosts reach each other by both protocols, have names of their own, and are not seen from the machine", async (t) => {
    const lab = await useLab(t, "a", "b");
    const { a, b } = { a: lab.host("a"), b: lab.host("b") };
    await until(() => reaches(lab, "a", b.address));
    await until(() => reaches(lab, "b", a.address6));
    assert.equal((await a.must("hostname")).trim(), "a");
    assert.notEqual(await a.mac(), await b.mac());
    assert.ok(!readdirSync("/sys/class/net").some((name) => name === "switch" || name.startsWith("to-")));
  });

  test("a pulled cable is seen by the host, a silent one is not, and one direction may fail alone", async (t) => {
    const lab = await useLab(t, "a", "b");
    const { a, b } = { a: lab.host("a"), b: lab.host("b") };
    const carrier = async () => (await a.must("cat", "/sys/class/net/eth0/carrier")).trim();
    assert.equal(await carrier(), "1");
    await a.unplug();
    await until(async () => (await carrier()) === "0");
    assert.ok(!(await reaches(lab, "a", b.address)));
    await a.plug();
    await until(async () => (await carrier()) === "1");
    await until(() => reaches(lab, "a", b.address));
    for (const direction of ["out", "in", "both"] as const) {
      await a.silence(direction);
      assert.equal(await carrier(), "1");
      for (const host of [a, b]) await host.must("ip", "neigh", "flush", "all");
      assert.ok(!(await reaches(lab, "a", b.address)), direction);
      // Who is only deaf is still heard: its question for the other's address told the other its own.
      assert.equal(await b.neighbour(a.address), direction === "in" ? await a.mac() : null, direction);
      await a.hear();
      await until(() => reaches(lab, "a", b.address));
    }
  });

  test("all processes of a host freeze, thaw and die, and none of another", async (t) => {
    const lab = await useLab(t, "a", "b");
    const { a, b } = { a: lab.host("a"), b: lab.host("b") };
    const forking = ["-c", "while :; do sleep 0.01; done"];
    const ended = [a, a, b].map((host) => once(host.start("/bin/sh", forking), "exit"));
    await until(() => a.processes().length >= 2 && b.processes().length >= 1);
    await a.freezeAll();
    assert.ok(a.processes().every((pid) => processState(pid) === "T"));
    assert.ok(b.processes().some((pid) => processState(pid) !== "T"));
    a.thawAll();
    await until(() => a.processes().some((pid) => processState(pid) !== "T"));
    await a.killAll();
    assert.deepEqual(a.processes(), []);
    await Promise.all(ended.slice(0, 2));
    assert.ok(b.processes().length > 0);
    assert.ok((await a.run("/bin/true", [])).status === 0, "a dead host can be started again");
  });

  test("the truth names who has an address and who listens", async (t) => {
    const lab = await useLab(t, "a", "b");
    const { a, b } = { a: lab.host("a"), b: lab.host("b") };
    const [address, address6] = ["10.77.0.50", "fd77::50"];
    const truth = await watchTruth(lab, { addresses: [address, address6], ports: [8080], everyMs: 5 });
    const service = b.start(process.execPath, [RESPONDER, "8080"], { output: "pipe" });
    if (service.stdout !== null) await once(service.stdout, "data");
    await a.plant(`${address}/24`);
    await b.plant(`${address}/24`);
    await b.plant(`${address6}/64`);
    const planted = labNow();
    await truth.looked();
    await a.unplant(`${address}/24`);
    const samples = await truth.stop();
    assert.deepEqual(samples[0]?.owners, { [address]: [], [address6]: [] });
    const both = samples.find((sample) => sample.at > planted);
    assert.deepEqual(both?.owners, { [address]: ["a", "b"], [address6]: ["b"] });
    assert.deepEqual(samples.at(-1)?.owners, { [address]: ["b"], [address6]: ["b"] });
    assert.deepEqual(samples.at(-1)?.listeners, { "8080": [{ host: "b", pid: service.pid }] });
  });

  test("the probe says who answered each question, and which had no answer", async (t) => {
    const lab = await useLab(t, "a", "client");
    const { a, client } = { a: lab.host("a"), client: lab.host("client") };
    const service = a.start(process.execPath, [RESPONDER, "8080"], { output: "pipe" });
    if (service.stdout !== null) await once(service.stdout, "data");
    const probe = await startProbe(client, { address: a.address, port: 8080, everyMs: 10 });
    await probe.saw("answer");
    await a.silence("both");
    await probe.saw("silence");
    const records = await probe.stop();
    assert.ok(records.some((record) => record.by === "a"));
    assert.ok(records.some((record) => record.by === null));
    assert.ok(records.every((record) => record.by === "a" || record.by === null));
  });

  test("a store of three members on the hosts outlives the loss of one", async (t) => {
    const etcd = findEtcd();
    if (etcd === null) return t.skip("etcd is not on this machine");
    const lab = await useLab(t, "a", "b", "c");
    const [first, second] = await startLabEtcd(lab, etcd, ["a", "b", "c"]);
    assert.ok(first && second);
    await first.host.killAll();
    const put = (endpoint: string) =>
      second.host.run(process.execPath, [
        "-e",
        `fetch(process.argv[1] + "/v3/kv/put", { method: "POST", body: '{"key":"YQ==","value":"YQ=="}' })
          .then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(2))`,
        endpoint,
      ]);
    await until(async () => (await put(second.endpoint)).status === 0);
    assert.equal((await put(first.endpoint)).status, 2);
    first.start();
    await until(async () => (await put(first.endpoint)).status === 0);
  });

  test("whoever kills the test leaves nothing behind", async (t) => {
    const open = `const { openLab } = await import(${JSON.stringify(new URL("../support/lab.ts", import.meta.url).href)});
      const lab = await openLab(["a"]);
      lab.host("a").start("/bin/sh", ["-c", "trap '' TERM HUP INT; while :; do sleep 1; done"]);
      console.log(lab.host("a").namespace + " " + lab.directory);
      setInterval(() => {}, 1000);`;
    for (const signal of ["SIGKILL", "SIGINT"] as const) {
      const child = spawn(process.execPath, ["--input-type=module", "-e", open], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      t.after(() => child.kill("SIGKILL"));
      const [line] = (await once(child.stdout, "data")) as [Buffer];
      const [namespace = "", directory = ""] = line.toString().trim().split(" ");
      assert.ok(existsSync(`/run/netns/${namespace}`));
      child.kill(signal);
      await until(() => !existsSync(`/run/netns/${namespace}`) && !existsSync(directory));
    }
  });

  test("a new lab removes what a dead test left, and nothing of one that lives", async (t) => {
    const lab = await useLab(t, "a");
    const dead = `lockstep-lab-${process.pid}-1-0-x`;
    const made = spawn("ip", ["netns", "add", dead]);
    await once(made, "exit");
    const next = await useLab(t, "b");
    assert.ok(!existsSync(`/run/netns/${dead}`));
    assert.ok(existsSync(`/run/netns/${lab.host("a").namespace}`));
    assert.ok(existsSync(`/run/netns/${next.host("b").namespace}`));
  });
});

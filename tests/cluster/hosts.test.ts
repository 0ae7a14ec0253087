import assert from "node:assert/strict";
import { suite, type TestContext, test } from "node:test";
import { whyNoLab } from "../support/lab.ts";
import { findTwoOwners, watchTruth } from "../support/lab-truth.ts";
import { ADDRESS, CLIENT, ClusterHosts, PORT } from "./hosts-lab.ts";

const skip = whyNoLab("etcd", "arping", "curl") ?? false;

/** A cluster whose address nobody ever had twice, whatever the test did to it. */
async function open(t: TestContext): Promise<ClusterHosts> {
  const hosts = await ClusterHosts.open({ priority: 10 });
  t.after(() => hosts.close());
  return hosts;
}

suite("a cluster on hosts", { skip }, () => {
  test("comes online, moves, is drained, loses its daemon, its node, its cable and a part of its network", async (t) => {
    const hosts = await open(t);
    const first = await hosts.addServer();
    const truth = await watchTruth(hosts.lab, { addresses: [ADDRESS], ports: [PORT] });
    t.after(() => truth.stop().catch(() => {}));
    const others = (node: string) => hosts.nodes.map(({ name }) => name).filter((name) => name !== node);
    const [second = ""] = others(first);

    // Real-time guards, as configured; what they launch has an ordinary class of its own.
    const [guard] = hosts.pids(first, "guard");
    const [service] = hosts.pids(first, "service");
    assert.match(await hosts.client.must("chrt", "-p", String(guard)), /SCHED_RR.*\n.*priority: 10/);
    assert.match(await hosts.client.must("chrt", "-p", String(service)), /SCHED_OTHER/);

    await hosts.must(first, "move", "APP", "--to", second);
    await hosts.untilServing((node) => node === second);

    await hosts.must(second, "drain", second);
    const third = await hosts.untilServing((node) => node !== second);
    await hosts.must(second, "resume", second);

    hosts.kill(third, "daemon", "SIGKILL");
    const fourth = await hosts.untilServing((node) => node !== third);
    await hosts.startDaemon(third);
    await hosts.untilTakesPart(third);

    await hosts.powerOff(fourth);
    const fifth = await hosts.untilServing();
    assert.notEqual(fifth, fourth);
    await hosts.powerOn(fourth);
    await hosts.witness.ask("forgive");
    await hosts.untilTakesPart(fourth);

    const cut = hosts.lab.host(fifth);
    await cut.unplug();
    const sixth = await hosts.untilServing((node) => node !== fifth);
    await cut.plug();
    await hosts.witness.ask("forgive");
    await hosts.untilTakesPart(fifth);

    await hosts.lab.host(sixth).silence("both");
    const last = await hosts.untilServing((node) => node !== sixth);
    await hosts.lab.host(sixth).hear();
    await hosts.untilTakesPart(sixth);
    const mac = await hosts.lab.host(last).mac();
    await hosts.until("it is where it was, and nowhere else", async () => {
      const found = [hosts.owners().join(), hosts.serving().join()].every((nodes) => nodes === last);
      return found && (await hosts.lab.host(CLIENT).neighbour(ADDRESS)) === mac ? true : null;
    });

    // A node without power keeps nothing, though its kernel here does for a moment.
    const samples = (await truth.stop()).filter(({ owners }) => !(owners[ADDRESS] ?? []).includes(fourth));
    assert.ok(samples.length > 0);
    assert.deepEqual(findTwoOwners(samples, ADDRESS), []);
    const tokens = (await hosts.witness.ask("history")).flatMap(({ what, token }) =>
      what === "took" ? [token] : [],
    );
    assert.deepEqual(tokens, [...new Set(tokens)]);
  });
});

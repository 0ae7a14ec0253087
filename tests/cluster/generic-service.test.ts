import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { suite, type TestContext, test } from "node:test";
import type { HostedServer } from "@lockstep/cluster";
import { checkResourceSettings } from "@lockstep/cluster";
import { BRIEF_LEASE, HostWorld, LEAVE, TAKE, until } from "./host-world.ts";
import { defineResource, defineServer } from "./server-definition.ts";
import { simulatedStore } from "./simulated-coordination.ts";

const skip = process.platform !== "linux" && "reads /proc";
const phaseOf = (host: HostedServer) => host.report().resources.service?.phase;
const FAST = { looksAliveMs: 50, isAliveMs: 50, restartDelayMs: 10, restartThreshold: 0 };

function shell(
  world: HostWorld,
  script: string,
  settings = {},
  policy: Parameters<typeof defineResource>[3] = {},
) {
  return defineServer([
    defineResource(
      "service",
      "generic-service",
      {
        program: "/bin/sh",
        arguments: ["-c", script],
        environment: [`LOCKSTEP_TEST_MARK=${world.mark}`],
        // A probe that hangs is none of these tests; one that has to wait for the machine is none that failed.
        probeMs: 60_000,
        ...settings,
      },
      { ...FAST, ...policy },
    ),
  ]);
}

suite("generic-service, a program", { skip }, () => {
  test("is asked to end, and killed with all that it started when it does not", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    const [told, ready, deaf] = ["told", "ready", "deaf"].map((name) => join(world.directory, name)) as [
      string,
      string,
      string,
    ];
    const script = `trap 'echo asked > ${told}; exit 0' INT; : > ${ready}; while :; do sleep 0.05; done`;
    const polite = world.open(shell(world, script, { stopSignal: "SIGINT" }));
    polite.wish(TAKE);
    await until(() => phaseOf(polite) === "online" && existsSync(ready));
    polite.wish(LEAVE);
    await until(() => world.noted("gave-back").length === 1);
    assert.equal(readFileSync(told, "utf8"), "asked\n");
    assert.deepEqual([world.noted("killed"), world.running()], [[], []]);
    await polite.close();

    const stubborn = world.open(
      shell(world, `trap '' TERM; setsid sleep 1000 & : > ${deaf}; while :; do sleep 1; done`, {
        stopMs: 200,
      }),
    );
    stubborn.wish(TAKE);
    await until(() => phaseOf(stubborn) === "online" && existsSync(deaf));
    stubborn.wish(LEAVE);
    await until(() => world.noted("gave-back").length === 2);
    assert.deepEqual([world.noted("killed").length, world.running()], [1, []]);
  });

  test("is online when its probe succeeds, and has failed when it no longer does", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    const well = join(world.directory, "well");
    const probe = { probeCommand: ["/bin/sh", "-c", `[ -e ${well} ] || { echo not yet >&2; exit 7; }`] };
    const host = world.open(shell(world, "exec sleep 1000", probe));
    host.wish(TAKE);
    await until(() => world.running().length === 1);
    assert.equal(phaseOf(host), "online-pending");
    writeFileSync(well, "");
    await until(() => phaseOf(host) === "online");
    rmSync(well);
    await until(() => world.failovers.length === 1);
    assert.deepEqual(world.failovers, [["service", "the probe ended with status 7: not yet"]]);
    await until(() => world.running().length === 0);
  });

  test("is left alone while it says that it updates itself, for as long as it may, and is seen to go on (behaviour 75)", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    const [said, up] = [join(world.directory, "said"), join(world.directory, "up")];
    const probe = ["/bin/sh", "-c", `[ ! -e ${said} ] || { echo stopped >&2; exit 7; }`];
    const script = (word: string) =>
      `echo ${word} > $LOCKSTEP_SERVICE_WORD.new; mv $LOCKSTEP_SERVICE_WORD.new $LOCKSTEP_SERVICE_WORD`;
    // Says it before it no longer answers, and that it is through only when it answers again.
    const service = `on() { ${script("updating")}; touch ${said}; }; off() { rm ${said}; ${script("ready")}; }; trap on USR1; trap off USR2; echo $$ > ${up}.new; mv ${up}.new ${up}; while :; do sleep 0.02; done`;
    const host = world.open(shell(world, service, { probeCommand: probe }));
    host.wish(TAKE);
    await until(() => phaseOf(host) === "online" && existsSync(up));
    // Only the service itself: its probes and children would die of it.
    const tell = (signal: NodeJS.Signals) => process.kill(Number(readFileSync(up, "utf8")), signal);
    tell("SIGUSR1");
    await until(() => world.noted("updating").length === 1);
    // Its probe fails all the time.
    await until(() => existsSync(said));
    await new Promise((wake) => setTimeout(wake, 300));
    assert.deepEqual([phaseOf(host), world.failovers], ["online", []]);
    tell("SIGUSR2");
    await until(() => world.noted("updated").length === 1);
    assert.deepEqual([phaseOf(host), world.failovers], ["online", []]);
    await host.close();

    rmSync(up);
    const endless = world.open(shell(world, service, { probeCommand: probe, updateMs: 100 }));
    endless.wish(TAKE);
    await until(() => phaseOf(endless) === "online" && existsSync(up));
    tell("SIGUSR1");
    await until(() => world.failovers.length === 1);
    assert.match(world.failovers[0]?.[1] ?? "", /^it has said for \d+ s that it updates itself$/);
  });

  test("is asked over TCP, and one that is never ready fails with the reason", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    // Nobody is given that port by chance.
    const host = world.open(shell(world, "exec sleep 1000", { probeTcp: "127.0.0.1:1", startMs: 300 }));
    host.wish(TAKE);
    await until(() => world.failovers.length === 1);
    assert.match(String(world.failovers[0]?.[1]), /not ready after \d+ ms: 127\.0\.0\.1:\d+ does not answer/);
    await until(() => world.running().length === 0);
  });

  test("one that ends before it is ready fails with how it ended", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    const host = world.open(shell(world, "exit 9", { readyMs: 10_000 }));
    host.wish(TAKE);
    await until(() => world.failovers.length === 1);
    assert.match(String(world.failovers[0]?.[1]), /ended .*with status 9/);
  });

  test("whatever a former life left running is ended before this one begins (S7)", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    const definition = shell(world, "exec sleep 1000");
    const host = world.open(definition);
    host.wish(TAKE);
    await until(() => phaseOf(host) === "online");
    // The former life is in this process too: it is not to begin again when its guard is gone.
    host.wish({ kind: "keep" });
    // The next life finds the guard and the service of one that did not end in order; its directory names them.
    const next = world.open(definition);
    await until(() => next.report().role === "observing");
    assert.deepEqual(world.running(), []);
    await until(() => host.token() === null);
  });

  test("settings are refused with every fault at once", () => {
    const faults = checkResourceSettings(
      defineResource("service", "generic-service", {
        program: "server",
        unit: "app",
        stopSignal: "SIGKILL",
        probeTcp: "nowhere",
        environment: ["NAME"],
        speed: 3,
      }),
    );
    for (const name of ["program", "unit", "stopSignal", "probeTcp", "environment", "speed"])
      assert.ok(
        faults.some((fault) => fault.startsWith(name)),
        `${name}: ${faults.join("; ")}`,
      );
  });
});

/**
 * No systemd runs where these tests do, so a script stands in for systemctl: it keeps the unit's state in files, and
 * starts and kills a real process for it.
 */
function standInForSystemctl(t: TestContext, world: HostWorld): (name: string) => string {
  const directory = join(world.directory, "systemd");
  mkdirSync(directory);
  const script = `#!/bin/sh
cd ${directory} || exit
echo "$*" >> calls
alive() { [ -e pid ] && kill -0 "$(cat pid)" 2>/dev/null; }
case "$1" in
  start) alive || { LOCKSTEP_TEST_MARK=${world.mark} setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > pid; } ;;
  stop) alive && kill "$(cat pid)"; rm -f pid; exit 0 ;;
  kill) alive && kill -9 "$(cat pid)"; exit 0 ;;
  is-active) if alive; then echo active; else echo inactive; exit 3; fi ;;
  disable) : > manual ;;
esac
`;
  writeFileSync(join(directory, "systemctl"), script);
  chmodSync(join(directory, "systemctl"), 0o755);
  const path = process.env.PATH ?? "";
  process.env.PATH = `${directory}${delimiter}${path}`;
  t.after(() => {
    process.env.PATH = path;
  });
  return (name) => (existsSync(join(directory, name)) ? readFileSync(join(directory, name), "utf8") : "");
}

suite("generic-service, a unit of systemd", { skip }, () => {
  const unit = defineServer([defineResource("service", "generic-service", { unit: "app.service" }, FAST)]);

  test("is made manual and stopped where nobody owns, started and stopped with the virtual server", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    const file = standInForSystemctl(t, world);
    const host = world.open(unit);
    await until(() => host.report().role === "observing");
    assert.match(file("calls"), /^disable app\.service$/m);
    assert.match(file("calls"), /^stop --no-block app\.service$/m);
    host.wish(TAKE);
    await until(() => phaseOf(host) === "online" && world.running().length === 1);
    host.wish(LEAVE);
    await until(() => world.noted("gave-back").length === 1);
    await until(() => world.running().length === 0);
    assert.match(file("calls"), /^stop app\.service$/m);
  });

  test("its end is found by the next check", async (t) => {
    const world = new HostWorld(t, simulatedStore()());
    standInForSystemctl(t, world);
    const host = world.open(unit);
    host.wish(TAKE);
    await until(() => phaseOf(host) === "online" && world.running().length === 1);
    world.kill();
    await until(() => world.failovers.length === 1);
    assert.deepEqual(world.failovers, [["service", "systemd says that it is inactive"]]);
    host.wish(LEAVE);
    await until(() => world.noted("gave-back").length === 1);
    host.wish(TAKE);
    await until(() => phaseOf(host) === "online" && world.running().length === 1);
  });

  test("the guard stops it when the daemon cannot", async (t) => {
    const world = new HostWorld(t, simulatedStore()(), BRIEF_LEASE);
    const file = standInForSystemctl(t, world);
    const host = world.open(unit);
    host.wish(TAKE);
    await until(() => phaseOf(host) === "online" && world.running().length === 1);
    const calls = file("calls").length;
    world.loseStore();
    await until(() => world.running().length === 0);
    // Its stop, which comes first, may be all that it needs; the kill follows.
    await until(() => /^kill --signal=SIGKILL app\.service$/m.test(file("calls").slice(calls)));
    world.findStore();
  });
});

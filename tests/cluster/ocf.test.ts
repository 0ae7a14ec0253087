import assert from "node:assert/strict";
import { execFile, execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { promisify } from "node:util";
import type { ResourceDefinition } from "@lockstep/core";
import { askOcf, openOcf } from "../../packages/cluster/src/resources/ocf.ts";
import type { Resource } from "../../packages/cluster/src/resources/resource.ts";
import { until } from "./host-world.ts";
import { bringOnline, isRoot, resourceContext, resourceDirectory } from "./resource-bench.ts";

const run = promisify(execFile);
const busy = () => {};
const AGENTS = "/usr/lib/ocf/resource.d/heartbeat";
const skip =
  (!existsSync(`${AGENTS}/Dummy`) && "there are no OCF agents here (Debian package resource-agents)") ||
  (!isRoot && "the agents want root");

const noModprobe = !existsSync("/sbin/modprobe") && "the agent wants modprobe (Debian package kmod)";

function open(settings: ResourceDefinition["settings"], directory: string) {
  const made = resourceContext("ocf", settings, { directory });
  return { ...made, ocf: openOcf(made.context) };
}

/** Everything that the agent has against its settings. */
async function examineOcf(settings: ResourceDefinition["settings"]): Promise<readonly string[]> {
  const { faults, refusal } = await askOcf(settings);
  return refusal === null ? faults : [...faults, refusal];
}

async function undo(resource: Resource): Promise<void> {
  for (const [program, ...args] of resource.undo) await run(program, args);
}

suite("an OCF agent of the machine", { skip }, () => {
  test("Dummy: start, monitor, stop, undo, and what a former life left", async () => {
    await using at = await resourceDirectory();
    const state = join(at.path, "dummy-state");
    const settings = { agent: "ocf:heartbeat:Dummy", parameters: [`state=${state}`] };
    assert.deepEqual(await examineOcf(settings), []);
    const { ocf } = open(settings, at.path);
    assert.match((await ocf.check(false)) ?? "", /monitor ended with 7 \(it does not run\)/);
    await bringOnline(ocf);
    assert.ok(existsSync(state));
    assert.equal(await ocf.check(false), null);
    assert.equal(await ocf.check(true), null);
    await ocf.offline(busy);
    assert.equal(existsSync(state), false);
    await ocf.offline(busy);
    await bringOnline(ocf);
    await undo(ocf);
    await undo(ocf);
    assert.equal(existsSync(state), false);
    await bringOnline(ocf);
    await open(settings, at.path).ocf.terminate();
    assert.equal(existsSync(state), false);
  });

  test("its description and its own validation refuse what is wrong", async () => {
    const agent = "ocf:heartbeat:Filesystem";
    const missing = await examineOcf({ agent, parameters: ["device=x", "colour=red"] });
    assert.match(missing.join("\n"), /directory is missing[\s\S]*no colour/);
    assert.match((await examineOcf({ agent: "ocf:heartbeat:NoSuchAgent" })).join(), /^agent: .*NoSuchAgent/);
    const dummy = "ocf:heartbeat:Dummy";
    const refused = await examineOcf({ agent: dummy, parameters: ["state=/lockstep-is-not-there/x"] });
    assert.match(refused.join(), /validate-all ended with/);
  });

  test("Delay: slow actions end within their time, or are killed with what they started", async () => {
    await using at = await resourceDirectory();
    const parameters = ["startdelay=6173", "stopdelay=0", "mondelay=0"];
    const settings = { agent: "ocf:heartbeat:Delay", parameters };
    const { ocf } = open({ ...settings, startMs: 1_500 }, at.path);
    // It notes what runs in a directory of the machine, where a run that was cut short may have left something.
    await ocf.terminate();
    await assert.rejects(bringOnline(ocf), /start did not come back within 1500 ms and was killed/);
    // Whoever was killed is gone when the kernel is done with it.
    await until(() => !/^sleep 6173$/m.test(execFileSync("ps", ["-eo", "args"], { encoding: "utf8" })));
    await ocf.terminate();
    const quick = { ...settings, parameters: ["startdelay=0", "stopdelay=0", "mondelay=0"] };
    const { ocf: willing } = open(quick, at.path);
    await bringOnline(willing);
    assert.equal(await willing.check(false), null);
    await willing.offline(busy);
  });

  test("anything: what it starts outlives the action, is found dead when it was killed, and is stopped", async () => {
    await using at = await resourceDirectory();
    const pidFile = join(at.path, "pid");
    const parameters = ["binfile=/bin/sleep", "cmdline_options=600", `pidfile=${pidFile}`];
    const { ocf } = open({ agent: "ocf:heartbeat:anything", parameters }, at.path);
    await bringOnline(ocf);
    const pid = Number(readFileSync(pidFile, "utf8"));
    assert.equal(await ocf.check(false), null);
    process.kill(pid, "SIGKILL");
    // Whoever adopted it may take a moment to bury it.
    while (existsSync(`/proc/${pid}`)) await setTimeout(20);
    assert.match((await ocf.check(false)) ?? "", /it does not run|generic error/);
    await ocf.terminate();
    await bringOnline(ocf);
    const second = Number(readFileSync(pidFile, "utf8"));
    await ocf.offline(busy);
    while (existsSync(`/proc/${second}`)) await setTimeout(20);
  });

  test("Filesystem with a deeper look", { skip: noModprobe }, async () => {
    await using at = await resourceDirectory();
    const directory = join(at.path, "mounted");
    mkdirSync(directory);
    const filesystem = {
      agent: "ocf:heartbeat:Filesystem",
      parameters: ["device=lockstep-ocf", `directory=${directory}`, "fstype=tmpfs", "fast_stop=yes"],
      checkLevel: 20,
    };
    const { ocf } = open(filesystem, at.path);
    try {
      await bringOnline(ocf);
      assert.match(readFileSync("/proc/self/mountinfo", "utf8"), /lockstep-ocf/);
      assert.equal(await ocf.check(true), null);
    } finally {
      await ocf.terminate();
      spawnSync("/usr/bin/umount", ["-l", directory], { stdio: "ignore" });
    }
    assert.doesNotMatch(readFileSync("/proc/self/mountinfo", "utf8"), /lockstep-ocf/);
  });

  test("IPaddr2 on the loopback", async () => {
    await using at = await resourceDirectory();
    // One of 2^16 addresses that nobody else is given, on the loopback, where it disturbs nobody.
    const ip = `127.${200 + (process.pid % 50)}.${(process.pid >> 8) % 250}.${1 + (process.pid % 250)}`;
    const address = { agent: "ocf:heartbeat:IPaddr2", parameters: [`ip=${ip}`, "nic=lo", "cidr_netmask=32"] };
    const { ocf: own } = open(address, at.path);
    const has = () =>
      execFileSync("/usr/sbin/ip", ["-o", "addr", "show", "dev", "lo"], { encoding: "utf8" }).includes(
        `${ip}/`,
      );
    try {
      await bringOnline(own);
      assert.ok(has());
      assert.equal(await own.check(false), null);
      await undo(own);
      assert.equal(has(), false);
      assert.match((await own.check(false)) ?? "", /does not run/);
    } finally {
      await own.terminate();
    }
  });
});

/** An agent of the test: each action ends as a file says. */
const SCRIPT = `#!/bin/sh
if [ "$1" = meta-data ]; then
cat <<END
<resource-agent name="scripted"><parameters><parameter name="answers" required="1"><content type="string"/></parameter></parameters>
<actions><action name="start" timeout="120s"/><action name="monitor" depth="0" timeout="120s"/>
<action name="monitor" depth="10" timeout="120s"/></actions></resource-agent>
END
exit 0
fi
echo "$1 $OCF_CHECK_LEVEL" >> "$OCF_RESKEY_answers/asked"
echo "the agent says $1" >&2
exit "$(cat "$OCF_RESKEY_answers/$1" 2>/dev/null || echo 0)"
`;

suite("the answers of an OCF agent", { skip: process.platform === "win32" && "needs a shell" }, () => {
  async function scripted() {
    const at = await resourceDirectory();
    const provider = join(at.path, "root", "resource.d", "test");
    mkdirSync(provider, { recursive: true });
    writeFileSync(join(provider, "scripted"), SCRIPT, { mode: 0o755 });
    const answers = join(at.path, "answers");
    mkdirSync(answers);
    const settings = {
      agent: "ocf:test:scripted",
      root: join(at.path, "root"),
      parameters: [`answers=${answers}`],
    };
    return {
      ...open(settings, at.path),
      provider,
      answer: (action: string, code: number) => writeFileSync(join(answers, action), String(code)),
      asked: () => readFileSync(join(answers, "asked"), "utf8").trim().split("\n"),
      files: () => readdirSync(answers),
      [Symbol.asyncDispose]: () => at[Symbol.asyncDispose](),
    };
  }

  test("mean what the standard says, and what the agent said is in the problem", async () => {
    await using agent = await scripted();
    for (const code of [0, 8, 190, 191]) {
      agent.answer("monitor", code);
      assert.equal(await agent.ocf.check(false), null, String(code));
    }
    assert.equal(agent.notes.filter((note) => note.startsWith("degraded")).length, 1, "said once");
    for (const code of [1, 2, 3, 4, 5, 6, 7, 9, 42]) {
      agent.answer("monitor", code);
      assert.match(
        (await agent.ocf.check(false)) ?? "",
        new RegExp(`with ${code} \\(.+\\): the agent says monitor`),
      );
    }
  });

  test("a start that lies, a stop that lies, a stop that fails, one that never ran", async () => {
    await using agent = await scripted();
    agent.answer("monitor", 7);
    await assert.rejects(bringOnline(agent.ocf), /start succeeded, but monitor ended with 7/);
    agent.answer("start", 5);
    await assert.rejects(
      bringOnline(agent.ocf),
      /start ended with 5 \(what it needs is not installed here\)/,
    );
    agent.answer("monitor", 0);
    await assert.rejects(agent.ocf.offline(busy), /stop succeeded, but monitor ended with 0/);
    agent.answer("stop", 1);
    await assert.rejects(agent.ocf.offline(busy), /stop ended with 1/);
    // Nothing may begin elsewhere while it runs.
    let isGone = false;
    const ending = agent.ocf.terminate().then(() => {
      isGone = true;
    });
    await until(() => /not stopped: stop ended with 1/.test(agent.notes.join()));
    assert.equal(isGone, false);
    agent.answer("monitor", 7);
    await until(() => isGone);
    await ending;
    agent.answer("stop", 7);
    await agent.ocf.offline(busy);
  });

  test("the thorough check looks as deep as the agent says it can", async () => {
    await using agent = await scripted();
    agent.answer("monitor", 0);
    await agent.ocf.check(false);
    await agent.ocf.check(true);
    assert.deepEqual(agent.asked(), ["monitor 0", "monitor 10"]);
  });

  test("a start that is called off ends with all that it started", async () => {
    await using agent = await scripted();
    writeFileSync(
      join(agent.provider, "scripted"),
      SCRIPT.replace('exit "', '[ $1 = start ] && sleep 600; exit "'),
    );
    const calledOff = new AbortController();
    const starting = agent.ocf.online(() => calledOff.abort(), calledOff.signal);
    await assert.rejects(starting, /start ended with a signal/);
  });

  test("nothing is started without the lease", async () => {
    await using agent = await scripted();
    agent.state.token = null;
    await assert.rejects(bringOnline(agent.ocf), /lease/);
    assert.deepEqual(agent.files(), []);
  });
});

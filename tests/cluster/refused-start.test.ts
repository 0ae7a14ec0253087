import assert from "node:assert/strict";
import { type ChildProcess, spawnSync } from "node:child_process";
import { EventEmitter } from "node:events";
import { mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { refusalText, startOrRefusal } from "../../packages/cluster/src/refused-start.ts";
import { runBounded } from "../../packages/cluster/src/resources/bounded-command.ts";
import { Announcer } from "../../packages/cluster/src/resources/ip-address-announcer.ts";
import { LinkCommands } from "../../packages/cluster/src/resources/ip-address-link.ts";
import { readIpAddressSettings } from "../../packages/cluster/src/resources/ip-address-settings.ts";

/**
 * What starts programs for a virtual server survives a system that refuses to: the refusal is one resource's problem. One
 * word of more than 32 pages of memory is refused by Linux within the call itself; a process without a file descriptor left
 * gets a child without pipes.
 */
const TOO_LONG = "x".repeat(4 * 1024 * 1024);

function makeDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-refused-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Whether any process was started with this word. */
function runs(word: string): boolean {
  return readdirSync("/proc").some((name) => {
    try {
      return /^\d+$/.test(name) && readFileSync(`/proc/${name}/cmdline`, "utf8").split("\0").includes(word);
    } catch {
      return false;
    }
  });
}

test("an `ip` that cannot be started is a problem of the exchange, and none of whoever prepares", async (t) => {
  const directory = makeDirectory(t);
  const refused = new LinkCommands(TOO_LONG, 4, join(directory, "ip.pid"));
  refused.warm();
  await assert.rejects(refused.exchange([], "addr show"), /cannot be started: E2BIG: argument list too long/);
  refused.close();
  // Its id is to stand where no directory can be: nobody could end it, so it is not used.
  writeFileSync(join(directory, "file"), "");
  const program = join(directory, "ip");
  writeFileSync(program, "#!/bin/sh\nread line\n", { mode: 0o755 });
  const unnamed = new LinkCommands(program, 4, join(directory, "file", "ip.pid"));
  unnamed.warm();
  await assert.rejects(unnamed.exchange([], "addr show"), /cannot be started: (EEXIST|ENOTDIR): [^()]*$/);
  // It is killed, and gone when the kernel is done with it.
  while (runs(program)) await new Promise((resolve) => setTimeout(resolve, 25));
});

test("an address that nobody can ask for is not one that somebody else has", async () => {
  const { settings } = readIpAddressSettings({ address: "fd00::1/64", probeMs: 100 });
  const announcer = new Announcer("/bin/true", settings);
  assert.equal(await announcer.findForeignOwner(TOO_LONG), null);
  const refused = new Announcer(TOO_LONG, settings);
  refused.warm();
  assert.match((await refused.announce("eth0")) ?? "", /^E2BIG/);
});

test("without a file descriptor left, starting a program fails and nothing else does", () => {
  const source = (path: string) =>
    JSON.stringify(fileURLToPath(new URL(`../../packages/cluster/src/${path}`, import.meta.url)));
  const script = `
    import { openSync } from "node:fs";
    import { runBounded } from ${source("resources/bounded-command.ts")};
    import { LinkCommands } from ${source("resources/ip-address-link.ts")};
    import { cutTraffic } from ${source("drill/traffic-cut.ts")};
    try { for (;;) openSync("/dev/null", "r"); } catch {}
    const { status, errorOutput } = await runBounded("/bin/true", [], { limitMs: 60_000 });
    const links = new LinkCommands("/bin/cat", 4, "/nonexistent/ip.pid");
    links.warm();
    const problem = await links.exchange([], "addr show").catch((error) => error.message);
    const uncut = await cutTraffic("", 1);
    process._rawDebug(JSON.stringify({ status, errorOutput, problem, uncut }));
  `;
  const { status, stderr } = spawnSync(
    "/bin/sh",
    ["-c", 'ulimit -n 64; exec "$0" --input-type=module --eval "$1"', process.execPath, script],
    { encoding: "utf8", env: { PATH: process.env.PATH ?? "" } },
  );
  assert.equal(status, 0, stderr);
  const said = JSON.parse(stderr.trim().split("\n").at(-1) ?? "") as Record<string, unknown>;
  assert.equal(said.status, null);
  assert.match(String(said.errorOutput), /^EMFILE: too many open files/);
  assert.match(String(said.problem), /EMFILE: too many open files/);
  assert.match(
    String(said.uncut),
    /^nft cannot be started: EMFILE: |^the program nft is not on this machine$/,
  );
});

test("a machine that has no file descriptor left is told from a process that has none", () => {
  // As Node gives it then: without pipes, and the refusal comes later.
  const child = () => Object.assign(new EventEmitter(), { stdio: undefined }) as unknown as ChildProcess;
  for (const [code, text] of [
    ["ENFILE", /^ENFILE: file table overflow \(spawn ENFILE\)$/],
    ["EMFILE", /^EMFILE: too many open files \(spawn EMFILE\)$/],
  ] as const) {
    const opened: number[] = [];
    const refused = startOrRefusal(child, () => {
      // Some are left, but fewer than a child needs.
      if (opened.length === 3) throw Object.assign(new Error(`${code}: open`), { code });
      const descriptor = openSync("/dev/null", "r");
      opened.push(descriptor);
      return descriptor;
    });
    assert.ok(refused instanceof Error);
    assert.match(refusalText(refused), text);
  }
});

test("what can be started is started", async () => {
  assert.equal((await runBounded("/bin/true", [], { limitMs: 60_000 })).status, 0);
});

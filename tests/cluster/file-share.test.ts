import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite, type TestContext, test } from "node:test";
import type { HostedServer } from "@lockstep/cluster";
import type { ResourceDefinition } from "@lockstep/core";
import { sendSignal } from "../support/send-signal.ts";
import { HostWorld, LEAVE, TAKE, until } from "./host-world.ts";
import { isRoot } from "./resource-bench.ts";
import { defineResource, defineServer } from "./server-definition.ts";
import { simulatedStore } from "./simulated-coordination.ts";

const missing = ["/usr/sbin/smbd", "/usr/bin/smbclient", "/usr/bin/smbpasswd"].filter(
  (file) => !existsSync(file),
);
const skip =
  (missing.length > 0 && `needs ${missing.join(", ")} (Debian packages samba and smbclient)`) ||
  (!isRoot && "only root can run smbd for others");

const phaseOf = (host: HostedServer, name: string) => host.report().resources[name]?.phase;
const problemOf = (host: HostedServer, name: string) => host.report().resources[name]?.problem ?? null;

/** One of 2^16 addresses of the loopback that other tests are not given. */
const ADDRESS = `127.${100 + (process.pid % 100)}.${(process.pid >> 8) % 250}.${1 + (process.pid % 250)}`;

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, ADDRESS, resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}

interface Answer {
  readonly status: number;
  readonly output: string;
}

/** What a client sees: by the virtual server's name, at its address. */
function smb(port: number, commands: string, who: readonly string[] = ["-N"]): Promise<Answer> {
  const args = ["//JOBS/data", "-I", ADDRESS, "-p", String(port), ...who, "-t", "120", "-c", commands];
  return new Promise((resolve) => {
    execFile("/usr/bin/smbclient", args, { timeout: 300_000 }, (error, stdout, stderr) =>
      resolve({ status: error === null ? 0 : 1, output: `${stdout}${stderr}` }),
    );
  });
}

/** The smbd processes whose configuration lies below a directory. */
function servers(directory: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, "utf8");
        return words.includes("smbd") && words.includes(directory);
      } catch {
        return false;
      }
    })
    .map(Number);
}

async function shareWorld(t: TestContext) {
  // Short: smbd makes sockets below it.
  const shared = mkdtempSync(join(tmpdir(), "ls-share-"));
  const world = new HostWorld(t, simulatedStore()());
  const ip = (act: string) =>
    spawnSync("/usr/sbin/ip", ["addr", act, `${ADDRESS}/32`, "dev", "lo"], { stdio: "ignore" });
  ip("add");
  t.after(() => {
    for (const pid of servers(world.directory)) sendSignal(pid, "SIGKILL");
    spawnSync("/usr/bin/umount", ["-l", join(shared, "mounted")], { stdio: "ignore" });
    ip("del");
    rmSync(shared, { recursive: true, force: true, maxRetries: 3 });
  });
  const port = await freePort();
  const files = join(shared, "files");
  mkdirSync(files);
  const share = (settings: ResourceDefinition["settings"] = {}, policy = {}) =>
    defineResource(
      "share",
      "file-share",
      {
        ...{ share: "data", path: files, address: ADDRESS, port, guest: true, forceUser: "root" },
        ...{ startMs: 120_000, ...settings },
      },
      policy,
    );
  const online = async (host: HostedServer) => {
    host.wish(TAKE);
    await until(() => phaseOf(host, "share") === "online" || phaseOf(host, "share") === "failed");
    assert.equal(phaseOf(host, "share"), "online", problemOf(host, "share") ?? "");
  };
  const open = (node: string, resources: readonly ResourceDefinition[]) =>
    world.open(defineServer(resources), {
      lease: {
        // Nobody waits one out here, so a test that stands still loses none.
        ...{ trustMs: 60_000, waitMs: 90_000, renewMs: 500, callMs: 20_000, pollMs: 3_000, lockDelayMs: 0 },
        ...{ automatic: true, failsafe: false, node, instance: `${node}#1`, members: ["a", "b"] },
      },
    });
  return { world, shared, files, port, share, online, open };
}

suite("a share on a virtual server", { skip }, () => {
  test("a client writes by the virtual name, and reads it after the move to the other node", async (t) => {
    const at = await shareWorld(t);
    const mounted = join(at.shared, "mounted");
    const resources = [
      defineResource("disk", "mount", { device: at.files, directory: mounted, type: "bind" }),
      at.share({ path: mounted }, { dependency: [["disk"]] }),
    ];
    const a = at.open("a", resources);
    await at.online(a);
    const local = join(at.shared, "local");
    writeFileSync(local, "written through node a\n");
    const put = await smb(at.port, `put ${local} hello`);
    assert.equal(put.status, 0, put.output);
    assert.equal(readFileSync(join(at.files, "hello"), "utf8"), "written through node a\n");

    const b = at.open("b", resources);
    a.wish(LEAVE);
    await until(() => phaseOf(a, "disk") === "offline" && servers(at.world.directory).length === 0);
    assert.equal(existsSync(join(mounted, "hello")), false, "the volume left with its owner");
    await at.online(b);
    const got = join(at.shared, "got");
    const get = await smb(at.port, `get hello ${got}; del hello`);
    assert.equal(get.status, 0, get.output);
    assert.equal(readFileSync(got, "utf8"), "written through node a\n");
    assert.deepEqual(readdirSync(at.files), []);
    await b.close();
    assert.deepEqual(servers(at.world.directory), []);
  });

  test("users by a database of their own, a share that is read-only, a stranger refused", async (t) => {
    const at = await shareWorld(t);
    writeFileSync(join(at.files, "seen"), "by readers\n");
    const userDatabase = join(at.shared, "users.tdb");
    const options = join(at.shared, "smb.conf");
    writeFileSync(options, `[global]\npassdb backend = tdbsam:${userDatabase}\nprivate dir = ${at.shared}\n`);
    const made = spawnSync("/usr/bin/smbpasswd", ["-c", options, "-a", "-s", "root"], {
      input: "horse\nhorse\n",
    });
    assert.equal(made.status, 0, String(made.stderr));
    const credentialsFile = join(at.shared, "credentials");
    writeFileSync(credentialsFile, "username = root\npassword = horse\n", { mode: 0o600 });
    const settings = { guest: false, validUsers: ["root"], userDatabase, credentialsFile, readOnly: true };
    // The thorough check comes at once, and as that user.
    const host = at.open("a", [at.share(settings, { isAliveMs: 100, looksAliveMs: 100 })]);
    await at.online(host);
    assert.notEqual((await smb(at.port, "ls")).status, 0, "a guest was let in");
    const user = ["-A", credentialsFile];
    assert.match((await smb(at.port, "ls", user)).output, /seen/);
    assert.match((await smb(at.port, `put ${options} x`, user)).output, /NT_STATUS_ACCESS_DENIED/);
    assert.equal(phaseOf(host, "share"), "online", problemOf(host, "share") ?? "");
  });

  test("a server that is killed is started anew, one that stands still is found by the thorough check", async (t) => {
    const at = await shareWorld(t);
    const share = at.share(
      // A busy machine must not look like a server that stands still.
      { checkMs: 15_000 },
      { isAliveMs: 200, looksAliveMs: 100, restartDelayMs: 10, restartThreshold: 5 },
    );
    const host = at.open("a", [share]);
    await at.online(host);
    const [first] = servers(at.world.directory);
    // One ends with another.
    for (const pid of servers(at.world.directory)) sendSignal(pid, "SIGKILL");
    // By its end, or by a check that comes first.
    await until(() => at.world.notes.some(({ what }) => what === "resource-failed"));
    await until(
      () => phaseOf(host, "share") === "online" && !servers(at.world.directory).includes(first ?? 0),
    );
    const frozen = servers(at.world.directory);
    for (const pid of frozen) sendSignal(pid, "SIGSTOP");
    await until(() => at.world.notes.some(({ detail }) => /did not (come back|answer) within/.test(detail)));
    await until(
      () =>
        phaseOf(host, "share") === "online" &&
        servers(at.world.directory).length > 0 &&
        !servers(at.world.directory).some((pid) => frozen.includes(pid)),
    );
    assert.equal((await smb(at.port, "ls")).status, 0);
  });

  test("says why it cannot come online: no directory, somebody else at the address", async (t) => {
    const at = await shareWorld(t);
    const policy = { restartAction: "none" } as const;
    const host = at.open("a", [at.share({ path: join(at.shared, "nowhere") }, policy)]);
    host.wish(TAKE);
    await until(() => phaseOf(host, "share") === "failed");
    assert.match(problemOf(host, "share") ?? "", /looking for the directory .*nowhere.* No such file/);
    const absent = [at.share({ address: ADDRESS.replace(/^127/, "10") }, policy)];
    host.define(defineServer(absent));
    await until(() => /is not an address of this node/.test(problemOf(host, "share") ?? ""));
    const stranger = createServer();
    await new Promise<void>((resolve) => stranger.listen(at.port, ADDRESS, resolve));
    t.after(() => stranger.close());
    host.define(defineServer([at.share({}, policy)]));
    await until(() => /something else answers/.test(problemOf(host, "share") ?? ""));
    assert.deepEqual(servers(at.world.directory), []);
  });
});

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { chmod, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, suite, type TestContext, test } from "node:test";
import { promisify } from "node:util";
import { DEFAULT_RESOURCE_POLICY, type ResourceDefinition } from "@lockstep/core";
import { openNetworkName } from "../../packages/cluster/src/resources/network-name.ts";
import type { UndoCommand } from "../../packages/cluster/src/resources/resource.ts";
import { findProgram } from "../support/lab.ts";
import { type NameServerProcess, startNameServer } from "./name-server.ts";

type Settings = ResourceDefinition["settings"];

async function useDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-test-name-"));
  t.after(() => rm(directory, { recursive: true, force: true, maxRetries: 10 }));
  return directory;
}

/** One resource on one node, with what it notes; `token` is the lease's. */
function openName(directory: string, settings: Settings, token: number | null = 1, virtualServer = "VS") {
  const notes: string[] = [];
  const lease = { token };
  const resource = openNetworkName({
    virtualServer,
    node: "n",
    definition: { name: "name", type: "network-name", settings, policy: DEFAULT_RESOURCE_POLICY },
    token: () => lease.token,
    note: (what, detail) => notes.push(`${what}: ${detail}`),
    failed: (problem) => notes.push(`failed: ${problem}`),
    directory,
  });
  const online = () => resource.online(() => {}, new AbortController().signal);
  const offline = () => resource.offline(() => {});
  return { resource, notes, lease, online, offline };
}

/** As the guard does, which repeats what it could not do in a second: a server that stands still is none of this. */
async function runUndo([program, ...args]: UndoCommand): Promise<void> {
  for (;;) {
    try {
      await promisify(execFile)(program, args);
      return;
    } catch (error) {
      if (!/timed out/.test(String(error))) throw error;
    }
  }
}

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 10));
}

const missing = ["named", "nsupdate", "dig", "tsig-keygen"].filter(
  (program) => findProgram(program) === null,
);
const skip = missing.length === 0 ? false : `needs ${missing.join(", ")}, not on this machine`;

suite("network-name at a name server", { skip }, () => {
  let server: NameServerProcess;
  let count = 0;
  before(async () => {
    server = await startNameServer();
  });
  after(() => server?.stop());
  /** Settings of a name of its own. */
  const settings = (more: Settings = {}): Settings & { readonly name: string } => ({
    addresses: ["10.77.0.50"],
    server: `127.0.0.1:${server.port}`,
    keyFile: server.keyFile,
    required: true,
    timeoutMs: 60_000,
    ...more,
    name: typeof more.name === "string" ? more.name : `job${count++}.example.test`,
  });

  test("enters name, mark and reverse names; leaves them; the next owner changes nothing", async (t) => {
    const own = settings({ addresses: ["10.77.0.50", "FD77::50"], reverse: true, ttlSeconds: 7 });
    const first = openName(await useDirectory(t), own);
    await first.online();
    assert.deepEqual(await server.dig(own.name, "A"), ["10.77.0.50"]);
    assert.deepEqual(await server.dig(own.name, "AAAA"), ["fd77::50"]);
    assert.deepEqual(await server.dig("50.0.77.10.in-addr.arpa", "PTR"), [`${own.name}.`]);
    assert.equal((await server.dig(`0.5${".0".repeat(26)}.7.7.d.f.ip6.arpa`, "PTR")).length, 1);
    const { stdout } = await promisify(execFile)("dig", [
      ...["@127.0.0.1", "-p", String(server.port), "+noall", "+answer", own.name, "A"],
    ]);
    assert.match(stdout, /\s7\s+IN\s+A\s/);
    assert.equal(await first.resource.check(true), null);
    await first.offline();
    await first.resource.terminate();
    const second = openName(await useDirectory(t), own, 2);
    await second.resource.terminate();
    await second.online();
    assert.deepEqual(await server.dig(own.name, "A"), ["10.77.0.50"]);
    assert.deepEqual(await server.dig(own.name, "TXT"), ['"lockstep virtual-server=VS token=1"']);
    assert.deepEqual([...first.notes, ...second.notes], []);
  });

  test("a later owner replaces the addresses of a former one, and not the other way round", async (t) => {
    const name = `job${count++}.example.test`;
    const directory = await useDirectory(t);
    const former = openName(directory, settings({ name, addresses: ["10.77.0.50", "10.77.0.51"] }), 3);
    await former.online();
    assert.deepEqual(await server.dig(name, "A"), ["10.77.0.50", "10.77.0.51"]);
    const later = openName(directory, settings({ name, addresses: ["10.77.0.60"] }), 4);
    await later.online();
    assert.deepEqual(await server.dig(name, "A"), ["10.77.0.60"]);
    await assert.rejects(former.online(), {
      code: "RESOURCE_FAILED",
      message: /later owner \(token 4, ours is 3\)/,
    });
    assert.match((await former.resource.check(true)) ?? "", /later owner/);
    assert.deepEqual(await server.dig(name, "A"), ["10.77.0.60"]);
  });

  test("a change that was prepared before a later owner's is refused by the server itself", async (t) => {
    const own = settings({ staysWhenOffline: false });
    const former = openName(await useDirectory(t), own, 5);
    await former.online();
    const later = openName(await useDirectory(t), own, 6);
    await later.online();
    const [outdated = [""]] = former.resource.undo;
    await assert.rejects(runUndo(outdated), /NXRRSET/);
    await former.resource.terminate();
    assert.deepEqual(await server.dig(own.name, "A"), ["10.77.0.50"]);
    const [last = [""]] = later.resource.undo;
    // Repeated, it may find that it was done.
    await runUndo(last).catch((error: unknown) => assert.match(String(error), /NXRRSET/));
    assert.deepEqual(await server.dig(own.name, "ANY"), []);
    await later.offline();
    assert.deepEqual([...former.notes, ...later.notes], []);
  });

  test("removes the name when told to, and enters it anew when somebody else removed it", async (t) => {
    const own = settings({ staysWhenOffline: false });
    const node = openName(await useDirectory(t), own);
    await node.online();
    await promisify(execFile)("/bin/sh", [
      "-c",
      `printf 'server 127.0.0.1 ${server.port}\nupdate delete ${own.name}. A\nsend\n' | nsupdate -k ${server.keyFile}`,
    ]);
    assert.equal(await node.resource.check(false), null);
    assert.equal(await node.resource.check(true), null);
    assert.deepEqual(await server.dig(own.name, "A"), ["10.77.0.50"]);
    assert.match(node.notes.join(), /name entered again/);
    await node.offline();
    assert.deepEqual(await server.dig(own.name, "ANY"), []);
    assert.ok((await server.dig("ns.example.test", "A")).length === 1);
  });

  test("a server that stands still is waited for as long as is set", async (t) => {
    const own = settings({ staysWhenOffline: false });
    const node = openName(await useDirectory(t), own);
    await node.online();
    server.signal("SIGSTOP");
    const gone = node.offline();
    await new Promise((resolve) => setTimeout(resolve, 3_500));
    server.signal("SIGCONT");
    await gone;
    assert.deepEqual(await server.dig(own.name, "ANY"), []);
    assert.deepEqual(node.notes, []);
  });

  test("a name that somebody else has entered is theirs, unless told to take it; other texts stay", async (t) => {
    const own = settings();
    await promisify(execFile)("/bin/sh", [
      "-c",
      `printf 'server 127.0.0.1 ${server.port}\nupdate add ${own.name}. 60 A 10.77.0.9\nupdate add ${own.name}. 60 TXT "v=1 \\\\"x\\\\""\nsend\n' | nsupdate -k ${server.keyFile}`,
    ]);
    const directory = await useDirectory(t);
    await assert.rejects(openName(directory, own).online(), {
      code: "RESOURCE_FAILED",
      message: /entered already \(10\.77\.0\.9\), by somebody else/,
    });
    assert.deepEqual(await server.dig(own.name, "A"), ["10.77.0.9"]);
    await openName(directory, { ...own, takeOver: true }).online();
    assert.deepEqual(await server.dig(own.name, "A"), ["10.77.0.50"]);
    await openName(directory, { ...own, addresses: ["10.77.0.51"] }, 2).online();
    assert.deepEqual(await server.dig(own.name, "A"), ["10.77.0.51"]);
    assert.deepEqual(await server.dig(own.name, "TXT"), [
      '"lockstep virtual-server=VS token=2"',
      '"v=1 \\"x\\""',
    ]);
    await assert.rejects(openName(directory, { ...own, addresses: ["10.77.0.52"] }, 9, "OTHER").online(), {
      message: /by the virtual server VS/,
    });
  });

  test("a wrong key, a key that all may read, and a zone that refuses are told as what they are", async (t) => {
    const directory = await useDirectory(t);
    const wrong = join(directory, "wrong.key");
    const { stdout } = await promisify(execFile)("/usr/sbin/tsig-keygen", [
      "-a",
      "hmac-sha256",
      "update-key",
    ]);
    await writeFile(wrong, stdout, { mode: 0o600 });
    const secret = /secret "([^"]+)"/.exec(stdout)?.[1] ?? "no secret";
    for (const [more, expected] of [
      [{ keyFile: wrong }, /BADSIG|TSIG/i],
      [{ keyFile: join(directory, "none.key") }, /key file .+none\.key cannot be read/],
      [{ name: "job.frozen.test" }, /REFUSED/],
      [{ name: "job.unknown.test", zone: "unknown.test" }, /does not answer for it \(EREFUSED\)/],
    ] as const) {
      const own = settings(more);
      const error = await openName(directory, own)
        .online()
        .then(
          () => null,
          (reason: unknown) => reason,
        );
      assert.ok(error instanceof Error && expected.test(error.message), String(error));
      assert.ok(!error.message.includes(secret));
    }
    await chmod(wrong, 0o644);
    await assert.rejects(openName(directory, settings({ keyFile: wrong })).online(), {
      message: /everybody may read or change the key file .+ \(mode 644\)/,
    });
  });

  test("without a token nothing is entered", async (t) => {
    const own = settings();
    await assert.rejects(openName(await useDirectory(t), own, null).online(), { message: /lease has ended/ });
    assert.deepEqual(await server.dig(own.name, "ANY"), []);
  });

  test("a dead server keeps nobody from coming online unless the name is required, and is asked until it is back", async (t) => {
    const own = settings();
    await server.kill();
    await assert.rejects(openName(await useDirectory(t), own).online(), { message: /does not answer/ });
    const node = openName(await useDirectory(t), { ...own, required: false });
    await node.online();
    await until(() => node.notes.some((note) => note.startsWith("name not entered yet")));
    await server.start();
    await until(async () => (await server.dig(own.name, "A").catch(() => [])).length === 1);
    await until(() => node.notes.some((note) => /^name entered: .+ tries$/.test(note)));
    node.resource.close?.();
  });
});

suite("network-name in a file of hosts", () => {
  const before = "127.0.0.1 localhost\n# mine\n10.0.0.9 other";

  test("a block of its own comes, changes and goes; the rest stays byte for byte", async (t) => {
    const directory = await useDirectory(t);
    const file = join(directory, "hosts");
    await writeFile(file, before, { mode: 0o640 });
    const own: Settings = {
      mode: "hosts",
      name: "Job.example.test",
      addresses: ["10.77.0.50"],
      hostsFile: file,
    };
    await openName(directory, own).online();
    const text = await readFile(file, "utf8");
    assert.ok(text.startsWith(`${before}\n#`));
    assert.match(text, /^10\.77\.0\.50 job\.example\.test job$/m);
    assert.equal((await stat(file)).mode & 0o777, 0o640);
    assert.equal(await openName(directory, own).resource.check(true), null);

    const next = openName(directory, {
      ...own,
      addresses: ["10.77.0.51", "fd77::51"],
      staysWhenOffline: false,
    });
    assert.match((await next.resource.check(true)) ?? "", /does not hold job\.example\.test as it should/);
    await next.online();
    const changed = await readFile(file, "utf8");
    assert.doesNotMatch(changed, /10\.77\.0\.50/);
    assert.match(changed, /^fd77::51 job\.example\.test job$/m);
    await writeFile(file, `${changed}10.0.0.10 later\n`);
    await next.offline();
    assert.equal(await readFile(file, "utf8"), `${before}\n10.0.0.10 later\n`);
    assert.deepEqual(await readdir(directory), ["hosts"]);
  });

  test("the guard's command removes the block, also through a link, and is harmless when repeated", async (t) => {
    const directory = await useDirectory(t);
    const [file, link] = [join(directory, "hosts"), join(directory, "link")];
    await writeFile(file, `${before}\n`);
    await symlink(file, link);
    const own: Settings = { mode: "hosts", name: "job", addresses: ["10.77.0.50"], hostsFile: link };
    const node = openName(directory, { ...own, staysWhenOffline: false }, 1, "A.B*[x]/$");
    await node.online();
    assert.match(await readFile(file, "utf8"), /10\.77\.0\.50 job$/m);
    for (const [program, ...args] of [...node.resource.undo, ...node.resource.undo])
      await promisify(execFile)(program, args);
    assert.equal(await readFile(file, "utf8"), `${before}\n`);
    assert.deepEqual(openName(directory, own).resource.undo, []);
  });

  test("a file that is not there is a failure; without a token nothing is written", async (t) => {
    const directory = await useDirectory(t);
    const file = join(directory, "hosts");
    const own: Settings = { mode: "hosts", name: "job", addresses: ["10.77.0.50"], hostsFile: file };
    await assert.rejects(openName(directory, own).online(), { code: "RESOURCE_FAILED", message: /ENOENT/ });
    await writeFile(file, before);
    await assert.rejects(openName(directory, own, null).online(), { message: /lease has ended/ });
    assert.equal(await readFile(file, "utf8"), before);
  });

  test("settings: every fault at once", async (t) => {
    const directory = await useDirectory(t);
    const wrong: Settings = { name: "-x", addresses: ["1.2.3"], server: "ns.example", zone: "y z" };
    assert.throws(() => openName(directory, wrong), {
      code: "RESOURCE_SETTINGS",
      message: /name: .+addresses: .+server: .+zone: /,
    });
  });
});

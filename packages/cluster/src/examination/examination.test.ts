import assert from "node:assert/strict";
import { chmod, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import {
  DEFAULT_LEASE_TIMES,
  DEFAULT_RESOURCE_POLICY,
  DEFAULT_VIRTUAL_SERVER,
  type ResourceType,
} from "@lockstep/core";
import { readClusterKey } from "../node/cluster-key.ts";
import { parseMountTable } from "../resources/mount-table.ts";
import { keyDigest, makeClusterKey } from "./cluster-key.ts";
import { examineKey, examinePermissions, examineTools } from "./machine.ts";
import { examineAddress, examineClocks } from "./peers.ts";
import { examineRemoteFiles } from "./remote-files.ts";
import { examineServer } from "./services.ts";
import { judgeCommits } from "./store.ts";

async function temporaryDirectory() {
  const path = await mkdtemp(join(tmpdir(), "lockstep-examination-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

const server = (type: ResourceType, settings: Record<string, string> = {}) => ({
  ...DEFAULT_VIRTUAL_SERVER,
  name: "ORDERS",
  resources: [{ name: "it", type, settings, policy: DEFAULT_RESOURCE_POLICY }],
});

const states = (findings: readonly { readonly state: string }[]) => findings.map(({ state }) => state);

test("a key is made once, private, and told apart from others without being told", async () => {
  await using directory = await temporaryDirectory();
  const file = join(directory.path, "cluster.key");
  const key = await makeClusterKey(file);
  assert.ok(key !== null);
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  assert.equal(await makeClusterKey(file), null, "one that is there is kept");
  assert.equal(await makeClusterKey("/proc/version"), null, "also where nothing can be made beside it");
  assert.deepEqual(await readClusterKey(file), key);
  assert.deepEqual(states(await examineKey(file, keyDigest(key))), ["ok"]);
  assert.deepEqual(states(await examineKey(file, "0".repeat(64))), ["failed"]);
  await chmod(file, 0o640);
  assert.match((await examineKey(file, keyDigest(key)))[0]?.detail ?? "", /mode 640/);
  await writeFile(file, "not a key\n");
  assert.match((await examineKey(file, null))[0]?.detail ?? "", /holds no key/);
  assert.match((await examineKey(join(directory.path, "none"), null))[0]?.detail ?? "", /cannot be read/);
});

test("of several who make a key at once one does, and the others find it whole", async () => {
  await using directory = await temporaryDirectory();
  for (let round = 0; round < 20; round++) {
    const file = join(directory.path, `cluster${round}.key`);
    const make = async () => ({ made: await makeClusterKey(file), read: await readClusterKey(file) });
    const found = await Promise.all([make(), make(), make(), make()]);
    const [key, ...more] = found.flatMap(({ made }) => made ?? []);
    assert.deepEqual(more, []);
    for (const { read } of found) assert.deepEqual(read, key);
  }
  assert.equal((await readdir(directory.path)).length, 20, "nothing else is left there");
});

test("only the tools of the resources that there are must be there", () => {
  assert.deepEqual(states(examineTools([], "")), ["ok"]);
  const findings = examineTools([server("ocf")], "/nowhere");
  // sh lives in /bin, which is not searched beyond the PATH unless it is /sbin.
  assert.ok(findings.every(({ id }) => id === "tools"));
  const unit = examineTools([server("generic-service", { unit: "x.service" })], "/nowhere");
  assert.deepEqual(states(unit), ["failed"]);
  assert.match(unit[0]?.detail ?? "", /systemctl/);
});

test("lacking capabilities are named, and only those that are needed", () => {
  const all = (1n << 41n) - 1n;
  assert.deepEqual(states(examinePermissions([server("ip-address")], all)), ["ok"]);
  const none = examinePermissions([server("ip-address"), server("mount")], 0n);
  assert.match(none[0]?.detail ?? "", /CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN/);
  assert.deepEqual(states(none), ["failed", "warning"]);
  assert.deepEqual(states(examinePermissions([], 0n)), ["ok", "warning"]);
});

test("a store is judged against the time after which a call counts as unanswered", () => {
  const judge = (maxMs: number) => states(judgeCommits({ medianMs: 1, maxMs }, DEFAULT_LEASE_TIMES));
  assert.deepEqual([judge(20), judge(300), judge(600)], [["ok"], ["warning"], ["failed"]]);
});

test("clocks are compared by what the way there does not explain", () => {
  const compare = (wallOffsetMs: number, rateError: number, rateUncertainty: number) =>
    examineClocks(
      [
        {
          ...{ node: "beta", address: "b:1", problem: null },
          found: {
            ...{ node: "beta", instance: "i", version: "1", monotonicMs: 0, wallMs: 0 },
            ...{ roundTripMs: 1, wallOffsetMs, rateError, rateUncertainty },
          },
        },
      ],
      0.001,
    );
  assert.deepEqual(states(compare(40, 0.0005, 0.001)), ["ok"]);
  assert.deepEqual(states(compare(2_000, 0, 0.001)), ["warning"]);
  const fast = compare(0, 0.1, 0.02);
  assert.deepEqual(states(fast), ["failed"]);
  assert.match(fast[0]?.detail ?? "", /runs 10 % faster than ours \(±2\.25 %\)/);
  assert.deepEqual(states(compare(0, 0.1, 0.2)), ["ok"], "as much may be the way there");
});

test("an address must be on this machine and nobody else's", () => {
  const own = Object.values(networkInterfaces()).flatMap((list) => list ?? [])[0]?.address ?? "127.0.0.1";
  const subject = {
    ...{ node: "alpha", version: "1", address: own.includes(":") ? `[${own}]:7420` : `${own}:7420` },
    members: [],
  };
  assert.deepEqual(states(examineAddress(subject)), ["ok"]);
  assert.deepEqual(states(examineAddress({ ...subject, address: "192.0.2.1:7420" })), ["failed"]);
  const twin = { node: "beta", address: subject.address, isPaused: false, exits: [], quarantinedUntil: null };
  assert.match(examineAddress({ ...subject, members: [twin] })[0]?.detail ?? "", /beta too/);
});

test("settings and configuration that lie on another machine are warned of, but not on a volume of their own", () => {
  const table = parseMountTable(
    [
      "1 0 8:1 / / rw - ext4 /dev/sda1 rw",
      "2 1 0:40 / /net/home rw - nfs4 files:/home rw",
      "3 1 0:41 / /srv/orders rw - cifs //files/orders rw",
    ].join("\n"),
  );
  const definition = (path: string) => ({
    ...server("mount", { device: "//files/orders", directory: "/srv/orders" }),
    config: { path, hash: null },
  });
  assert.deepEqual(states(examineRemoteFiles(definition("/net/home/app/app.toml"), table)), ["warning"]);
  const withSettings = { ...definition("/opt/app.toml"), checkpoints: ["/net/home/settings", "/etc/app"] };
  assert.match(
    examineRemoteFiles(withSettings, table)
      .map(({ detail }) => detail)
      .join("\n"),
    /^\/net\/home\/settings lies on files:\/home \(nfs4\), another machine$/,
  );
  assert.deepEqual(examineRemoteFiles(definition("/srv/orders/app.toml"), table), []);
  assert.deepEqual(examineRemoteFiles(definition("/opt/app.toml"), table), []);
});

test("a service that is not installed here, and a disk that is not there, are failures of this node", async () => {
  const look = async (type: ResourceType, settings: Record<string, string>) =>
    states(await examineServer(server(type, settings)));
  assert.deepEqual(await look("generic-service", { program: process.execPath }), ["ok"]);
  assert.deepEqual(await look("generic-service", { program: "/nowhere/at/all" }), ["failed"]);
  assert.deepEqual(await look("mount", { device: "/dev/nowhere", directory: "/x" }), ["failed"]);
  assert.deepEqual(await look("mount", { device: "/dev/null", directory: "/x" }), ["failed"]);
});

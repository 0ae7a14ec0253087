import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import {
  DEFAULT_LEASE_TIMES,
  findLifetimeFaults,
  type ResourceSetting,
  type ResourceType,
} from "@lockstep/core";
import { examineServer } from "../../packages/cluster/src/examination/services.ts";
import { freePorts } from "./etcd-cluster.ts";
import { defineResource, defineServer } from "./server-definition.ts";

async function look(type: ResourceType, settings: Record<string, ResourceSetting>, needs: string[][] = []) {
  const others = needs
    .flat()
    .map((name) => defineResource(name, "mount", { device: "/dev/null", directory: "/v" }));
  const resource = defineResource("it", type, settings, { dependency: needs });
  const findings = await examineServer(defineServer([...others, resource]));
  return findings.filter(({ id }) => id.endsWith("[it]")).map(({ state, detail }) => `${state} ${detail}`);
}

async function directory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "lockstep-examination-"));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

/** A port that takes connections until the test ends, and one that takes none. */
async function ports(t: TestContext): Promise<{ readonly open: number; readonly closed: number }> {
  const server = createServer((socket) => socket.destroy());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const [closed = 0] = await freePorts(1);
  return { open: (server.address() as AddressInfo).port, closed };
}

test("whether a volume of another machine can be reached from here", async (t) => {
  const { open, closed } = await ports(t);
  const mount = (device: string, options: string[]) =>
    look("mount", { device, directory: "/srv/x", options });
  assert.deepEqual(await mount("127.0.0.1:/export", [`port=${open}`]), [
    "ok 127.0.0.1 answers for 127.0.0.1:/export",
  ]);
  assert.match((await mount("127.0.0.1:/export", [`port=${closed}`])).join(), /^failed .*ECONNREFUSED/);
  assert.match((await mount("//127.0.0.1/share", [`port=${closed}`])).join(), /^failed .*cannot be reached/);
  assert.match(
    (await mount("//127.0.0.1/share", [`port=${open}`, "credentials=/nowhere/at-all"])).join(),
    /^failed the credentials \/nowhere\/at-all are not there/,
  );
  assert.deepEqual(await mount("//127.0.0.1/share", [`port=${open}`]), [
    "ok 127.0.0.1 answers for //127.0.0.1/share",
  ]);
});

test("directories, images and shares of this machine, unless they lie on a volume that moves", async (t) => {
  const path = await directory(t);
  await mkdir(join(path, "data"));
  await writeFile(join(path, "image"), "");
  const bind = (device: string) => look("mount", { device, directory: "/srv/x", type: "bind" });
  assert.match((await bind(join(path, "data"))).join(), /^ok/);
  assert.match((await bind(join(path, "none"))).join(), /^failed .*none is not there/);
  const image = (options: string[]) =>
    look("mount", { device: join(path, "image"), directory: "/srv/x", options });
  assert.match((await image(["loop"])).join(), /^ok/);
  assert.match((await image([])).join(), /^warning .*loop is missing/);
  const share = (shared: string, needs: string[][] = []) =>
    look("file-share", { share: "logs", path: shared, address: ["10.0.0.1"] }, needs);
  assert.match((await share(join(path, "data"))).join(), /^ok/);
  assert.match((await share(join(path, "none"))).join(), /^failed path/);
  assert.deepEqual(await share("/v/logs", [["volume"]]), []);
});

const agents = existsSync("/usr/lib/ocf/resource.d/heartbeat/Dummy");
test("an agent says itself what it has against its parameters", {
  skip: !agents && "there are no OCF agents here (Debian package resource-agents)",
}, async (t) => {
  const path = await directory(t);
  const dummy = (state: string, needs: string[][] = []) =>
    look("ocf", { agent: "ocf:heartbeat:Dummy", parameters: [`state=${state}`] }, needs);
  assert.deepEqual(await dummy(join(path, "state")), ["ok ocf:heartbeat:Dummy takes its parameters"]);
  assert.match((await dummy(join(path, "none", "state"))).join(), /^failed .*validate-all ended/);
  // On the volume of another resource, which is mounted on one node alone.
  assert.match((await dummy(join(path, "none", "state"), [["volume"]])).join(), /^warning .*validate-all/);
  assert.match((await look("ocf", { agent: "ocf:heartbeat:NoSuchAgent" })).join(), /^failed agent: /);
});

test("an address must not end before the lease that it stands on", () => {
  const faults = (settings: Record<string, ResourceSetting>, trustMs: number) =>
    findLifetimeFaults(
      defineServer([defineResource("address", "ip-address", { address: "10.0.0.1/24", ...settings })]),
      { ...DEFAULT_LEASE_TIMES, trustMs },
    ).map(({ at, problem }) => `${at}: ${problem}`);
  assert.deepEqual(faults({}, 10_000), []);
  assert.deepEqual(faults({ lifetimeSeconds: 0 }, 60_000), []);
  assert.deepEqual(faults({ lifetimeSeconds: 4 }, 4_500), [
    "resources[0].settings.lifetimeSeconds: 4 s is shorter than the lease is trusted (trustMs 4500); at least 5, or 0 for ever",
  ]);
  assert.equal(faults({}, 10_001).length, 1);
});

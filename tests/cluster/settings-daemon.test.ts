import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { suite, test } from "node:test";
import { fileURLToPath } from "node:url";
import { at, CONFIGS, REPORTS } from "@lockstep/cluster";
import { DaemonLab } from "./daemon-lab.ts";
import { findEtcd } from "./etcd-cluster.ts";

const program = findEtcd();

suite("settings and configuration under real daemons", {
  skip: program === null && "etcd is not on this machine (Debian package etcd-server)",
}, () => {
  test("what the service changes on one node is there on the next one when it starts (S4, behaviours 52, 53)", async (t) => {
    const lab = await DaemonLab.open(program ?? "", { nodes: ["alpha", "beta"] });
    t.after(() => lab.close());
    const settings = (node: string) => join(lab.directory(node), "data/servers/jobs/@data/settings");
    await lab.add("jobs");
    const owner = await lab.untilOnline("jobs");
    const other = owner === "alpha" ? "beta" : "alpha";
    mkdirSync(settings(owner), { recursive: true });
    writeFileSync(join(settings(owner), "user.json"), '{"size":3}', { mode: 0o600 });
    await lab.until("stored", async () => {
      const report = await lab.documents.read(at(REPORTS, owner));
      return report?.servers.jobs?.settings?.files === 1 ? true : null;
    });
    mkdirSync(settings(other), { recursive: true });
    writeFileSync(join(settings(other), "stray"), "edited where it does not run");
    await lab.order("jobs", { kind: "move", to: other });
    await lab.untilServing("jobs", [other]);
    assert.equal(readFileSync(join(settings(other), "user.json"), "utf8"), '{"size":3}');
    assert.equal(existsSync(join(settings(other), "stray")), false);
    const told = await lab.untilHistory("settings-overwritten", ({ node }) => node === other);
    assert.match(
      told.detail,
      /stray: changed here, not known to be stored, [0-9a-f]{12}, now nothing; copy in /,
    );
    assert.equal(
      readFileSync(/copy in (.+)$/.exec(told.detail)?.[1] ?? "", "utf8"),
      "edited where it does not run",
    );
    assert.deepEqual(lab.together, []);
  });

  test("a pushed configuration is laid down by the daemon and acknowledged by its hash (S10, S11)", async (t) => {
    const lab = await DaemonLab.open(program ?? "", { nodes: ["alpha"] });
    t.after(() => lab.close());
    const path = join(lab.directory("alpha"), "JobService.toml");
    writeFileSync(path, "old\n");
    const hash = createHash("sha256").update("new\n").digest("hex");
    await lab.documents.change(at(CONFIGS, "jobs"), () => ({ path, hash, text: "new\n" }));
    await lab.add("jobs", { config: { path, hash } });
    await lab.until("acknowledged", async () => {
      const report = await lab.documents.read(at(REPORTS, "alpha"));
      return report?.configHashes.jobs === hash ? true : null;
    });
    assert.equal(readFileSync(path, "utf8"), "new\n");
    assert.equal(readFileSync(`${path}.previous`, "utf8"), "old\n");
    // Whoever was kept away by its old copy serves now.
    await lab.untilServing("jobs", ["alpha"]);
    writeFileSync(path, "edited here\n");
    // A store that does not answer for a moment is told of in the same way.
    await lab.untilHistory("config-not-laid-down", ({ detail }) =>
      /changed here after it was pushed/.test(detail),
    );
    assert.equal(readFileSync(path, "utf8"), "edited here\n");
  });

  test("the commands push a configuration, compare the nodes and show what differs (S9, S10, S11, behaviour 55)", async (t) => {
    const lab = await DaemonLab.open(program ?? "", { nodes: ["alpha"] });
    t.after(() => lab.close());
    const path = join(lab.directory("alpha"), "JobService.toml");
    const file = join(lab.directory("alpha"), "mine.toml");
    const queue = (name: string) =>
      `[JobProvider]\nHub = "http://127.0.0.1:1"\n[[JobServiceDestination]]\nQueue = "${name}"\n[FileLogWriter]\nOutPutFile = "x.log"\n`;
    const run = (...words: string[]) => lockstep([...words, "--config", lab.configFile("alpha")]);
    await lab.add("jobs", { wanted: "offline" });
    writeFileSync(file, queue("alpha"));
    const refused = await run("push", "jobs", file, "--path", path);
    assert.equal(refused.status, 3, refused.stderr);
    assert.match(refused.stderr, /CONFIG_QUEUE_REFUSED[\s\S]*Queue is alpha, the name of a node/);
    writeFileSync(file, queue("jobs"));
    const pushed = await run("push", "jobs", file, "--path", path, "--timeout", "300", "--json");
    assert.equal(pushed.status, 0, pushed.stderr);
    const { nodes } = JSON.parse(pushed.stdout) as { nodes: { state: string }[] };
    assert.deepEqual(
      nodes.map(({ state }) => state),
      ["equal"],
    );
    assert.equal(readFileSync(path, "utf8"), queue("jobs"));
    assert.equal((await run("verify")).status, 0);
    writeFileSync(path, queue("other"));
    await lab.untilHistory("config-not-laid-down");
    await lab.until("reported", async () => {
      const report = await lab.documents.read(at(REPORTS, "alpha"));
      const hash = createHash("sha256").update(queue("other")).digest("hex");
      return report?.configHashes.jobs === hash ? true : null;
    });
    const verified = await run("verify", "jobs", "--json");
    assert.equal(verified.status, 3);
    assert.match(verified.stderr, /CONFIG_DIFFERS/);
    assert.equal((JSON.parse(verified.stdout) as { equal: boolean }).equal, false);
    const { stdout } = await run("diff", "jobs");
    assert.match(stdout, /^-Queue = "jobs"\n\+Queue = "other"$/m);
  });
});

const PROGRAM = fileURLToPath(new URL("../../packages/cli/src/main.ts", import.meta.url));

async function lockstep(words: readonly string[]) {
  const child = spawn(process.execPath, [PROGRAM, "cluster", "config", ...words], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [stdout, stderr, [status]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, "close") as Promise<[number]>,
  ]);
  return { status, stdout, stderr };
}

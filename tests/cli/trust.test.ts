import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { SigningStatus } from "@lockstep/protocol";
import { startTestHub, type TestHub } from "./hub.ts";
import { documentOf, type Ended, type ErrorDocument, lockstep, temporaryDirectory } from "./lockstep.ts";

/**
 * The drills of docs/operating/trust.md, carried out with the command line on a real hub: keys leave it, a revision waits and
 * is signed elsewhere, every key is rotated, a hub is restored from an older backup. Installations follow throughout.
 */
const PASSPHRASE = { LOCKSTEP_KEY_PASSPHRASE: "correct horse" };

interface Side {
  readonly sha256: string;
  readonly targets: readonly string[];
}

/** What `revision sign --json` shows, as far as it is looked at here. */
interface Shown {
  readonly revision: number;
  readonly problems: readonly string[];
  readonly releases: readonly string[];
  readonly summary: readonly unknown[];
  readonly files: readonly {
    readonly path: string;
    readonly module: string;
    readonly from: Side | null;
    readonly to: Side | null;
  }[];
}

interface Place {
  readonly root: string;
  readonly app: string;
  readonly keys: string;
  hub: TestHub;
  run(...args: string[]): Promise<Ended>;
  demand(...args: string[]): Promise<Ended>;
  load(version: string): Promise<Ended>;
}

async function place(root: string): Promise<Place> {
  mkdirSync(join(root, "product"), { recursive: true });
  const made: Place = {
    root,
    app: join(root, "app"),
    keys: join(root, "keys"),
    hub: await startTestHub(root),
    run: async (...args) => await lockstep(args, { env: { ...made.hub.env, ...PASSPHRASE } }),
    demand: async (...args) => {
      const ended = await made.run(...args);
      assert.equal(ended.status, 0, `${args.join(" ")}\n${ended.stdout}${ended.stderr}`);
      return ended;
    },
    load: async (version) => {
      writeFileSync(join(root, "product/program"), `version ${version}\n`);
      const what = ["load", join(root, "product"), "--module", "APP", "--version", version];
      return await made.run(...what, "--assign", "*=Server", "--yes", "--json");
    },
  };
  return made;
}

const installed = ({ app }: Place) => readFileSync(join(app, "program"), "utf8").trim();

/** With owners and modes: the database belongs to a user of its own. */
const copy = (from: string, to: string) => execFileSync("cp", ["-a", from, to]);

async function codeOf(run: Promise<Ended>): Promise<string> {
  return documentOf<ErrorDocument>(await run).error.code;
}

test("keys leave the hub; a revision waits until it is signed where the release key is", async (t) => {
  const here = await place(temporaryDirectory(t));
  t.after(() => here.hub.stop());
  assert.equal((await here.load("1")).status, 0);
  const first = await here.demand("install", here.app, "--role", "Server");
  assert.match(first.stderr, /root of trust was taken from the hub/);
  const begin = await here.demand("hub", "status");
  assert.match(begin.stderr, /whoever owns this hub decides what is installed/);

  await here.demand("keys", "init", "--keys", here.keys);
  assert.equal(readdirSync(here.keys).length, 4);
  assert.deepEqual(
    readdirSync(join(here.root, "hub/keys")).map((name) => name.split("-")[0]),
    ["orders", "snapshot", "timestamp"],
  );
  assert.doesNotMatch((await here.demand("hub", "status")).stderr, /whoever owns this hub/);
  // No secret is readable in a key file, and a wrong passphrase opens none.
  for (const name of readdirSync(here.keys))
    assert.match(readFileSync(join(here.keys, name), "utf8"), /"aes-256-gcm"/);

  const waits = await here.load("2");
  assert.equal(documentOf<ErrorDocument>(waits).error.code, "REVISION_AWAITS_SIGNATURE");
  // Nothing is new the second time, and all the same it is in no installation yet.
  const again = await here.load("2");
  assert.equal(documentOf<ErrorDocument>(again).error.code, "REVISION_AWAITS_SIGNATURE");
  assert.equal(again.status, waits.status);
  await here.demand("update", here.app);
  assert.equal(installed(here), "version 1");
  const unsigned = await lockstep(["revision", "sign", "--keys", here.keys, "--yes", "--json"], {
    env: { ...here.hub.env, LOCKSTEP_KEY_PASSPHRASE: "wrong" },
  });
  assert.equal(documentOf<ErrorDocument>(unsigned).error.code, "KEY_PASSPHRASE_WRONG");
  // Looked at by whoever signs, without signing: what differs from what this very key signed before.
  const look = await here.demand("revision", "sign", "--keys", here.keys, "--show");
  assert.match(look.stdout, /^compared with software revision 1, signed by the release key/m);
  assert.match(look.stdout, /^~\tprogram\t10\t10\t\trole:Server\t[0-9a-f]{16}\t$/m);
  assert.doesNotMatch(look.stdout, /updater/);
  const shown = documentOf<Shown>(
    await here.demand("revision", "sign", "--keys", here.keys, "--show", "--json"),
  );
  assert.deepEqual(
    [shown.revision, shown.problems, shown.releases, shown.summary],
    [2, [], ["APP 2 (version)"], [{ module: "APP", kind: "changed", files: 1, bytes: 10 }]],
  );
  assert.deepEqual(
    shown.files.map(({ path, module, from, to }) => [path, module, from?.sha256.length, to?.targets]),
    [["program", "APP", 64, ["role:Server"]]],
  );
  const signed = documentOf<SigningStatus & { revision: number; shown: Shown }>(
    await here.demand("revision", "sign", "--keys", here.keys, "--yes", "--json"),
  );
  assert.deepEqual([signed.revision, signed.awaiting, signed.shown.files], [2, null, shown.files]);
  await here.demand("update", here.app);
  assert.equal(installed(here), "version 2");
  const log = readFileSync(join(here.app, "update.log"), "utf8");
  assert.match(log, /"signedBy":"[0-9a-f]{12}"/);

  // A plug-in is no file of an installation, and runs on every one of them: whoever signs is shown it.
  const plugin = join(here.root, "product/x.update.mjs");
  writeFileSync(plugin, "export function afterSwitch() {}\n");
  assert.equal(await codeOf(here.load("2.1")), "REVISION_AWAITS_SIGNATURE");
  const { stdout } = await here.demand("revision", "sign", "--keys", here.keys, "--yes");
  assert.match(stdout, /^! updater and plug-ins \(Update\.zip\): [0-9a-f]{16} \(.+\) -> [0-9a-f]{16} \(/m);
  rmSync(plugin);
  // The repository no longer holds what goes; the module that it was of is known all the same.
  assert.equal(await codeOf(here.load("2.2")), "REVISION_AWAITS_SIGNATURE");
  const gone = documentOf<Shown>(
    await here.demand("revision", "sign", "--keys", here.keys, "--show", "--json"),
  );
  assert.deepEqual(
    gone.files.map(({ path, module, to }) => [path, module, to === null]),
    [
      ["program", "APP", false],
      ["x.update.mjs", "APP", true],
    ],
  );

  // Each key in turn; the installation follows every time.
  for (const role of ["timestamp", "snapshot", "orders", "targets", "root"]) {
    await here.demand("keys", "rotate", role, "--keys", here.keys);
    const version = `3.${role.length}`;
    assert.equal(await codeOf(here.load(version)), "REVISION_AWAITS_SIGNATURE", role);
    await here.demand("revision", "sign", "--keys", here.keys, "--yes");
    await here.demand("update", here.app);
    assert.equal(installed(here), `version ${version}`, role);
  }
});

test("a hub restored from an older backup is noticed, and recovered by the handbook", async (t) => {
  const here = await place(temporaryDirectory(t));
  t.after(() => here.hub.stop());
  await here.load("1");
  await here.demand("install", here.app, "--role", "Server");
  await here.hub.stop();
  copy(join(here.root, "hub"), join(here.root, "backup"));
  here.hub = await startTestHub(here.root);
  await here.load("2");
  await here.demand("update", here.app);
  assert.equal(installed(here), "version 2");

  await here.hub.stop();
  rmSync(join(here.root, "hub"), { recursive: true });
  copy(join(here.root, "backup"), join(here.root, "hub"));
  here.hub = await startTestHub(here.root);
  assert.equal(await codeOf(here.run("update", here.app, "--json")), "TRUST_ROLLED_BACK");
  assert.equal(installed(here), "version 2");
  assert.match(readFileSync(join(here.app, "update.log"), "utf8"), /"action":"trust".*TRUST_ROLLED_BACK/);

  const { epoch } = documentOf<SigningStatus>(await here.demand("keys", "recover", "--json"));
  assert.equal(epoch, 2);
  const back = await here.demand("update", here.app);
  assert.match(back.stderr, /history of releases anew/);
  assert.equal(installed(here), "version 1");
  await here.load("3");
  await here.demand("update", here.app);
  assert.equal(installed(here), "version 3");
});

test("a pinned root keeps another hub's releases out, and pinning anew lets them in", async (t) => {
  const here = await place(temporaryDirectory(t));
  t.after(() => here.hub.stop());
  await here.load("1");
  const thief = await place(temporaryDirectory(t));
  t.after(() => thief.hub.stop());
  await thief.load("1");
  await thief.load("2");
  const rootFile = join(here.root, "root.json");
  const answer = await fetch(`${here.hub.url}/v1/trust/root.json`);
  writeFileSync(rootFile, await answer.text());
  const wrong = here.run(
    "install",
    here.app,
    "--role",
    "Server",
    "--root",
    rootFile,
    "--hub",
    thief.hub.url,
    "--json",
  );
  assert.equal(await codeOf(wrong), "TRUST_REFUSED");
  assert.ok(!existsSync(here.app));
  const right = await here.demand("install", here.app, "--role", "Server", "--root", rootFile);
  assert.doesNotMatch(right.stderr, /first sight|taken from the hub/);
  // D16 and A1: the address leads to another hub now.
  const elsewhere = ["update", here.app, "--hub", thief.hub.url];
  assert.equal(await codeOf(here.run(...elsewhere, "--json")), "TRUST_REFUSED");
  assert.equal(installed(here), "version 1");
  const other = join(here.root, "other.json");
  writeFileSync(other, await (await fetch(`${thief.hub.url}/v1/trust/root.json`)).text());
  await here.demand("trust", "pin", here.app, "--root", other);
  await here.demand(...elsewhere);
  assert.equal(installed(here), "version 2");
  const shown = documentOf<{ history: { size: number } }>(
    await here.demand("trust", "show", here.app, "--json"),
  );
  assert.ok(shown.history.size >= 2);
});

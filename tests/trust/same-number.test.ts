import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { systemClock, systemRandom } from "@lockstep/platform";
import { addSignatures, encodeMetadata, makeRoot, makeSecret, type Signer, signerOf } from "@lockstep/trust";
import {
  type AgentEvent,
  check,
  checkTrust,
  install,
  launch,
  plan,
  readLog,
  runAgent,
  showTrust,
  update,
} from "@lockstep/updater";
import type { SmallHub } from "../updater/small-hub.ts";
import { makeWorld, type World } from "../updater/world.ts";
import { outcome } from "./client-world.ts";

/**
 * What can change behind a number that stays the same: its content, at a hub that was restored from an older backup and published
 * again, and the root. Installations that are in step hear of it with their next question, and ask nothing more while nothing changed.
 */
const targets = ["role:A"];
const release = (text: string) => ({ program: { content: text, targets } });
const content = (directory: string) => readFileSync(join(directory, "program"), "utf8");
const YEAR_MS = 365 * 86_400_000;

/** An installation at software revision 2. */
async function atTwo(t: TestContext): Promise<{ world: World; directory: string }> {
  const world = await makeWorld(t);
  world.hub.saysSigned = true;
  world.hub.publish(release("1"));
  const directory = join(world.root, "a");
  await install(directory, world.installOptions(["A"]));
  world.hub.publish(release("2"));
  await update(directory, world.options());
  assert.equal(content(directory), "2");
  return { world, directory };
}

/** The same hub after its database came from a backup that held revision 1 alone, and something was published as revision 2. */
async function restored(t: TestContext, world: World, second: string): Promise<SmallHub> {
  const { hub } = await makeWorld(t);
  hub.saysSigned = true;
  hub.signing.signer = world.hub.signing.signer;
  for (const [name, bytes] of world.hub.signing.documents)
    if (name.endsWith("root.json")) hub.signing.documents.set(name, bytes);
  hub.publish(release("1"));
  hub.publish(release(second));
  return hub;
}

/** The root keys say other keys for everything but themselves, and another epoch of the log of releases. */
async function addRoot(hub: SmallHub, former: Signer, now: Signer, epoch: number): Promise<void> {
  const [root, other] = [former, now].map(({ key }) => ({ keys: [key], threshold: 1 }));
  assert.ok(root !== undefined && other !== undefined);
  const roles = { root, targets: other, snapshot: other, timestamp: other };
  const next = makeRoot({ version: 2, expiresMs: Date.now() + YEAR_MS, epoch, roles });
  await addSignatures(next, [former]);
  hub.signing.documents.set("2.root.json", encodeMetadata(next)).set("root.json", encodeMetadata(next));
}

const at = (hub: SmallHub) => ({ access: { environment: {}, url: hub.url } });
const questions = (hub: SmallHub) => hub.requests.filter((each) => !each.startsWith("PUT "));

test("F37: a number that a restored hub gives again is an alarm at once, and nothing is taken", async (t) => {
  const { world, directory } = await atTwo(t);
  const hub = await restored(t, world, "another 2");
  assert.equal(await outcome(() => check(directory, at(hub))), "TRUST_HISTORY_DIFFERS");
  assert.equal(await outcome(() => update(directory, world.options(at(hub)))), "TRUST_HISTORY_DIFFERS");
  assert.equal(await outcome(() => plan(directory, world.options(at(hub)))), "TRUST_HISTORY_DIFFERS");
  assert.equal(content(directory), "2");
  const alarms = (await readLog(directory)).filter(({ action }) => action === "trust");
  assert.equal(alarms.length, 1);
  assert.match(String(alarms[0]?.reason), /TRUST_HISTORY_DIFFERS/);
  assert.match(String([...hub.reports.values()][0]?.problem), /TRUST_HISTORY_DIFFERS/);
  // The control: equal numbers are taken for equal files where nobody says more than the number.
  hub.saysSigned = false;
  assert.equal((await check(directory, at(hub))).kind, "in-step");
  assert.equal((await update(directory, world.options(at(hub)))).kind, "already-in-step");
});

test("F37: after a recovery another content of the number is told each time, until the next revision", async (t) => {
  const { world, directory } = await atTwo(t);
  const hub = await restored(t, world, "another 2");
  const now = signerOf(makeSecret());
  await addRoot(hub, world.hub.signing.signer, now, 2);
  hub.signing.signer = now;
  for (let time = 1; time <= 2; time++) {
    assert.equal(await outcome(() => update(directory, world.options(at(hub)))), "TRUST_REVISION_DIFFERS");
    assert.equal(await outcome(() => check(directory, at(hub))), "TRUST_REVISION_DIFFERS");
    assert.match(String([...hub.reports.values()][0]?.problem), /TRUST_REVISION_DIFFERS/);
  }
  // It is the same for who does not ask whether something is new.
  assert.equal(await outcome(() => plan(directory, world.options(at(hub)))), "TRUST_REVISION_DIFFERS");
  assert.equal(content(directory), "2");
  hub.publish(release("3"));
  await update(directory, world.options(at(hub)));
  assert.equal(content(directory), "3");
  assert.equal((await check(directory, at(hub))).kind, "in-step");
});

test("F37: the same content under the same number is in step after a recovery, and looked at once", async (t) => {
  const { world, directory } = await atTwo(t);
  const hub = await restored(t, world, "2");
  const now = signerOf(makeSecret());
  await addRoot(hub, world.hub.signing.signer, now, 2);
  hub.signing.signer = now;
  const step = async () => (await update(directory, world.options(at(hub)))).kind;
  assert.equal(await step(), "already-in-step");
  assert.equal((await showTrust(directory)).root.version, 2);
  assert.equal((await showTrust(directory)).history?.epoch, 2);
  const said = (await readLog(directory)).flatMap(({ action, result, reason }) =>
    action === "trust" && result === "ok" ? [reason] : [],
  );
  assert.deepEqual(
    said.map((reason) => /epoch 2|root version 2/.exec(String(reason))?.[0]),
    ["epoch 2", "root version 2"],
  );
  const asked = questions(hub).length;
  assert.ok(asked > 1);
  assert.equal(await step(), "already-in-step");
  assert.deepEqual(questions(hub).slice(asked), ["GET /v1/revision"]);
});

test("an installation that is in step asks one question, whatever the hub says of signatures that it knows", async (t) => {
  const { world, directory } = await atTwo(t);
  const { hub } = world;
  const asked = hub.requests.length;
  assert.equal((await check(directory, world.options())).kind, "in-step");
  assert.equal((await update(directory, world.options())).kind, "already-in-step");
  assert.deepEqual(hub.requests.slice(asked), ["GET /v1/revision", "GET /v1/revision"]);
});

test("F37: a program starts all the same, and the hub hears of it", async (t) => {
  const { world, directory } = await atTwo(t);
  const hub = await restored(t, world, "another 2");
  const said: string[] = [];
  const start = async () =>
    await launch(directory, {
      ...world.options({ access: { ...at(hub).access, connectTimeoutMs: 600_000 } }),
      checkTimeoutMs: 600_000,
      program: process.execPath,
      args: ["-e", ""],
      askPostpone: null,
      say: (message) => said.push(message),
    });
  const { update: ended, status } = await start();
  assert.deepEqual([ended, status], ["failed", 0]);
  assert.match(said.join("\n"), /TRUST_HISTORY_DIFFERS/);
  assert.match(String([...hub.reports.values()][0]?.problem), /TRUST_HISTORY_DIFFERS/);
  // The control: nobody says more than the number.
  hub.saysSigned = false;
  assert.equal((await start()).update, "in-step");
});

test("a look at the signatures now keeps a new root, says how long each is good, and what is wrong", async (t) => {
  const { world, directory } = await atTwo(t);
  const { hub } = world;
  const fine = await checkTrust(directory, world.options());
  assert.deepEqual([fine.problem, fine.formerRoot, fine.root.version, fine.announced], [null, 1, 1, 2]);
  assert.deepEqual(fine.installed, { revision: 2, digest: hub.document(2).digest });
  const { id } = hub.signing.signer.key;
  assert.deepEqual(
    fine.documents.map(({ role, version, expired, threshold, keys }) => [
      role,
      version,
      expired,
      threshold,
      keys,
    ]),
    [
      ["root", 1, false, 1, [id]],
      ["targets", 2, false, 1, [id]],
      ["snapshot", 2, false, 1, [id]],
      ["timestamp", 2, false, 1, [id]],
    ],
  );
  // Whether or not the hub speaks of it.
  hub.saysSigned = false;
  await addRoot(hub, hub.signing.signer, hub.signing.signer, 1);
  const rotated = await checkTrust(directory, world.options());
  assert.deepEqual([rotated.problem, rotated.formerRoot, rotated.root.version], [null, 1, 2]);
  const late = { ...systemClock, now: () => Date.now() + 2 * hub.signing.timestampMs };
  const expired = await checkTrust(directory, world.options({ clock: late }));
  assert.equal(expired.problem?.code, "TRUST_EXPIRED");
  assert.deepEqual(
    expired.documents.flatMap((each) => (each.expired ? [each.role] : [])),
    ["timestamp"],
  );
  assert.match(String([...hub.reports.values()][0]?.problem), /TRUST_EXPIRED/);
});

/** An agent that looks as often as is said, and what it told. */
async function watch(directory: string, hub: SmallHub, polls: number): Promise<AgentEvent[]> {
  const controller = new AbortController();
  const events: AgentEvent[] = [];
  let pauses = 0;
  await runAgent({
    ...at(hub),
    selfUpdate: false,
    directories: [directory],
    follow: false,
    verifyEveryMs: 0,
    signal: controller.signal,
    random: systemRandom,
    clock: {
      ...systemClock,
      sleep: async () => {
        // The first pause is before the first look.
        if (pauses++ === polls) controller.abort();
      },
    },
    onEvent: (event) => events.push(event),
  });
  return events;
}

test("an agent that is in step learns of a new root with its next poll", async (t) => {
  const { world, directory } = await atTwo(t);
  const { hub } = world;
  const rootOf = async () => (await showTrust(directory)).root.version;
  await addRoot(hub, hub.signing.signer, hub.signing.signer, 1);
  // The control: from a hub that says nothing of it.
  hub.saysSigned = false;
  await watch(directory, hub, 3);
  assert.equal(await rootOf(), 1);
  hub.saysSigned = true;
  const events = await watch(directory, hub, 3);
  assert.equal(await rootOf(), 2);
  assert.ok(!events.some(({ kind }) => kind === "failed"));
  // And then no more.
  const asked = questions(hub).length;
  await watch(directory, hub, 3);
  assert.deepEqual(new Set(questions(hub).slice(asked)), new Set(["GET /v1/revision"]));
});

test("an agent tells once that a number stands for another content, and looks three times for what is not there", async (t) => {
  const { world, directory } = await atTwo(t);
  const hub = await restored(t, world, "another 2");
  const events = await watch(directory, hub, 8);
  const failed = events.flatMap((event) => (event.kind === "failed" ? [event.problem] : []));
  assert.equal(failed.length, 1);
  assert.match(String(failed[0]), /TRUST_HISTORY_DIFFERS/);
  assert.equal(content(directory), "2");
  // A relay may show the former signatures for a while: the root that the hub speaks of comes later, or never.
  const other = await makeWorld(t);
  other.hub.saysSigned = true;
  other.hub.publish(release("1"));
  const there = join(other.root, "b");
  await install(there, other.installOptions(["A"]));
  other.hub.signing.documents.set("3.root.json", Buffer.from("{}"));
  const before = other.hub.requests.length;
  await watch(there, other.hub, 8);
  const looks = other.hub.requests.slice(before).filter((each) => each === "GET /v1/trust/changes");
  assert.equal(looks.length, 3);
});

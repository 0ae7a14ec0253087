import assert from "node:assert/strict";
import { test } from "node:test";
import { demandNextRoot } from "@lockstep/trust";
import { pinned, refresh } from "./client-world.ts";
import { DAY, NOW, SmallRepository } from "./small-repository.ts";

/** What is refused as out of date or as older says what was demanded, what came, and what to do next. */
const utc = (ms: number) => new Date(ms).toISOString().replace(".000Z", "Z");

interface Said {
  readonly code: string;
  readonly message: string;
  readonly expected: string;
  readonly found: string;
  readonly hint: string;
}

async function refusal(act: () => Promise<unknown>): Promise<Said> {
  try {
    await act();
  } catch (error) {
    return error as Said;
  }
  return assert.fail("it was accepted");
}

test("what is out of date says its end, the time here, and who renews it", async () => {
  const lifetimes = { root: 10 * DAY, targets: 20 * DAY, snapshot: 30 * DAY, timestamp: 40 * DAY };
  const renewals = {
    root: /keys rotate root/,
    targets: /keys rotate targets/,
    snapshot: /hub status/,
    timestamp: /hub status/,
  };
  for (const role of ["root", "targets", "snapshot", "timestamp"] as const) {
    const hub = await SmallRepository.make();
    // Only this one ends; all others are good for a year.
    for (const each of ["root", "targets", "snapshot", "timestamp"] as const)
      hub.expiresMs[each] = each === role ? lifetimes[role] : 365 * DAY;
    if (role === "root") await hub.publishRoot();
    await hub.publishRevision(2);
    const place = await pinned(hub);
    place.clock.nowMs = NOW + 50 * DAY;
    const said = await refusal(() => refresh(place, hub.mirror()));
    assert.equal(said.code, "TRUST_EXPIRED", role);
    assert.match(said.message, new RegExp(`signature of ${role}\\.json`));
    assert.equal(said.expected, `one that is good at ${utc(NOW + 50 * DAY)}, by this machine's clock`);
    assert.equal(said.found, `it was good until ${utc(NOW + lifetimes[role])}`);
    assert.match(said.hint, renewals[role]);
  }
});

test("a clock that was set back is named beside the time that decides", async () => {
  const hub = await SmallRepository.make();
  const place = await pinned(hub);
  place.clock.nowMs = NOW + 2 * DAY;
  await refresh(place, hub.mirror());
  hub.now = NOW - 5 * DAY;
  await hub.publishTimestamp();
  place.clock.nowMs = NOW - 4 * DAY;
  const said = await refusal(() => refresh(place, hub.mirror()));
  assert.equal(said.code, "TRUST_EXPIRED");
  assert.match(
    said.expected,
    new RegExp(`^one that is good at ${utc(NOW + 2 * DAY)}, when something was trusted`),
  );
  assert.match(said.expected, new RegExp(`this machine's clock: ${utc(NOW - 4 * DAY)}`));
  assert.equal(said.found, `it was good until ${utc(NOW - 2 * DAY)}`);
});

test("what is older than what was trusted says both versions", async () => {
  const hub = await SmallRepository.make();
  const backup = hub.clone();
  const place = await pinned(hub);
  await hub.publishRevision(2);
  await hub.publishRevision(3);
  await refresh(place, hub.mirror());
  const timestamp = await refusal(() => refresh(place, backup.mirror()));
  assert.deepEqual(
    [timestamp.code, timestamp.expected, timestamp.found],
    ["TRUST_ROLLED_BACK", "version at least 3", "1"],
  );
  assert.match(timestamp.hint, /lockstep keys recover/);
  // A timestamp that grew on, over the former snapshot.
  for (let turn = 0; turn < 4; turn++) await backup.publishTimestamp();
  const snapshot = await refusal(() => refresh(place, backup.mirror()));
  assert.deepEqual(
    [snapshot.code, snapshot.expected, snapshot.found],
    ["TRUST_ROLLED_BACK", "the snapshot's version at least 3", "1"],
  );
});

test("a snapshot, targets and a root of another version than is named say both", async () => {
  const hub = await SmallRepository.make();
  await hub.publishRevision(2);
  const place = await pinned(hub);
  await refresh(place, hub.mirror());
  // The numbers of a snapshot grow, and what it names goes back.
  hub.versions.targets = 0;
  await hub.publishRevision(1);
  const targets = await refusal(() => refresh(place, hub.mirror()));
  assert.deepEqual(
    [targets.code, targets.expected, targets.found],
    ["TRUST_ROLLED_BACK", "the version of targets.json at least 2", "1"],
  );
  const first = hub.root;
  await hub.publishRoot();
  await hub.publishRoot();
  const root = await refusal(async () => demandNextRoot(first, hub.root));
  assert.deepEqual([root.code, root.expected, root.found], ["TRUST_ROLLED_BACK", "version 2", "version 3"]);
});

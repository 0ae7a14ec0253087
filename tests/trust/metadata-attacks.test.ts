import assert from "node:assert/strict";
import { test } from "node:test";
import { Prng } from "@lockstep/testing";
import {
  MetadataStore,
  MirrorSource,
  makeSecret,
  readStrictJson,
  type Signer,
  signerOf,
  TrustClient,
} from "@lockstep/trust";
import { outcome, pinned, refresh, StillClock, TRUST } from "./client-world.ts";
import { DAY, SmallRepository, signedJson } from "./small-repository.ts";

/**
 * The attacks on metadata and keys that the public conformance suite leaves to us, each named after its row of the attack
 * table, each with a control: the same attack on something that lacks the defence, which must succeed.
 */
test("A1: no flipped bit of any metadata document is accepted", async () => {
  const good = await SmallRepository.make();
  const prng = new Prng(20261123);
  let harmless = 0;
  let readable = 0;
  let tried = 0;
  for (const name of ["1.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]) {
    const bytes = good.document(name);
    for (let at = 0; at < bytes.length; at += 1 + prng.below(4)) {
      const forged = Uint8Array.from(bytes);
      forged[at] = (forged[at] ?? 0) ^ (1 << prng.below(8));
      tried++;
      if ("value" in readStrictJson(forged)) readable++;
      const said = await outcome(async () => {
        if (name === "1.root.json") {
          const { disk } = await pinned(good);
          return await TrustClient.pin(new MetadataStore(disk, TRUST), forged);
        }
        const bad = good.clone();
        bad.documents.set(name, forged);
        return await refresh(await pinned(good), bad.mirror());
      });
      assert.doesNotMatch(said, /FAULT/);
      // Hexadecimal digits in capitals are the same signature, and so is what stands outside of what is signed.
      if (said === "accepted") {
        const same = JSON.stringify((JSON.parse(text(forged)) as { signed: unknown }).signed);
        assert.equal(
          same,
          JSON.stringify((JSON.parse(text(bytes)) as { signed: unknown }).signed),
          `${name} at ${at}`,
        );
        harmless++;
      }
    }
  }
  assert.ok(tried > 1000 && harmless < tried / 4);
  // The control: a reader without signatures takes many of them.
  assert.ok(readable > tried / 4, `${readable} of ${tried} can be read`);
});

test("A2: what was trusted stays so after a restart, and older metadata of a restored hub is refused", async () => {
  const hub = await SmallRepository.make();
  const backup = hub.clone();
  const place = await pinned(hub);
  await refresh(place, hub.mirror());
  await hub.publishRevision(2);
  await refresh(place, hub.mirror());
  assert.equal(await outcome(() => refresh(place, backup.mirror())), "TRUST_ROLLED_BACK");
  // Older targets under a timestamp that grew on: the snapshot's memory tells.
  for (let turn = 0; turn < 4; turn++) await backup.publishTimestamp();
  assert.equal(await outcome(() => refresh(place, backup.mirror())), "TRUST_ROLLED_BACK");
  // The control: an installation that remembers nothing takes it.
  assert.equal(await outcome(async () => refresh(await pinned(hub), backup.mirror())), "accepted");
});

test("A4: versions that are no versions are refused, also when they are signed", async () => {
  for (const version of ["9007199254740992", "1e400", "-1", '"7"', "1.0", "0", "null"]) {
    const hub = await SmallRepository.make();
    const place = await pinned(hub);
    const marker = 4242;
    await hub.alter("timestamp.json", "timestamp", (signed) => {
      signed.version = marker;
    });
    const forged = Buffer.from(
      text(hub.document("timestamp.json")).replace(`"version":${marker}`, `"version":${version}`),
    );
    hub.documents.set("timestamp.json", forged);
    assert.equal(await outcome(() => refresh(place, hub.mirror())), "TRUST_REFUSED", version);
  }
  // The control: the same way with a version that is one.
  const hub = await SmallRepository.make();
  await hub.alter("timestamp.json", "timestamp", (signed) => {
    signed.version = 4242;
  });
  assert.equal(await outcome(async () => refresh(await pinned(hub), hub.mirror())), "accepted");
});

test("A5: a hub that goes on showing the same is noticed when its timestamp runs out", async () => {
  const hub = await SmallRepository.make();
  const place = await pinned(hub);
  await refresh(place, hub.mirror());
  place.clock.nowMs += hub.expiresMs.timestamp - 1000;
  assert.equal(await outcome(() => refresh(place, hub.mirror())), "accepted");
  place.clock.nowMs += 1000;
  assert.equal(await outcome(() => refresh(place, hub.mirror())), "TRUST_EXPIRED");
  hub.now = place.clock.nowMs;
  await hub.publishTimestamp();
  assert.equal(await outcome(() => refresh(place, hub.mirror())), "accepted");
});

test("A6: a clock that is set back revives nothing, and one that was ahead breaks nothing", async () => {
  const hub = await SmallRepository.make();
  const place = await pinned(hub);
  await refresh(place, hub.mirror());
  const old = hub.clone();
  hub.now += 60 * DAY;
  await hub.publishRevision(2);
  place.clock.nowMs = hub.now;
  await refresh(place, hub.mirror());
  hub.now += 10 * DAY;
  place.clock.nowMs -= 365 * DAY;
  assert.equal(await outcome(() => refresh(place, hub.mirror())), "accepted");
  // Nobody held anything against the clock so far; now time is what decides.
  const fresh = await pinned(old);
  fresh.clock.nowMs = old.now + 60 * DAY;
  const late = old.clone();
  late.now = fresh.clock.nowMs;
  await late.publishSnapshot();
  await refresh(fresh, late.mirror());
  fresh.clock.nowMs = old.now;
  await late.alter("timestamp.json", "timestamp", (signed) => {
    signed.expires = "2027-02-01T00:00:00Z";
    signed.version = 100;
  });
  assert.equal(await outcome(() => refresh(fresh, late.mirror())), "TRUST_EXPIRED");
  // The control: without the memory of the newest time it is taken.
  fresh.disk.unlink(`${TRUST}/clock`);
  assert.equal(await outcome(() => refresh(fresh, late.mirror())), "accepted");
  // A year ahead nothing is taken, and set right all is well.
  const ahead = await pinned(hub);
  ahead.clock.nowMs = hub.now + 365 * DAY;
  assert.equal(await outcome(() => refresh(ahead, hub.mirror())), "TRUST_EXPIRED");
  await hub.publishSnapshot();
  ahead.clock.nowMs = hub.now;
  assert.equal(await outcome(() => refresh(ahead, hub.mirror())), "accepted");
});

test("A9: two hubs of different moments behind one address never make a mix", async () => {
  const old = await SmallRepository.make();
  const place = await pinned(old);
  const present = old.clone();
  await present.publishRevision(2);
  await present.publishRevision(3);
  const prng = new Prng(9);
  const seen = new Set<number>();
  for (let turn = 0; turn < 60; turn++) {
    const mirrors = [old.mirror(), present.mirror()];
    await outcome(() =>
      refresh(place, {
        name: "either",
        open: (document, from, signal) =>
          (mirrors[prng.below(2)] ?? old.mirror()).open(document, from, signal),
      }),
    );
    const trust = await TrustClient.open(new MetadataStore(place.disk, TRUST), place.clock);
    if ((await outcome(() => trust.loadKept())) !== "accepted") continue;
    const snapshot = trust.snapshot?.meta["targets.json"]?.version;
    assert.equal(trust.targets?.version, snapshot);
    assert.equal(trust.timestamp?.snapshotMeta.version, trust.snapshot?.version);
    seen.add(trust.targets?.version ?? 0);
  }
  assert.ok(seen.has(3), "the newest was reached");
});

test("A12: one bad mirror of two keeps nobody from the update", async () => {
  const good = await SmallRepository.make();
  await good.publishRevision(2);
  const thief = await SmallRepository.make();
  const bad: [string, ConstructorParameters<typeof MirrorSource>[0][number]][] = [
    ["of other keys", thief.mirror("thief")],
    ["empty", { name: "empty", open: async () => null }],
    [
      "broken",
      {
        name: "broken",
        open: async () => {
          throw new Error("connection refused");
        },
      },
    ],
    [
      "garbage",
      { name: "garbage", open: async () => ({ offset: 0, chunks: bytesOf(Buffer.from("<html>")) }) },
    ],
    ["endless", { name: "endless", open: async () => ({ offset: 0, chunks: endless() }) }],
  ];
  for (const [what, mirror] of bad) {
    const place = await pinned(good);
    assert.equal(await outcome(() => refresh(place, mirror, good.mirror())), "accepted", what);
    const trust = await TrustClient.open(new MetadataStore(place.disk, TRUST), place.clock);
    await trust.loadKept();
    assert.equal(trust.targets?.version, 2);
    // The control: with the bad one alone there is no update.
    assert.notEqual(await outcome(async () => refresh(await pinned(good), mirror)), "accepted", what);
  }
});

test("A14: a release that one of three release keys signed is refused where two are needed", async () => {
  const hub = await SmallRepository.make({ targets: 3 });
  hub.thresholds.targets = 2;
  await hub.publishRoot();
  await hub.publishRevision(2);
  const place = await pinned(hub);
  assert.equal(await outcome(() => refresh(place, hub.mirror())), "accepted");
  const all = hub.signers.targets;
  hub.signers = { ...hub.signers, targets: all.slice(0, 1) };
  await hub.publishRevision(3);
  assert.equal(await outcome(() => refresh(place, hub.mirror())), "TRUST_REFUSED");
  // The control: two keys are enough.
  hub.signers = { ...hub.signers, targets: all.slice(0, 2) };
  await hub.publishRevision(4);
  assert.equal(await outcome(() => refresh(place, hub.mirror())), "accepted");
});

test("A13: with both online keys a thief can hold an installation up and name nothing new", async () => {
  const hub = await SmallRepository.make();
  const begin = await pinned(hub);
  await hub.publishRevision(2);
  await refresh(begin, hub.mirror());
  const place = () => ({ disk: begin.disk.clone(), clock: begin.clock });
  const thief = hub.clone();
  thief.signers = { ...hub.signers, root: [], targets: [signerOf(makeSecret())] };
  // New files under keys of the thief's own.
  await thief.publishRevision(3);
  assert.equal(await outcome(() => refresh(place(), thief.mirror())), "TRUST_REFUSED");
  // A former release, under fresh online signatures.
  const back = hub.clone();
  back.versions = { ...hub.versions, targets: 1 };
  await back.publishSnapshot();
  assert.equal(await outcome(() => refresh(place(), back.mirror())), "TRUST_ROLLED_BACK");
  // Held up by versions far ahead: the hub's own are older then, until its online keys are others.
  const held = place();
  thief.versions = { ...thief.versions, snapshot: 1_000_000, timestamp: 1_000_000 };
  await thief.publishSnapshot();
  assert.equal(await outcome(() => refresh(held, thief.mirror())), "TRUST_REFUSED");
  await hub.publishRevision(3);
  assert.equal(await outcome(() => refresh(held, hub.mirror())), "TRUST_ROLLED_BACK");
  hub.signers = { ...hub.signers, snapshot: [signerOf(makeSecret())], timestamp: [signerOf(makeSecret())] };
  await hub.publishRoot();
  await hub.publishSnapshot();
  assert.equal(await outcome(() => refresh(held, hub.mirror())), "accepted");
  // The control: with the release key it is a release.
  const owner = hub.clone();
  await owner.publishRevision(4);
  assert.equal(await outcome(() => refresh(place(), owner.mirror())), "accepted");
});

test("A16: one key under two ids counts once", async () => {
  const hub = await SmallRepository.make();
  const place = await pinned(hub);
  const [timestamp] = hub.signers.timestamp;
  assert.ok(timestamp !== undefined);
  const twin: Signer = { ...timestamp, key: { ...timestamp.key, id: "aa".repeat(32) } };
  hub.signers = { ...hub.signers, timestamp: [timestamp, twin] };
  hub.thresholds.timestamp = 2;
  await hub.publishRoot();
  await hub.publishTimestamp();
  assert.equal(await outcome(() => refresh(place, hub.mirror())), "TRUST_REFUSED");
  // The control stands beside the code that counts keys: the library alone accepts this.
});

test("A17: a threshold that is no whole number of at least one is refused", async () => {
  const refusedBy = async (threshold: unknown, pin: (root: Uint8Array) => Promise<unknown>) => {
    const hub = await SmallRepository.make();
    await hub.alter("1.root.json", "root", (signed) => {
      const roles = signed.roles as Record<string, { threshold: unknown }>;
      Object.assign(roles.targets ?? {}, { threshold });
    });
    return await outcome(() => pin(hub.document("1.root.json")));
  };
  const { disk } = await pinned(await SmallRepository.make());
  const ours = (root: Uint8Array) => TrustClient.pin(new MetadataStore(disk, TRUST), root);
  for (const threshold of [0, -1, null, "1", 1.5, true])
    assert.equal(await refusedBy(threshold, ours), "TRUST_REFUSED");
  // More than there are keys can be written down, and then never be reached.
  const hub = await SmallRepository.make();
  const place = await pinned(hub);
  hub.thresholds.timestamp = 1_000_000_000;
  await hub.publishRoot();
  assert.equal(await outcome(() => refresh(place, hub.mirror())), "TRUST_REFUSED");
});

test("A20: a chain of delegations without end is left after 32", async () => {
  const hub = await SmallRepository.make();
  const [signer] = hub.signers.targets;
  assert.ok(signer !== undefined);
  const chain = (name: string) => ({
    keys: {
      [signer.key.id]: { keytype: "ed25519", scheme: "ed25519", keyval: { public: signer.key.public } },
    },
    roles: [{ name, keyids: [signer.key.id], threshold: 1, terminating: false, paths: ["*"] }],
  });
  const expires = "2030-01-01T00:00:00Z";
  const meta: Record<string, unknown> = {};
  for (let depth = 0; depth <= 1000; depth++) {
    const name = depth === 0 ? "targets" : `role${depth}`;
    const signed = {
      _type: "targets",
      spec_version: "1.0.34",
      version: 1,
      expires,
      targets: {},
      delegations: chain(`role${depth + 1}`),
    };
    hub.documents.set(`1.${name}.json`, await signedJson(signed, [signer]));
    meta[`${name}.json`] = { version: 1 };
  }
  const snapshot = { _type: "snapshot", spec_version: "1.0.34", version: 2, expires, meta };
  hub.documents.set("2.snapshot.json", await signedJson(snapshot, hub.signers.snapshot));
  await hub.alter("timestamp.json", "timestamp", (signed) => {
    signed.version = 2;
    signed.meta = { "snapshot.json": { version: 2 } };
  });
  const place = await pinned(hub);
  const trust = await refresh(place, hub.mirror());
  hub.requests.length = 0;
  assert.equal(await trust.target("nowhere", new MirrorSource([hub.mirror()], place.clock)), null);
  assert.ok(hub.requests.length <= 33, `${hub.requests.length} documents were fetched`);
});

test("A22: tricks of JSON are refused, and what is accepted reads alike everywhere", async () => {
  const tricks: Readonly<Record<string, string>> = {
    "a member twice": '{"a":1,"a":2}',
    "a member twice, escaped": '{"a":1,"\\u0061":2}',
    __proto__: '{"__proto__":{"a":1}}',
    "depth 10^5": `${"[".repeat(100_000)}${"]".repeat(100_000)}`,
    "2^60": '{"a":1152921504606846976}',
    float: '{"a":1.5}',
    exponent: '{"a":1e3}',
    "minus zero": '{"a":-0}',
    "leading zero": '{"a":01}',
    "half a character": '{"a":"\\ud800"}',
    "byte order mark": '\ufeff{"a":1}',
    "something behind": '{"a":1}x',
    "two documents": '{"a":1}{"a":2}',
    "a comma too many": '{"a":1,}',
    comment: '{"a":1/*2*/}',
    "a line end in a text": '{"a":"\n"}',
    nothing: "",
    NaN: '{"a":NaN}',
  };
  for (const [what, json] of Object.entries(tricks))
    assert.ok("problem" in readStrictJson(Buffer.from(json)), what);
  assert.ok("problem" in readStrictJson(Uint8Array.of(0x22, 0xc3, 0x28, 0x22)), "not UTF-8");
  // The control: a usual parser takes several of them, and not all parsers take the same.
  const taken = Object.values(tricks).filter((json) => {
    try {
      JSON.parse(json);
      return true;
    } catch {
      return false;
    }
  });
  assert.ok(taken.length >= 6, `${taken.length}`);
});

test("A22: of mutated documents none crashes the verifier and none is accepted with another meaning", async () => {
  const hub = await SmallRepository.make();
  const prng = new Prng(22);
  const original = hub.document("timestamp.json");
  const meaning = JSON.stringify((JSON.parse(text(original)) as { signed: unknown }).signed);
  let slowestMs = 0;
  for (let turn = 0; turn < 3000; turn++) {
    const forged = mutate(original, prng);
    const read = readStrictJson(forged);
    if ("value" in read) assert.deepEqual(read.value, JSON.parse(text(forged)));
    if (turn % 10 !== 0) continue;
    const bad = hub.clone();
    bad.documents.set("timestamp.json", forged);
    const began = performance.now();
    const said = await outcome(async () => refresh(await pinned(hub), bad.mirror()));
    slowestMs = Math.max(slowestMs, performance.now() - began);
    assert.doesNotMatch(said, /FAULT/);
    if (said === "accepted")
      assert.equal(JSON.stringify((JSON.parse(text(forged)) as { signed: unknown }).signed), meaning);
  }
});

function mutate(bytes: Uint8Array, prng: Prng): Uint8Array {
  const result = [...bytes];
  for (let turn = 0; turn <= prng.below(4); turn++) {
    const at = prng.below(result.length);
    const length = prng.below(20);
    prng.pick([
      () => result.splice(at, length),
      () => result.splice(at, 0, ...result.slice(at, at + length)),
      () => result.splice(at, 1, prng.below(256)),
      () =>
        result.splice(
          at,
          0,
          ...Buffer.from(prng.pick(['"', "{", "}", "[", ",", ":", "\\", "1e9", "null", "\u202e"])),
        ),
    ])();
  }
  return Uint8Array.from(result);
}

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("utf8");

async function* bytesOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

async function* endless(): AsyncGenerator<Uint8Array> {
  for (;;) yield new Uint8Array(4096);
}

test("a root that is no root cannot be pinned", async () => {
  const { disk } = await pinned(await SmallRepository.make());
  const store = new MetadataStore(disk, TRUST);
  const stranger = signerOf(makeSecret());
  const hub = await SmallRepository.make();
  const unsigned = await signedJson((JSON.parse(text(hub.root)) as { signed: unknown }).signed, [stranger]);
  assert.equal(await outcome(() => TrustClient.pin(store, unsigned)), "TRUST_REFUSED");
  disk.unlink(`${TRUST}/root.json`);
  assert.equal(await outcome(() => TrustClient.open(store, new StillClock())), "TRUST_ROOT_MISSING");
  disk.writeFile(`${TRUST}/root.json`, Buffer.from("{"), 0o600);
  assert.equal(await outcome(() => TrustClient.open(store, new StillClock())), "TRUST_DAMAGED");
});

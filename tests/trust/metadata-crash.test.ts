import assert from "node:assert/strict";
import { test } from "node:test";
import { Prng, SimCrash, type SimDisk } from "@lockstep/testing";
import { MetadataStore, MirrorSource, readRoot, TrustClient } from "@lockstep/trust";
import { pinned, refresh, StillClock, TRUST } from "./client-world.ts";
import { SmallRepository } from "./small-repository.ts";

/**
 * The store of trusted metadata on a disk that forgets: the process dies before every call, the power fails or does not,
 * and the next refresh must reach the newest metadata, with nothing ever being trusted that is older than what was before.
 */
interface Rules {
  readonly syncFiles: boolean;
  readonly syncDirectories: boolean;
  readonly temporary: boolean;
}
const KEPT: Rules = { syncFiles: true, syncDirectories: true, temporary: true };

/** A disk of which one rule of the store is taken away. */
function without(disk: SimDisk, rules: Rules): SimDisk {
  return new Proxy(disk, {
    get(target, name) {
      if (name === "syncFiles" && !rules.syncFiles) return async () => {};
      if (name === "syncDirectories" && !rules.syncDirectories) return async () => {};
      if (name === "rename" && !rules.temporary)
        return (from: string, to: string) => {
          // Written in place: emptied first, then filled.
          const bytes = target.readFile(from);
          if (target.lstat(to) !== null) target.unlink(to);
          target.writeFile(to, new Uint8Array(0), 0o600);
          target.unlink(to);
          target.writeFile(to, bytes, 0o600);
          target.unlink(from);
        };
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

async function sweep(rules: Rules, seeds: number): Promise<string | null> {
  const repository = await SmallRepository.make();
  const begin = await pinned(repository);
  await refresh(begin, repository.mirror());
  const before = { root: repository.versions.root, timestamp: repository.versions.timestamp };
  // A rotation of every online key and a new revision: all four documents change.
  await repository.publishRoot();
  await repository.publishRevision(2);
  for (let call = 1; ; call++) {
    let died = false;
    for (let seed = 1; seed <= seeds; seed++) {
      const disk = begin.disk.clone();
      disk.plan({ call, dies: true });
      const clock = new StillClock(repository.now);
      try {
        const trust = await TrustClient.open(new MetadataStore(without(disk, rules), TRUST), clock);
        await trust.refresh(new MirrorSource([repository.mirror()], clock));
      } catch (error) {
        if (!(error instanceof SimCrash) && !disk.dead) throw error;
      }
      died = disk.dead;
      if (seed % 2 === 0) disk.cutPower(new Prng(seed * 7919 + call));
      else disk.kill();
      const problem = await judge(disk, repository, before);
      if (problem !== null) return `call ${call}, seed ${seed}: ${problem}`;
    }
    if (!died) return null;
  }
}

async function judge(
  disk: SimDisk,
  repository: SmallRepository,
  before: { readonly root: number },
): Promise<string | null> {
  disk.plan();
  const root = new MetadataStore(disk, TRUST).read("root");
  if (root === null) return "the root is gone";
  try {
    if (readRoot(root).signed.version < before.root) return "an older root";
  } catch {
    return "a torn root";
  }
  try {
    const trust = await refresh({ disk, clock: new StillClock(repository.now) }, repository.mirror());
    return trust.targets?.version === repository.versions.targets ? null : "another revision";
  } catch (error) {
    return `the next refresh fails: ${String(error)}`;
  }
}

test("F10: killed before every call of a refresh, and the power cut, trust is whole and never older", async () => {
  assert.equal(await sweep(KEPT, 12), null);
});

test("control: a store that writes in place is found out", async () => {
  assert.notEqual(await sweep({ ...KEPT, temporary: false }, 12), null);
});

test("control: a store that does not make files durable is found out", async () => {
  assert.notEqual(await sweep({ ...KEPT, syncFiles: false }, 12), null);
});

test("what a refresh has returned for is there after a power cut", async () => {
  const found = async (rules: Rules) => {
    const repository = await SmallRepository.make();
    const begin = await pinned(repository);
    await repository.publishRoot();
    await repository.publishRevision(2);
    const clock = new StillClock(repository.now);
    const trust = await TrustClient.open(new MetadataStore(without(begin.disk, rules), TRUST), clock);
    await trust.refresh(new MirrorSource([repository.mirror()], clock));
    const versions: (number | undefined)[] = [];
    for (let seed = 1; seed <= 30; seed++) {
      const disk = begin.disk.clone();
      disk.cutPower(new Prng(seed));
      const root = new MetadataStore(disk, TRUST).read("root");
      versions.push(root === null ? undefined : readRoot(root).signed.version);
    }
    return versions.every((version) => version === 2);
  };
  assert.equal(await found(KEPT), true);
  // The control: without the sync of the directory an older root comes back.
  assert.equal(await found({ ...KEPT, syncDirectories: false }), false);
});

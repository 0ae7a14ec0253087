import assert from "node:assert/strict";
import test from "node:test";
import { DEFAULT_VIRTUAL_SERVER, type VirtualServerDefinition } from "@lockstep/core";
import type { Clock } from "@lockstep/platform";
import { InstalledFiles } from "./installed-state.ts";

/** Nobody waits: a sleep is over at once, and the time is told by hand. */
class HandClock implements Clock {
  at = 0;
  now = () => this.at;
  monotonic = () => this.at;
  sleep = async () => {
    await new Promise<void>((resolve) => setImmediate(resolve));
  };
}

const server = (name: string, path: string): VirtualServerDefinition => ({
  ...DEFAULT_VIRTUAL_SERVER,
  ...{ name, config: { path, hash: null } },
});

test("a file that never answers holds up nobody, is asked once, told of once, and counts as unreadable", async () => {
  const clock = new HandClock();
  const asked: string[] = [];
  const told: string[] = [];
  const answers = new Map<string, PromiseWithResolvers<string | null>>();
  const files = new InstalledFiles(clock, (path) => told.push(path), {
    config: (path) => {
      asked.push(path);
      if (path === "/well") return Promise.resolve("hash of well");
      const answer = Promise.withResolvers<string | null>();
      answers.set(path, answer);
      return answer.promise;
    },
    revision: () => Promise.resolve(null),
  });
  const servers = [server("HANGS", "/net/a"), server("TOO", "/net/a"), server("WELL", "/well")];
  const look = async () => (await files.look(servers)).configHashes;

  assert.deepEqual(await look(), { HANGS: null, TOO: null, WELL: "hash of well" });
  assert.equal(files.isWaiting, true);
  // It answers late: nothing was wrong.
  answers.get("/net/a")?.resolve("late");
  clock.at = 1_000;
  await clock.sleep();
  assert.equal((await look()).HANGS, "late");
  assert.deepEqual(told, []);

  // What was known of it holds until it counts as hanging.
  clock.at = 2_000;
  assert.equal((await look()).HANGS, "late");
  clock.at = 20_000;
  assert.deepEqual(await look(), { HANGS: null, TOO: null, WELL: "hash of well" });
  clock.at = 30_000;
  await look();
  assert.deepEqual(told, ["/net/a"]);
  assert.equal(files.isWaiting, false);
  const times = asked.filter((path) => path === "/net/a").length;
  await look();
  assert.equal(asked.filter((path) => path === "/net/a").length, times);

  // The volume is back.
  answers.get("/net/a")?.resolve("again");
  await clock.sleep();
  answers.clear();
  assert.equal((await look()).HANGS, "again");
});

test("files that hang leave threads of the process to everybody else", async () => {
  const clock = new HandClock();
  const asked = new Set<string>();
  const files = new InstalledFiles(clock, () => {}, {
    config: (path) => {
      asked.add(path);
      return new Promise(() => {});
    },
    revision: () => Promise.resolve(null),
  });
  const servers = Array.from({ length: 10 }, (_, n) => server(`S${n}`, `/net/${n}`));
  for (const at of [0, 10_000, 20_000]) {
    clock.at = at;
    await files.look(servers);
  }
  assert.equal(asked.size, 2);
});

import assert from "node:assert/strict";
import type { Coordination } from "@lockstep/cluster";
import type { LeaseRecord } from "@lockstep/core";

/** One thing that every coordination store must do. `open`: another way in to the same store, as each node has one. */
export interface CoordinationPromise {
  readonly title: string;
  readonly hold: (open: () => Promise<Coordination>) => Promise<void>;
}

/** What every coordination store must do, whatever it is made of; each uses a name of its own. */
export const COORDINATION_PROMISES: readonly CoordinationPromise[] = [
  {
    title: "there is nothing before the first write, which succeeds once",
    hold: async (open) => {
      const [store, name] = [await open(), nextName()];
      assert.deepEqual(await store.read(name), { record: null, revision: 0 });
      const record = recordOf("a", 1);
      const taken = await store.swap(name, { expected: 0, record, takes: true });
      assert.ok(taken.swapped && taken.revision > 0);
      assert.deepEqual(await store.read(name), { record, revision: taken.revision });
      const late = await store.swap(name, { expected: 0, record: recordOf("b", 1), takes: true });
      assert.deepEqual(late, { swapped: false, observation: { record, revision: taken.revision } });
    },
  },

  {
    title: "of many who take at the same moment one succeeds, and the others see who",
    hold: async (open) => {
      const [first, second, name] = [await open(), await open(), nextName()];
      for (let token = 1, revision = 0; token <= 5; token++) {
        const answers = await Promise.all(
          Array.from({ length: 8 }, (_, index) =>
            (index % 2 === 0 ? first : second).swap(name, {
              expected: revision,
              record: recordOf(`n${index}`, token),
              takes: true,
            }),
          ),
        );
        const winners = answers.flatMap((answer, index) => (answer.swapped ? [{ index, answer }] : []));
        assert.equal(winners.length, 1);
        const winner = winners[0];
        const seen = await second.read(name);
        assert.equal(seen.record?.node, `n${winner?.index}`);
        assert.equal(seen.revision, winner?.answer.revision);
        for (const answer of answers)
          assert.ok(answer.swapped || answer.observation.revision === seen.revision);
        revision = seen.revision;
      }
    },
  },

  {
    title: "every write changes the revision, and all members of a record come back",
    hold: async (open) => {
      const [store, name] = [await open(), nextName()];
      const records: LeaseRecord[] = [
        recordOf("a", 1),
        { ...recordOf("a", 1), write: 2 },
        { ...recordOf("Knoten Ä 雪", 2), instance: 'with "quotes" and\nlines' },
        { ...recordOf("a", 2), node: null, next: "b" },
        { ...recordOf("b", Number.MAX_SAFE_INTEGER - 1), write: Number.MAX_SAFE_INTEGER },
      ];
      let before = 0;
      let token = 0;
      for (const record of records) {
        const answer = await store.swap(name, { expected: before, record, takes: record.token > token });
        token = record.token;
        assert.ok(answer.swapped && answer.revision > before);
        before = answer.revision;
        assert.deepEqual(await store.read(name), { record, revision: before });
      }
    },
  },

  {
    title: "who has not seen the last write is refused and shown it",
    hold: async (open) => {
      const [store, other, name] = [await open(), await open(), nextName()];
      const taken = await store.swap(name, { expected: 0, record: recordOf("a", 1), takes: true });
      assert.ok(taken.swapped);
      const renewed = { ...recordOf("a", 1), write: 2 };
      assert.ok(
        (await store.swap(name, { expected: taken.revision, record: renewed, takes: false })).swapped,
      );
      const refused = await other.swap(name, {
        expected: taken.revision,
        record: recordOf("b", 2),
        takes: true,
      });
      assert.ok(!refused.swapped);
      assert.deepEqual(refused.observation.record, renewed);
      assert.equal(await other.writeGuarded(name, 2, new Map([["k", "v"]])), false);
    },
  },

  {
    title: "values are written under the fence's token alone: all of them or none",
    hold: async (open) => {
      const [store, name] = [await open(), nextName()];
      assert.equal(await store.writeGuarded(name, 0, new Map([["early", "x"]])), false);
      const first = await store.swap(name, { expected: 0, record: recordOf("a", 1), takes: true });
      assert.ok(first.swapped);
      assert.equal(
        await store.writeGuarded(
          name,
          1,
          new Map([
            ["a/b", "1"],
            ["c", "ü\n"],
          ]),
        ),
        true,
      );
      assert.equal(await store.writeGuarded(name, 2, new Map([["c", "from tomorrow"]])), false);
      // A renewal is no new owner.
      const renewed = await store.swap(name, {
        expected: first.revision,
        record: { ...recordOf("a", 1), write: 2 },
        takes: false,
      });
      assert.ok(renewed.swapped);
      assert.equal(
        await store.writeGuarded(
          name,
          1,
          new Map<string, string | null>([
            ["a/b", null],
            ["d", ""],
          ]),
        ),
        true,
      );
      assert.deepEqual(await values(store, name), { c: "ü\n", d: "" });
      assert.ok(
        (await store.swap(name, { expected: renewed.revision, record: recordOf("b", 2), takes: true }))
          .swapped,
      );
      assert.equal(
        await store.writeGuarded(
          name,
          1,
          new Map<string, string | null>([
            ["c", "late"],
            ["d", null],
          ]),
        ),
        false,
      );
      assert.deepEqual(await values(store, name), { c: "ü\n", d: "" });
      assert.equal(await store.writeGuarded(name, 2, new Map([["c", "new"]])), true);
    },
  },

  {
    title: "giving back keeps the token, which the next owner raises",
    hold: async (open) => {
      const [store, name] = [await open(), nextName()];
      const taken = await store.swap(name, { expected: 0, record: recordOf("a", 7), takes: true });
      assert.ok(taken.swapped);
      const given = { ...recordOf("a", 7), node: null, next: "b" };
      const answer = await store.swap(name, { expected: taken.revision, record: given, takes: false });
      assert.ok(answer.swapped);
      assert.deepEqual((await store.read(name)).record, given);
      assert.equal(await store.writeGuarded(name, 7, new Map([["last words", "x"]])), true);
    },
  },

  {
    title: "no write with an old token is accepted once a takeover has been answered",
    hold: async (open) => {
      const [owner, other, name] = [await open(), await open(), nextName()];
      let { revision } = await take(owner, name, 0, 1);
      for (let token = 1; token <= 12; token++) {
        let accepted = "";
        let isTaken = false;
        const writing = (async () => {
          for (let count = 1; ; count++) {
            const afterTakeover: boolean = isTaken;
            const value = `${token}:${count}`;
            if (!(await owner.writeGuarded(name, token, new Map([["k", value]])))) return;
            assert.equal(afterTakeover, false, "accepted although it began after the takeover was answered");
            accepted = value;
          }
        })();
        revision = (await take(other, name, revision, token + 1)).revision;
        isTaken = true;
        await writing;
        if (accepted !== "") assert.equal((await other.readValues(name)).get("k"), accepted);
      }
    },
  },

  {
    title: "values are found by the beginning of their key, and the keys alone",
    hold: async (open) => {
      const [store, name] = [await open(), nextName()];
      await take(store, name, 0, 1);
      const written = ["a/1", "a/2", "a", "a0", "A/1", "a/\u00e9"].map((key) => [key, `of ${key}`] as const);
      assert.equal(await store.writeGuarded(name, 1, new Map(written)), true);
      const below = ["a/1", "a/2", "a/\u00e9"];
      assert.deepEqual([...(await store.readValues(name, "a/")).keys()].sort(), below);
      assert.equal((await store.readValues(name, "a/2")).get("a/2"), "of a/2");
      assert.deepEqual([...(await store.readValueKeys(name, "a/"))].sort(), below);
      assert.equal((await store.readValueKeys(name, "")).length, written.length);
    },
  },

  {
    title: "names and values of different virtual servers do not meet",
    hold: async (open) => {
      const [store, name] = [await open(), nextName()];
      const names = [name, `${name}x`, `${name}/owner`, `${name}/value/k`, name.toUpperCase()];
      for (const [index, each] of names.entries()) {
        await take(store, each, 0, index + 1);
        assert.equal(await store.writeGuarded(each, index + 1, new Map([["k", each]])), true);
      }
      for (const [index, each] of names.entries()) {
        assert.equal((await store.read(each)).record?.token, index + 1);
        assert.deepEqual(await values(store, each), { k: each });
      }
    },
  },

  {
    title: "tells of what others write, in order, and stops when told to",
    hold: async (open) => {
      const [store, other, name] = [await open(), await open(), nextName()];
      const revisions: number[] = [];
      const ending = new AbortController();
      const heard = new Map<number, () => void>();
      const watching = store.watch(
        name,
        ({ record, revision }) => {
          revisions.push(revision);
          heard.get(record?.write ?? 0)?.();
        },
        ending.signal,
      );
      let revision = 0;
      for (let write = 1; write <= 5; write++) {
        const told = new Promise<void>((resolve) => heard.set(write, resolve));
        const answer = await other.swap(name, {
          expected: revision,
          record: { ...recordOf("a", 1), write },
          takes: write === 1,
        });
        assert.ok(answer.swapped);
        revision = answer.revision;
        await told;
      }
      ending.abort();
      await watching;
      assert.deepEqual(
        revisions,
        [...new Set(revisions)].sort((a, b) => a - b),
      );
    },
  },
];

let names = 0;
const nextName = () => `vs ${process.pid}.${names++}`;

const recordOf = (node: string, token: number): LeaseRecord => ({
  node,
  instance: `${node}#1`,
  token,
  write: 1,
  next: null,
});

async function take(store: Coordination, name: string, expected: number, token: number) {
  const answer = await store.swap(name, { expected, record: recordOf(`owner ${token}`, token), takes: true });
  assert.ok(answer.swapped);
  return answer;
}

const values = async (store: Coordination, name: string) => Object.fromEntries(await store.readValues(name));

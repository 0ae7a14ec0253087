import assert from "node:assert/strict";
import { DOCUMENT_BYTES_MAX } from "@lockstep/cluster";
import type { CoordinationPromise } from "./coordination-contract.ts";

/** What every store promises for documents, whatever it is made of; each uses keys of its own. */
export const DOCUMENT_PROMISES: readonly CoordinationPromise[] = [
  {
    title: "a document is there once it is written, and its revision grows with every write of any document",
    hold: async (open) => {
      const [{ documents }, root] = [await open(), nextRoot()];
      assert.equal(await documents.read(`${root}a`), null);
      let before = 0;
      for (const [key, text] of [
        ["a", "1"],
        ["b", 'Knoten Ä 雪\n"x"'],
        ["a", ""],
        ["b", "3"],
        ["a/b%2f c", "4"],
      ] as const) {
        const present = await documents.read(root + key);
        const revision = await documents.write(root + key, present?.revision ?? 0, text);
        assert.ok(revision !== null && revision > before, `${revision} after ${before}`);
        assert.deepEqual(await documents.read(root + key), { text, revision });
        before = revision;
      }
    },
  },

  {
    title: "of many who change a document at the same moment one succeeds",
    hold: async (open) => {
      const [first, second, key] = [await open(), await open(), `${nextRoot()}k`];
      let revision = 0;
      for (let round = 0; round < 4; round++) {
        const answers = await Promise.all(
          Array.from({ length: 8 }, (_, index) =>
            (index % 2 === 0 ? first : second).documents.write(key, revision, `${round}:${index}`),
          ),
        );
        const winners = answers.flatMap((answer, index) => (answer === null ? [] : [{ answer, index }]));
        assert.equal(winners.length, 1);
        assert.deepEqual(await second.documents.read(key), {
          text: `${round}:${winners[0]?.index}`,
          revision: winners[0]?.answer,
        });
        revision = winners[0]?.answer ?? 0;
      }
    },
  },

  {
    title: "who has not seen the last write changes and deletes nothing",
    hold: async (open) => {
      const [{ documents }, key] = [await open(), `${nextRoot()}k`];
      const first = await documents.write(key, 0, "1");
      assert.ok(first !== null);
      const second = await documents.write(key, first, "2");
      assert.ok(second !== null);
      for (const expected of [0, first, second + 1_000_000]) {
        assert.equal(await documents.write(key, expected, "late"), null);
        assert.equal(await documents.write(key, expected, null), null);
      }
      assert.deepEqual(await documents.read(key), { text: "2", revision: second });
    },
  },

  {
    title: "a document that was deleted and written anew never has an old revision",
    hold: async (open) => {
      const [{ documents }, key] = [await open(), `${nextRoot()}k`];
      assert.ok((await documents.write(key, 0, null)) !== null);
      let before = 0;
      for (let round = 0; round < 3; round++) {
        const written = await documents.write(key, 0, "x");
        assert.ok(written !== null && written > before);
        const gone = await documents.write(key, written, null);
        assert.ok(gone !== null && gone > written);
        assert.equal(await documents.read(key), null);
        assert.equal(await documents.write(key, written, "late"), null);
        before = gone;
      }
    },
  },

  {
    title: "lists what begins with a prefix and nothing else",
    hold: async (open) => {
      const [{ documents }, root] = [await open(), nextRoot()];
      for (const key of ["a/1", "a/2", "a", "a0", "A/3", "a/ü", "b/1"])
        assert.ok((await documents.write(root + key, 0, `text of ${key}`)) !== null);
      const found = await documents.list(`${root}a/`);
      assert.deepEqual(
        [...found].map(([key, { text }]) => [key.slice(root.length), text]),
        [
          ["a/1", "text of a/1"],
          ["a/2", "text of a/2"],
          ["a/ü", "text of a/ü"],
        ],
      );
      assert.equal((await documents.list(`${root}c`)).size, 0);
    },
  },

  {
    title: "a list shows one moment, also a long one",
    hold: async (open) => {
      const [writer, reader, root] = [await open(), await open(), nextRoot()];
      // Two documents far apart; the second is always written after the first, so no moment has it ahead.
      const [early, late] = [`${root}0`, `${root}9`];
      await Promise.all(
        Array.from({ length: 90 }, (_, index) =>
          writer.documents.write(`${root}5/${String(index).padStart(3, "0")}`, 0, "x".repeat(1000)),
        ),
      );
      let isDone = false;
      const writing = (async () => {
        let [a, b] = [0, 0];
        for (let count = 1; count <= 40; count++) {
          a = (await writer.documents.write(early, a, String(count))) ?? 0;
          b = (await writer.documents.write(late, b, String(count))) ?? 0;
          assert.ok(a > 0 && b > a);
        }
      })().finally(() => {
        isDone = true;
      });
      let looks = 0;
      for (; !isDone; looks++) {
        const found = await reader.documents.list(root);
        const [first, second] = [found.get(early), found.get(late)].map((each) => Number(each?.text ?? 0));
        assert.ok(first !== undefined && second !== undefined);
        assert.ok(first === second || first === second + 1, `${first} beside ${second}`);
      }
      await writing;
      assert.ok(looks > 0);
      assert.equal((await reader.documents.list(root)).size, 92);
    },
  },

  {
    title: "holds documents of 512 KiB, several of them, and refuses larger ones",
    hold: async (open) => {
      const [{ documents }, root] = [await open(), nextRoot()];
      const text = "ü".repeat(DOCUMENT_BYTES_MAX / 2);
      for (let index = 0; index < 10; index++)
        assert.ok((await documents.write(`${root}${index}`, 0, text)) !== null);
      const found = await documents.list(root);
      assert.deepEqual(
        [...found.values()].map((each) => each.text === text),
        Array.from({ length: 10 }, () => true),
      );
      await assert.rejects(documents.write(`${root}x`, 0, `${text}.`), { code: "DOCUMENT_TOO_LARGE" });
      assert.equal(await documents.read(`${root}x`), null);
    },
  },

  {
    title: "tells that something below a prefix changed or went, and stops when told to",
    hold: async (open) => {
      const [store, other, root] = [await open(), await open(), nextRoot()];
      const ending = new AbortController();
      let seen = "";
      let wake = () => {};
      let [begun, shown] = [0, 0];
      const look = async () => {
        const number = ++begun;
        const found = await store.documents.list(`${root}a/`);
        // Of two looks at once the first may be answered last.
        if (number < shown) return;
        shown = number;
        seen = [...found].map(([key, { text }]) => `${key.slice(root.length)}=${text}`).join();
        wake();
      };
      const looks: Promise<void>[] = [];
      const watching = store.documents.watch(`${root}a/`, () => looks.push(look()), ending.signal);
      const untilSeen = async (wanted: string) => {
        while (seen !== wanted) await new Promise<void>((resolve) => (wake = resolve));
      };
      const first = (await other.documents.write(`${root}a/1`, 0, "x")) ?? 0;
      await untilSeen("a/1=x");
      assert.ok((await other.documents.write(`${root}a/2`, 0, "y")) !== null);
      await untilSeen("a/1=x,a/2=y");
      assert.ok((await other.documents.write(`${root}a/1`, first, null)) !== null);
      await untilSeen("a/2=y");
      ending.abort();
      await watching;
      await Promise.all(looks);
    },
  },
];

let roots = 0;
const nextRoot = () => `test/${process.pid}.${roots++}/`;

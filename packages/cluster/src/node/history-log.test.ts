import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { HISTORY_ENTRY } from "@lockstep/core";
import { silentLogger, systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { SimDocumentStore } from "@lockstep/testing";
import { HistoryLog } from "./history-log.ts";

async function open(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-history-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const store = new SimDocumentStore();
  const state = { isAway: false };
  const reach = () => {
    if (state.isAway) throw new LockstepError("COORDINATION_UNREACHABLE", "away");
  };
  const documents = {
    read: async (key: string) => {
      reach();
      return store.read(key);
    },
    list: async (prefix: string) => {
      reach();
      return store.list(prefix);
    },
    write: async (key: string, expected: number, text: string | null) => {
      reach();
      return store.write(key, expected, text);
    },
    watch: async () => {},
  };
  const begin = () =>
    new HistoryLog({ node: "alpha", documents, directory, clock: systemClock, log: silentLogger });
  const inStore = () => [...store.list("history/alpha/").keys()].map((key) => Number(key.slice(-12)));
  const inFile = async () =>
    (await readFile(join(directory, "history.jsonl"), "utf8"))
      .trimEnd()
      .split("\n")
      .map((line) => {
        const parsed = HISTORY_ENTRY.parse(line);
        assert.ok(parsed.ok);
        return `${parsed.value.number} ${parsed.value.what}`;
      });
  return { begin, inStore, inFile, state };
}

const news = (what: string) => ({ server: null, token: null, what, detail: "" });

test("entries are numbered through all lives, and the newest thousand are kept in the store", async (t) => {
  const { begin, inStore, inFile } = await open(t);
  const first = begin();
  for (let count = 1; count <= 600; count++) first.add(news(`a${count}`));
  await first.close(60_000);
  const second = begin();
  for (let count = 1; count <= 450; count++) second.add(news(`b${count}`));
  await second.close(60_000);
  const numbers = inStore();
  assert.deepEqual([numbers.length, numbers[0], numbers.at(-1)], [1000, 51, 1050]);
  const lines = await inFile();
  assert.deepEqual([lines.length, lines[0], lines.at(-1)], [1050, "1 a1", "1050 b450"]);
});

test("what the store does not take is in the file, and the numbers go on behind it", async (t) => {
  const { begin, inStore, inFile, state } = await open(t);
  const first = begin();
  first.add(news("before"));
  await first.close(60_000);
  state.isAway = true;
  const second = begin();
  second.add(news("lost"));
  second.add(news("ended"));
  await second.close(10);
  state.isAway = false;
  const third = begin();
  third.add(news("after"));
  // Added while the one before is being written: none may lie until the next.
  await systemClock.sleep(0);
  third.add(news("last"));
  await third.close(60_000);
  assert.deepEqual(inStore(), [1, 4, 5]);
  assert.deepEqual(await inFile(), ["1 before", "2 lost", "3 ended", "4 after", "5 last"]);
});

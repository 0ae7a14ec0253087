import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { DEFAULT_QUARANTINE, type NodeReport } from "@lockstep/core";
import { silentLogger, systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { SimDocumentStore } from "@lockstep/testing";
import { at, MEMBERS, REPORTS } from "../documents/addresses.ts";
import { ClusterDocuments } from "../documents/cluster-documents.ts";
import type { ClusterMirror } from "./cluster-mirror.ts";
import { ExitBook } from "./exit-book.ts";

/** The book of `node`, in which falls of alpha are written; two within an hour are too many. */
async function open(t: TestContext, node: string) {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-exits-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const store = new SimDocumentStore();
  const state = { now: 1_000_000, lostAnswers: 0, isReady: true };
  const documents = new ClusterDocuments({
    read: async (key) => store.read(key),
    list: async (prefix) => store.list(prefix),
    write: async (key, expected, text) => {
      const written = store.write(key, expected, text);
      if (state.lostAnswers-- > 0) throw new LockstepError("COORDINATION_UNREACHABLE", "away");
      return written;
    },
    watch: async () => {},
  });
  const member = {
    node: "alpha",
    address: "127.0.0.1:1",
    isPaused: false,
    exits: [],
    quarantinedUntil: null,
  };
  await documents.change(at(MEMBERS, "alpha"), () => member);
  const notes: string[] = [];
  let noted = () => {};
  const book = new ExitBook({
    ...{ node, directory, documents, log: silentLogger },
    mirror: {
      get isReady() {
        return state.isReady;
      },
      members: new Map(["alpha", "beta", "gamma"].map((each) => [each, { node: each }])),
      cluster: { quarantine: { ...DEFAULT_QUARANTINE, exits: 2 } },
      refresh: () => {},
    } as unknown as ClusterMirror,
    clock: { ...systemClock, now: () => state.now, sleep: (_, signal) => systemClock.sleep(1, signal) },
    note: ({ what, detail }) => {
      notes.push(`${what}: ${detail}`);
      noted();
    },
  });
  const untilNoted = async (count: number) => {
    while (notes.length < count) await new Promise<void>((resolve) => (noted = resolve));
  };
  const exits = async () => (await documents.read(at(MEMBERS, "alpha")))?.exits;
  return { directory, documents, state, book, notes, untilNoted, exits };
}

const wasLost = (server: string) => `node-exit: alpha dropped out: it was lost as owner of ${server}`;

test("a fall is counted once, however long the lease was waited out by whoever tells of it", async (t) => {
  const { state, book, notes, untilNoted, exits } = await open(t, "beta");
  book.lost("alpha", "ONE", 10_000);
  await untilNoted(1);
  state.now += 50_000;
  book.lost("alpha", "TWO", 60_500);
  // Another fall, and one too many.
  book.lost("alpha", "THREE", 0);
  await untilNoted(3);
  await book.close();
  assert.deepEqual(await exits(), [990_000, 1_050_000]);
  assert.deepEqual(notes.slice(0, 2), [wasLost("ONE"), wasLost("THREE")]);
  assert.match(notes[2] ?? "", /^quarantined: alpha dropped out too often/);
});

test("a fall that was written down without an answer is told of all the same, once", async (t) => {
  const { state, book, notes, untilNoted, exits } = await open(t, "beta");
  for (const [index, server] of ["ONE", "TWO"].entries()) {
    state.lostAnswers = 1;
    state.now += 100_000;
    book.lost("alpha", server, 0);
    await untilNoted(index + 1);
  }
  await untilNoted(3);
  await book.close();
  assert.deepEqual(await exits(), [1_100_000, 1_200_000]);
  assert.deepEqual(notes.slice(0, 2), [wasLost("ONE"), wasLost("TWO")]);
  assert.match(notes[2] ?? "", /^quarantined: alpha dropped out too often/);
});

test("a daemon that did not end in order fell when its former life said last that it was there", async (t) => {
  const { directory, documents, state, book, notes, untilNoted, exits } = await open(t, "alpha");
  const report = (instance: string, now: number): NodeReport => ({
    ...{ node: "alpha", instance, beat: 1, version: "1", configHashes: {}, revisions: {}, at: now },
    ...{ measured: { stopMs: 0, guardDelayMs: 0, callMs: 0 }, servers: {} },
  });
  await writeFile(join(directory, "running"), "");
  await documents.change(at(REPORTS, "alpha"), () => report("alpha#1", 700_000));
  state.isReady = false;
  await book.begin();
  await documents.change(at(REPORTS, "alpha"), () => report("alpha#2", state.now));
  state.isReady = true;
  await untilNoted(1);
  await book.close();
  assert.deepEqual(await exits(), [700_000]);
  assert.deepEqual(notes, ["node-exit: alpha dropped out: its daemon did not end in order"]);
});

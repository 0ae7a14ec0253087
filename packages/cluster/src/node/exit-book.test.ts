import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { silentLogger, systemClock } from "@lockstep/platform";
import { SimDocumentStore } from "@lockstep/testing";
import { at, MEMBERS } from "../documents/addresses.ts";
import { ClusterDocuments } from "../documents/cluster-documents.ts";
import type { ClusterMirror } from "./cluster-mirror.ts";
import { ExitBook } from "./exit-book.ts";

test("a fall is counted once, however long the lease was waited out by whoever tells of it", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-exits-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const store = new SimDocumentStore();
  const documents = new ClusterDocuments({
    read: async (key) => store.read(key),
    list: async (prefix) => store.list(prefix),
    write: async (key, expected, text) => store.write(key, expected, text),
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
  let now = 1_000_000;
  const [notes, noted] = [[] as string[], { tell: () => {} }];
  const book = new ExitBook({
    ...{ node: "beta", directory, documents, log: silentLogger },
    mirror: {
      isReady: true,
      members: new Map(),
      cluster: null,
      refresh: () => {},
    } as unknown as ClusterMirror,
    clock: { ...systemClock, now: () => now },
    note: ({ detail }) => {
      notes.push(detail);
      noted.tell();
    },
  });
  const lost = async (server: string, silentMs: number) => {
    const told = new Promise<void>((resolve) => {
      noted.tell = resolve;
    });
    book.lost("alpha", server, silentMs);
    await told;
  };
  await lost("ONE", 10_000);
  now += 50_000;
  book.lost("alpha", "TWO", 60_500);
  // Another fall.
  await lost("THREE", 0);
  await book.close();
  const { exits } = (await documents.read(at(MEMBERS, "alpha"))) ?? {};
  assert.deepEqual(exits, [990_000, 1_050_000]);
  assert.deepEqual(
    notes.map((each) => each.slice(-3)),
    ["ONE", "REE"],
  );
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { DEFAULT_VIRTUAL_SERVER, type DrillOrder } from "@lockstep/core";
import { silentLogger, systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { SimDocumentStore } from "@lockstep/testing";
import type { Coordination } from "../coordination/coordination.ts";
import { at, DRILLS, SERVERS } from "../documents/addresses.ts";
import { ClusterDocuments } from "../documents/cluster-documents.ts";
import { followDrills } from "./drill-desk.ts";

const order: DrillOrder = {
  ...{ server: "APP", loss: "service", node: "alpha", instance: "alpha#1", token: 3, lastsMs: 0 },
  ...{ state: "ordered", problem: null, by: "me", at: 1 },
};

/** What becomes of an order where the store loses these calls: reading the lease, or the answer to the claim. */
async function follow(lost: ("lease" | "claim")[]): Promise<{ order: DrillOrder | null; notes: string[] }> {
  const store = new SimDocumentStore();
  const away = () => new LockstepError("COORDINATION_UNREACHABLE", "away");
  const isLost = (call: "lease" | "claim") => lost[0] === call && lost.shift() !== undefined;
  const record = { node: "alpha", instance: "alpha#1", token: 3, write: 1, next: null };
  const coordination = {
    documents: {
      read: async (key: string) => store.read(key),
      list: async (prefix: string) => store.list(prefix),
      write: async (key: string, expected: number, text: string | null) => {
        const written = store.write(key, expected, text);
        if (key === at(DRILLS, "APP").key && isLost("claim")) throw away();
        return written;
      },
      watch: (_: string, __: unknown, signal: AbortSignal) =>
        new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true })),
    },
    read: async () => {
      if (isLost("lease")) throw away();
      return { record, revision: 1 };
    },
  } as unknown as Coordination;
  store.write(at(SERVERS, "APP").key, 0, SERVERS.kind.format({ ...DEFAULT_VIRTUAL_SERVER, name: "APP" }));
  store.write(at(DRILLS, "APP").key, 0, DRILLS.kind.format(order));
  const ending = new AbortController();
  const notes: string[] = [];
  await followDrills(
    {
      ...{ node: "alpha", instance: "alpha#1", store: coordination, directory: "/nonexistent" },
      coordination: { store: "etcd", endpoints: [], callMs: 1 },
      ...{ clock: systemClock, log: silentLogger },
      note: ({ detail }) => {
        notes.push(detail);
        ending.abort();
      },
    },
    ending.signal,
  );
  return { order: await new ClusterDocuments(coordination.documents).read(at(DRILLS, "APP")), notes };
}

test("an order that a store kept from being carried out for a moment is carried out all the same", async () => {
  const problem = "it has no resource of type generic-service";
  for (const lost of [[], ["lease"], ["lease", "lease"], ["claim"], ["lease", "claim"]] as const) {
    const { order: left, notes } = await follow([...lost]);
    assert.deepEqual([left?.state, left?.problem], ["refused", problem], lost.join());
    assert.deepEqual(notes, [`service refused: ${problem}`]);
  }
});

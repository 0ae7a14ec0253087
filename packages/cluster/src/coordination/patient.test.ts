import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { LockstepError } from "@lockstep/protocol/wire";
import { SimDocumentStore } from "@lockstep/testing";
import type { Coordination } from "./coordination.ts";
import { patientCoordination } from "./patient.ts";

const away = () => new LockstepError("COORDINATION_UNREACHABLE", "away");

/** A store whose next calls end as `next` says: lost before they happened, lost after it, or carried out. */
function open(next: ("before" | "after")[]) {
  const store = new SimDocumentStore();
  const state = { now: 0, told: 0, writes: 0, swaps: 0 };
  const through = async <T>(call: () => T): Promise<T> => {
    const fate = next.shift();
    if (fate === "before") throw away();
    const answer = call();
    if (fate === "after") throw away();
    return answer;
  };
  const inner = {
    documents: {
      read: (key: string) => through(() => store.read(key)),
      list: (prefix: string) => through(() => store.list(prefix)),
      write: (key: string, expected: number, text: string | null) =>
        through(() => {
          state.writes += 1;
          return store.write(key, expected, text);
        }),
    },
    read: () => through(() => ({ record: null, revision: 7 })),
    readValues: () => through(() => new Map([["/k", "v"]])),
    readValueKeys: () => through(() => ["/k"]),
    writeGuarded: () =>
      through(() => {
        state.swaps += 1;
        return true;
      }),
    swap: () =>
      through(() => {
        state.swaps += 1;
        return { swapped: true, revision: 1 };
      }),
  } as unknown as Coordination;
  const patient = patientCoordination(inner, {
    clock: {
      monotonic: () => state.now,
      sleep: async (ms: number) => {
        state.now += ms;
      },
    },
    patienceMs: 1000,
    tell: () => {
      state.told += 1;
    },
  });
  return { store, state, patient };
}

suite("a store for commands", () => {
  test("asks again what was not answered, and says so once", async () => {
    const { patient, state, store } = open(["before", "before", "before", "after"]);
    store.write("a", 0, "1");
    assert.equal((await patient.documents.read("a"))?.text, "1");
    assert.deepEqual([...(await patient.documents.list("")).keys()], ["a"]);
    assert.equal((await patient.read("APP")).revision, 7);
    assert.equal(state.told, 1);
    for (const fate of ["before", "after"] as const) {
      const values = open([fate]);
      assert.deepEqual([...(await values.patient.readValues("APP"))], [["/k", "v"]]);
      const listed = open([fate]);
      listed.store.write("a", 0, "1");
      assert.deepEqual([...(await listed.patient.documents.list("")).keys()], ["a"]);
      const keys = open([fate]);
      assert.deepEqual(await keys.patient.readValueKeys("APP", ""), ["/k"]);
    }
  });

  test("gives up when its patience is over, and a fault of another kind at once", async () => {
    const { patient, state } = open(Array<"before">(50).fill("before"));
    await assert.rejects(patient.documents.read("a"), { code: "COORDINATION_UNREACHABLE" });
    assert.ok(state.now >= 1000 && state.now < 2000, `${state.now} ms`);
    const other = new Error("not of the store");
    const broken = patientCoordination({ read: () => Promise.reject(other) } as unknown as Coordination, {
      clock: { monotonic: () => 0, sleep: () => assert.fail("it waited") },
    });
    await assert.rejects(broken.read("APP"), other);
  });

  test("a write that happened although its answer was lost is not taken for somebody else's", async () => {
    const { patient, state, store } = open(["after"]);
    const revision = await patient.documents.write("a", 0, "mine");
    assert.equal(revision, store.read("a")?.revision);
    assert.equal(state.writes, 2);
    const gone = open(["after"]);
    const kept = gone.store.write("a", 0, "old") ?? 0;
    assert.notEqual(await gone.patient.documents.write("a", kept, null), null);
    assert.equal(gone.store.read("a"), null);
  });

  test("a write that did not happen is repeated; where somebody was faster it says so", async () => {
    const lost = open(["before"]);
    assert.notEqual(await lost.patient.documents.write("a", 0, "mine"), null);
    assert.equal(lost.store.read("a")?.text, "mine");
    const { patient, store } = open(["before"]);
    store.write("a", 0, "theirs");
    assert.equal(await patient.documents.write("a", 0, "mine"), null);
    assert.equal(store.read("a")?.text, "theirs");
    assert.equal(await patient.documents.write("a", 0, "theirs"), null, "not ours: it was not repeated");
  });

  test("a swap of a lease and a guarded write are never repeated", async () => {
    const { patient, state } = open(["after"]);
    await assert.rejects(patient.swap("APP", { expected: 0, record: {} as never, takes: true }), {
      code: "COORDINATION_UNREACHABLE",
    });
    assert.equal(state.swaps, 1);
    const guarded = open(["after"]);
    await assert.rejects(guarded.patient.writeGuarded("APP", 1, new Map()), {
      code: "COORDINATION_UNREACHABLE",
    });
    assert.equal(guarded.state.swaps, 1);
  });
});

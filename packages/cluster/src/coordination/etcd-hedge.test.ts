import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import type { LeaseRecord } from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import type { SwapAnswer } from "./coordination.ts";
import { openEtcd } from "./etcd.ts";
import { askBeside, type Standing, swapBeside } from "./etcd-hedge.ts";
import { formatRecord } from "./record-text.ts";

const never = <T>() => new Promise<T>(() => {});
/** Far above what is needed. */
const TOO_LATE = 120_000;

function asking(answers: Readonly<Record<string, readonly (string | Error | null)[]>>) {
  const [asked, silent]: [string[], string[]] = [[], []];
  const ask = async (member: string): Promise<string> => {
    const answer = answers[member]?.[asked.filter((each) => each === member).length] ?? null;
    asked.push(member);
    if (answer === null) return await never<string>();
    if (typeof answer === "string") return answer;
    throw answer;
  };
  const options = {
    silent: (member: string) => void silent.push(member),
    judge: (error: unknown) => (error as Error).message as "next" | "again" | "final",
    signal: AbortSignal.timeout(TOO_LATE),
    hedgeMs: 20,
    monotonic: () => 0,
  };
  return { asked, silent, answer: askBeside(Object.keys(answers), ask, options) };
}

test("a member that says nothing has another one asked beside it, and is told of", async () => {
  const { asked, silent, answer } = asking({ near: [null], far: ["far"], third: ["third"] });
  assert.equal(await answer, "far");
  assert.deepEqual([asked, silent], [["near", "far"], ["near"]]);
});

test("one that cannot answer yet is asked again, one that is not there is not", async () => {
  const yet = asking({ near: [new Error("again"), "near"], far: [null] });
  assert.equal(await yet.answer, "near");
  assert.deepEqual(yet.asked, ["near", "near"]);
  const gone = asking({ near: [new Error("next")], far: [new Error("next")] });
  await assert.rejects(gone.answer, /next/);
  assert.deepEqual(gone.asked, ["near", "far"]);
});

test("what no other member would answer differently ends it", async () => {
  const { asked, answer } = asking({ near: [new Error("final")], far: ["far"] });
  await assert.rejects(answer, /final/);
  assert.deepEqual(asked, ["near"]);
});

const SWAPPED: SwapAnswer = { swapped: true, revision: 7 };

/** A swap whose first copy is never answered. */
function swapping(
  look: (looks: number, standing: Standing) => SwapAnswer | null,
  first = never<SwapAnswer>(),
) {
  const standing = { term: 2, first: "near" };
  const counts = { sends: 0, looks: 0 };
  const answer = swapBeside({
    send: async () => {
      counts.sends += 1;
      return counts.sends === 1 ? await first : SWAPPED;
    },
    look: async () => {
      counts.looks += 1;
      return look(counts.looks, standing);
    },
    standing: () => ({ ...standing }),
    isWanted: () => true,
  });
  return { standing, counts, answer };
}

test("a swap is sent again when the leader has changed, or another member had to answer", async () => {
  for (const change of [{ term: 3 }, { first: "far" }]) {
    const { counts, answer } = swapping((_looks, standing) => {
      Object.assign(standing, change);
      return null;
    });
    assert.deepEqual(await answer, SWAPPED);
    assert.deepEqual(counts, { sends: 2, looks: 1 });
  }
});

test("a swap that a slow disk holds up is not sent again", async () => {
  const slow = Promise.withResolvers<SwapAnswer>();
  const { counts, answer } = swapping((looks) => {
    if (looks === 3) slow.resolve(SWAPPED);
    return null;
  }, slow.promise);
  assert.deepEqual(await answer, SWAPPED);
  assert.deepEqual(counts, { sends: 1, looks: 3 });
});

test("a swap that failed is sent again only when it is seen not to have happened", async () => {
  const failed = () => Promise.reject<SwapAnswer>(new Error("broken off"));
  const again = swapping(() => null, failed());
  assert.deepEqual(await again.answer, SWAPPED);
  assert.equal(again.counts.sends, 2);
  const unseen = swapping(() => {
    throw new Error("nobody answers");
  }, failed());
  await assert.rejects(unseen.answer, /broken off/);
  assert.equal(unseen.counts.sends, 1);
});

test("a swap that a full store refuses each time fails, and is not sent again without an end", async () => {
  let sends = 0;
  const answer = swapBeside({
    send: async () => {
      sends += 1;
      throw new Error("no space");
    },
    look: async () => null,
    standing: () => ({ term: 2, first: "near" }),
    isWanted: () => sends < 100,
  });
  await assert.rejects(answer, /no space/);
  assert.equal(sends, 3);
});

const RECORD: LeaseRecord = { node: "a", instance: "a#1", token: 4, write: 9, next: null };
const header = (term: number, revision: number) => ({ raft_term: String(term), revision: String(revision) });
const stored = (record: LeaseRecord, revision: number) => ({
  key: Buffer.from("owner").toString("base64"),
  value: Buffer.from(formatRecord(record)).toString("base64"),
  mod_revision: String(revision),
});

/** A member of etcd that answers as it is told; null: not at all. */
async function member(t: TestContext, answer: (path: string) => object | null): Promise<string> {
  const server: Server = createServer((request, response) => {
    request.resume();
    const said = answer(request.url ?? "");
    if (said !== null) response.end(JSON.stringify(said));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test("a swap that went along with a dead leader happens as soon as there is another one", async (t) => {
  let swaps = 0;
  const endpoint = await member(t, (path) => {
    if (path === "/v3/kv/range") return { header: header(3, 5), kvs: [stored({ ...RECORD, write: 8 }, 5)] };
    swaps += 1;
    return swaps === 1 ? null : { header: header(3, 6), succeeded: true };
  });
  const store = openEtcd({ endpoints: [endpoint], callMs: TOO_LATE, clock: systemClock });
  t.after(() => store.close());
  const answer = await store.swap("vs", { expected: 5, record: RECORD, takes: true });
  assert.deepEqual(answer, { swapped: true, revision: 6 });
  assert.equal(swaps, 2);
});

test("a copy that is refused because the other one has happened is no refusal", async (t) => {
  const kvs = [stored(RECORD, 6)];
  const endpoint = await member(t, () => ({
    header: header(3, 6),
    // Of a look.
    kvs,
    // Of the swap.
    responses: [{ response_range: { kvs } }],
  }));
  const store = openEtcd({ endpoints: [endpoint], callMs: TOO_LATE, clock: systemClock });
  t.after(() => store.close());
  const answer = await store.swap("vs", { expected: 5, record: RECORD, takes: false });
  assert.deepEqual(answer, { swapped: true, revision: 6 });
});

test("a swap gets past a member that is frozen", async (t) => {
  const frozen = await member(t, () => null);
  const other = await member(t, (path) =>
    path === "/v3/kv/range"
      ? { header: header(2, 5), kvs: [stored({ ...RECORD, write: 8 }, 5)] }
      : { header: header(2, 6), succeeded: true },
  );
  const clock = { ...systemClock, monotonic: () => 0 };
  const store = openEtcd({ endpoints: [frozen, other], callMs: TOO_LATE, clock });
  t.after(() => store.close());
  const answer = await store.swap("vs", { expected: 5, record: RECORD, takes: false });
  assert.deepEqual(answer, { swapped: true, revision: 6 });
});

test("settings are read past a member that is frozen: a takeover waits for them", async (t) => {
  const frozen = await member(t, () => null);
  const key = Buffer.from("lockstep/vs/vs/value/one").toString("base64");
  const other = await member(t, () => ({
    header: header(2, 5),
    kvs: [{ key, value: Buffer.from("1").toString("base64"), mod_revision: "5" }],
  }));
  const opened = () => {
    const store = openEtcd({ endpoints: [frozen, other], callMs: TOO_LATE, clock: systemClock });
    t.after(() => store.close());
    return store;
  };
  assert.deepEqual(await opened().readValueKeys("vs", ""), ["one"]);
  assert.deepEqual(await opened().readValues("vs"), new Map([["one", "1"]]));
});

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type Clock, type GatheredAnswer, silentLogger } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { HeldReports } from "./held-reports.ts";
import { ReportSpool } from "./report-spool.ts";

/** A clock that goes when it is told to; nothing here sleeps. */
class HandClock implements Clock {
  ms = 1_000_000;
  now = () => this.ms;
  monotonic = () => this.ms;
  sleep = () => Promise.reject(new Error("nobody sleeps here"));
}

const OPTIONS = { holdMs: 60_000, quietMs: 10_000 };
const TOKEN = "Bearer a-token-that-nobody-may-read";

async function hold(t: TestContext, clock = new HandClock(), directory?: string) {
  const place = directory ?? mkdtempSync(join(tmpdir(), "lockstep-held-"));
  if (directory === undefined) t.after(() => rmSync(place, { recursive: true, force: true }));
  const held = new HeldReports(await ReportSpool.open(place), clock, silentLogger, OPTIONS);
  const put = (installation: string, body = "{}", authorization: string | null = TOKEN) =>
    held.put({ installation, authorization, body });
  return { held, put, clock, place };
}

const ALONE = { count: 0, sizeBytes: 0 };
const answer = (status: number, body = ""): PromiseSettledResult<GatheredAnswer> => ({
  status: "fulfilled",
  value: { status, type: "", body, retryAfter: null },
});
const refusal = (code: "HUB_UNREACHABLE" | "REQUEST_INVALID"): PromiseSettledResult<GatheredAnswer> => ({
  status: "rejected",
  reason: new LockstepError(code, "so it is"),
});

test("what comes is sent when nothing came for a while, at the latest after the whole time, and at once when it is full", async (t) => {
  const { held, put, clock } = await hold(t);
  assert.equal(held.dueInMs(), null);
  await put("a");
  assert.equal(held.dueInMs(), 10_000);
  for (let n = 0; n < 7; n++) {
    clock.ms += 8_000;
    await put(`b-${n}`);
  }
  assert.equal(held.dueInMs(), 4_000, "56 s have gone");
  clock.ms += 4_000;
  assert.equal(held.dueInMs(), 0);
  const taken = held.take(ALONE);
  assert.deepEqual(
    taken.reports.map(({ installation, ageSeconds }) => [installation, ageSeconds]),
    [
      ["a", 60],
      ["b-0", 52],
      ["b-1", 44],
      ["b-2", 36],
      ["b-3", 28],
      ["b-4", 20],
      ["b-5", 12],
      ["b-6", 4],
    ],
  );
  assert.equal(held.dueInMs(), null, "nothing is sent twice at once");
  taken.settle(taken.reports.map(() => answer(204)));
  assert.equal(held.dueInMs(), null);
  for (let n = 0; n < 127; n++) await put(`c-${n}`);
  assert.notEqual(held.dueInMs(), 0);
  await put("c-127");
  assert.equal(held.dueInMs(), 0);
  assert.equal(held.take({ count: 100, sizeBytes: 0 }).reports.length, 28, "beside others");
});

test("of one installation the last counts, also when the one before is under way", async (t) => {
  const { held, put } = await hold(t);
  await put("a", "1");
  await put("a", "2");
  const first = held.take(ALONE);
  assert.deepEqual(
    first.reports.map(({ body }) => body),
    ["2"],
  );
  await put("a", "3");
  first.settle([answer(204)]);
  const second = held.take(ALONE);
  assert.deepEqual(
    second.reports.map(({ body }) => body),
    ["3"],
  );
  second.settle([answer(204)]);
  assert.deepEqual(held.take(ALONE).reports, []);
});

test("what the hub has not answered to stays and is sent again later, what it refused does not", async (t) => {
  const { held, put, clock } = await hold(t);
  for (const id of ["accepted", "busy", "invalid", "refused", "silent", "unreachable"]) await put(id);
  const taken = held.take(ALONE);
  taken.settle([
    answer(204),
    answer(503),
    refusal("REQUEST_INVALID"),
    answer(403, '{"error":{"code":"AUTHENTICATION_FAILED","message":"no"}}'),
    null,
    refusal("HUB_UNREACHABLE"),
  ]);
  assert.equal(held.dueInMs(), 30_000);
  clock.ms += 30_000;
  assert.equal(held.dueInMs(), 0);
  const again = held.take(ALONE);
  assert.deepEqual(
    again.reports.map(({ installation }) => installation),
    ["busy", "silent", "unreachable"],
  );
  again.settle(again.reports.map(() => null));
  assert.equal(held.dueInMs(), 60_000, "longer each time");
  clock.ms += 86_400_000;
  assert.deepEqual(held.take(ALONE).reports, [], "a day later they are nobody's present state");
});

test("who dies finds what was taken, and no token in it: it goes on when the token is shown again", async (t) => {
  const { put, place, clock } = await hold(t);
  assert.equal(await put("a", '{"n":1}'), true);
  assert.equal(await put("b", '{"n":2}', null), true);
  const path = join(place, "a.json");
  assert.ok(!readFileSync(path, "utf8").includes("nobody-may-read"));
  assert.equal(statSync(path).mode & 0o777, 0o600);
  for (const [name, text] of [
    ["c.json.new", '{"format":"lockstep-rep'],
    ["d.json", "rubbish"],
    ["e.json", readFileSync(path, "utf8")],
  ] as const)
    writeFileSync(join(place, name), text);
  clock.ms += 5_000;
  const { held } = await hold(t, clock, place);
  assert.deepEqual(readdirSync(place).sort(), ["a.json", "b.json"]);
  assert.deepEqual(held.take(ALONE).reports, [
    { installation: "b", authorization: null, body: '{"n":2}', ageSeconds: 5 },
  ]);
  assert.equal(held.learn(undefined), false);
  assert.equal(held.learn("Bearer another"), false);
  assert.equal(held.learn(TOKEN), true);
  assert.deepEqual(held.take(ALONE).reports, [
    { installation: "a", authorization: TOKEN, body: '{"n":1}', ageSeconds: 5 },
  ]);
});

test("one to which the hub cannot answer now keeps no other waiting", async (t) => {
  const { held, put, clock } = await hold(t);
  const sent = () => {
    const taken = held.take(ALONE);
    return { ids: taken.reports.map(({ installation }) => installation), settle: taken.settle };
  };
  for (const id of ["a", "b", "c"]) await put(id);
  // The last is no word of a hub.
  sent().settle([answer(500), answer(204), answer(404, "<html>")]);
  await put("d");
  assert.equal(held.dueInMs(), 10_000);
  clock.ms += 10_000;
  const other = sent();
  assert.deepEqual(other.ids, ["d"]);
  other.settle([answer(204)]);
  assert.equal(held.dueInMs(), 20_000);
  clock.ms += 20_000;
  assert.equal(held.dueInMs(), 0);
  const again = sent();
  assert.deepEqual(again.ids, ["a", "c"]);
  again.settle([answer(500), answer(204)]);
  assert.equal(held.dueInMs(), 60_000, "longer each time");
});

test("one that waits for its token waits no longer than any, and of a clock that went back none is new", async (t) => {
  const { put, place, clock } = await hold(t);
  await put("a");
  clock.ms += 50_000_000;
  await put("b");
  clock.ms += 50_000_000;
  const { held, put: putNow } = await hold(t, clock, place);
  // One change of the directory after the other.
  await putNow("c");
  assert.deepEqual(readdirSync(place).sort(), ["b.json", "c.json"], "a is older than a day");
  clock.ms -= 60_000_000;
  const after = await hold(t, clock, place);
  after.held.learn(TOKEN);
  assert.deepEqual(
    after.held.take(ALONE).reports.map(({ installation, ageSeconds }) => [installation, ageSeconds]),
    [
      ["b", 82_800],
      ["c", 82_800],
    ],
  );
  clock.ms += 200_000_000;
  assert.deepEqual(held.take(ALONE).reports, []);
  assert.equal(held.find("b"), null, "whose token nobody showed here");
});

test("what cannot be kept is not taken", async (t) => {
  const { held, put, place } = await hold(t);
  assert.equal(await put("a", "x".repeat(32 * 1024 + 1)), false, "it has to travel by itself");
  assert.equal(await put("..", "{}"), false);
  rmSync(place, { recursive: true });
  assert.equal(await put("b"), false, "the disk did not take it");
  assert.equal(held.dueInMs(), null);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  DEFAULT_RESOURCE_POLICY,
  DEFAULT_VIRTUAL_SERVER,
  type HistoryEntry,
  type NodeReport,
} from "@lockstep/core";
import type { ClusterSession } from "../commands/cluster-session.ts";
import { Follower, isOnline } from "./follow.ts";
import { findPassedMoves } from "./prediction.ts";

const entry = (number: number, what: string, node: string, token: number): HistoryEntry => ({
  ...{ node, number, at: number * 10, server: "APP", token, what, detail: "" },
});
const LEFT = entry(1, "offline-begins", "alpha", 1);
const CAME = entry(1, "online", "beta", 2);

/** Beta owns it and reports it online; of the history the next look finds what is next here, in the end all. */
async function follow(histories: HistoryEntry[][]) {
  const service = { name: "service", type: "generic-service" as const, settings: {} };
  const definition = {
    ...DEFAULT_VIRTUAL_SERVER,
    name: "APP",
    resources: [{ ...service, policy: DEFAULT_RESOURCE_POLICY }],
  };
  const resources = { service: { phase: "online", problem: null } };
  const report = { node: "beta", servers: { APP: { role: "owner", token: 2, resources } } };
  const record = { node: "beta", instance: "beta#1", token: 2, write: 1, next: null };
  const session = {
    api: { SERVERS: "server", FAILOVERS: "failover", ORDERS: "order", at: (kind: string) => kind },
    coordination: { read: async () => ({ record, revision: 1 }) },
    documents: {
      read: async (kind: string) => (kind === "server" ? definition : null),
      reports: async () => ({ found: new Map([["beta", report as unknown as NodeReport]]) }),
      history: async () => (histories.length > 1 ? histories.shift() : histories[0]) ?? [],
    },
    output: { note: () => {}, paintRemark: (_style: string, text: string) => text },
    signal: new AbortController().signal,
  } as unknown as ClusterSession;
  const follower = await Follower.begin(session, "APP");
  const { news } = await follower.until({
    ...{ server: "APP", timeoutMs: 60_000, goal: "APP is online" },
    isDone: isOnline,
    isTold: (moment) => findPassedMoves(moment.news, "APP").length > 0,
  });
  return news;
}

test("a report that is faster than the history cuts no step off", async () => {
  assert.deepEqual(await follow([[], [], [LEFT], [LEFT], [LEFT, CAME]]), [LEFT, CAME]);
});

test("what stood there before is no step", async () => {
  const before = entry(1, "online", "alpha", 1);
  const left = { ...LEFT, number: 2 };
  assert.deepEqual(await follow([[before], [before, left, CAME]]), [left, CAME]);
});

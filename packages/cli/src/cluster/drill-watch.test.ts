import assert from "node:assert/strict";
import test from "node:test";
import type { LeaseRecord, NodeReport, ServerReport } from "@lockstep/core";
import type { ClusterSession } from "../commands/cluster-session.ts";
import { DrillWatch } from "./drill-watch.ts";

const record: LeaseRecord = { node: "beta", instance: "beta#1", token: 12, write: 1, next: null };

/** What alpha says, after beta took over under token 12; each look sees what it said last. */
async function claimsOf(roles: readonly ServerReport["role"][]): Promise<string[]> {
  let beat = 1;
  let role: ServerReport["role"] = "owner";
  const report = (): NodeReport => ({
    ...{ node: "alpha", instance: "alpha#1", beat, version: "1", configHashes: {}, revisions: {}, at: 0 },
    measured: { stopMs: 0, guardDelayMs: 0, callMs: 0 },
    servers: { APP: { role, token: role === "owner" ? 11 : null, resources: {} } },
  });
  const session = {
    api: { at: (prefix: string, name: string) => `${prefix}/${name}` },
    coordination: { read: async () => ({ record, revision: 1 }) },
    documents: {
      read: async () => null,
      members: async () => ({ found: new Map() }),
      reports: async () => ({ found: new Map([["alpha", report()]]) }),
      history: async () => [],
    },
  } as unknown as ClusterSession;
  const watch = await DrillWatch.begin(session, "APP", 0);
  await watch.look();
  for (const next of roles) {
    beat += 1;
    role = next;
    await watch.look();
  }
  return [...watch.claims];
}

test("who goes on saying that he owns what has passed on is found", async () => {
  assert.deepEqual(await claimsOf(["owner", "owner"]), ["alpha said with token 11 that it owns, beside 12"]);
});

test("what was on the line to the store before, and arrives when it is back, is no claim", async () => {
  assert.deepEqual(await claimsOf(["owner", "fenced", "owner", "observing"]), []);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { EtcdGateway } from "./etcd-gateway.ts";
import { encode } from "./etcd-values.ts";
import { followRange } from "./etcd-watch.ts";

test("something that cannot be read is passed over once it was corrected", async () => {
  const writes = [
    { revision: 2, value: "broken" },
    { revision: 3, value: "good" },
  ];
  const ending = new AbortController();
  const gateway = {
    forgetToken: () => {},
    stream: async function* (_: string, body: { create_request: { start_revision: string } }) {
      const start = Number(body.create_request.start_revision);
      for (const { revision, value } of writes)
        if (revision >= start)
          yield {
            result: {
              header: { revision: String(revision) },
              events: [{ kv: { key: encode("k"), value: encode(value), mod_revision: String(revision) } }],
            },
          };
      if (ending.signal.aborted) return;
      await new Promise((resolve) => ending.signal.addEventListener("abort", resolve, { once: true }));
    },
  } as unknown as EtcdGateway;
  let looks = 0;
  await followRange(
    gateway,
    systemClock,
    { key: encode("k") },
    // The first look is older than both writes, the second one newer.
    async () => {
      looks += 1;
      if (looks > 1) ending.abort();
      return looks === 1 ? 1 : 3;
    },
    (written) => {
      for (const { value } of written)
        if (value === "broken") throw new LockstepError("COORDINATION_ANSWER_INVALID", "no record");
    },
    ending.signal,
  );
  assert.equal(looks, 2);
});

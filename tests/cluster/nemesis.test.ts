import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { whyNoLab } from "../support/lab.ts";
import { NEMESES } from "./nemesis-faults.ts";
import { runNemesis } from "./nemesis-run.ts";
import { judgeNemesis } from "./nemesis-sweep.ts";

/** All of them, ten rounds each: `npm run sim -- --nemesis`. */
suite("faults of a cluster on hosts", { skip: whyNoLab("etcd", "arping", "curl") ?? false }, () => {
  for (const nemesis of NEMESES.filter(({ isQuick }) => isQuick === true))
    test(`${nemesis.name}: two rounds break no invariant`, async () => {
      const history = await runNemesis(nemesis, { rounds: 2, seed: 1 });
      assert.equal(history.rounds.length, 2);
      const { broken, looked } = judgeNemesis(history);
      assert.deepEqual(broken, []);
      for (const invariant of ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8"])
        assert.ok((looked[invariant] ?? 0) > 0, invariant);
    });
});

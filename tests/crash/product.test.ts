import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { askedSeed, Prng } from "@lockstep/testing";
import { makeProduct, TRANSFERS, tryProduct } from "./product.ts";
import { describePoint } from "./sweep-all.ts";

/** So many of all calls that change something; `npm run sim -- --strace` tries every one. */
const CALLS = 8;
const SEED = askedSeed(20261123);

const skip = spawnSync("strace", ["-V"]).status === 0 ? false : "strace is not installed";

for (const transfer of TRANSFERS)
  test(`lockstep update by ${transfer} that is killed, or whose calls fail, leaves a whole installation, and the next one goes on (seed ${SEED})`, {
    skip,
  }, async (t) => {
    const directory = fs.mkdtempSync(join(tmpdir(), "lockstep-product-"));
    t.after(() => fs.rmSync(directory, { recursive: true, force: true, maxRetries: 3 }));
    const product = await makeProduct(directory, transfer);
    t.after(() => product.dispose());
    assert.ok(product.calls.length > 50, `an update makes only ${product.calls.length} changes`);
    const prng = new Prng(SEED);
    const faults: string[] = [];
    let struck = 0;
    for (let tried = 0; struck < CALLS && tried < 4 * CALLS; tried++) {
      const call = prng.pick(product.calls);
      if (call === undefined) break;
      const error = tried % 2 === 0 ? null : prng.pick(["EIO", "ENOSPC", "EACCES"] as const);
      const outcome = await tryProduct(product, call, error);
      if (outcome === "missed") continue;
      struck++;
      if (outcome.fault !== null)
        faults.push(`${describePoint({ story: "lockstep update", call, error })}: ${outcome.fault}`);
    }
    assert.equal(struck, CALLS, "nearly every strike hit something else");
    t.diagnostic(`${struck} of ${product.calls.length} calls, seed ${SEED}`);
    assert.equal(faults.length, 0, faults.join("\n\n"));
  });

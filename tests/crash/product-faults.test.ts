import assert from "node:assert/strict";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { askedSeed, Prng } from "@lockstep/testing";
import type { Ended } from "../cli/lockstep.ts";
import { LARGE_SHA256, makeProduct, TRANSFERS } from "./product.ts";
import { codesFor, describeFault, type FaultPoint, listFaultPoints, tryFault } from "./product-faults.ts";

/** So many points of all, drawn by a seed; `npm run sim -- --strace` tries every one. */
const POINTS = 8;
const SEED = askedSeed(20261123);

/** What is tidied up when the update has happened: whatever fails there, it has happened. */
const AFTERWARDS = [
  { process: "command", name: "rm", path: /^update\.lock$/ },
  { process: "updater", name: "rm", path: /^\.lockstep\/run\.json$/ },
  { process: "updater", name: "rm", path: /^\.lockstep\/partial$/ },
  { process: "updater", name: "open", path: /^update\.log$/ },
  { process: "command", name: "fsync", path: /^\.lockstep\/trust\/installed\.new$/ },
  { process: "command", name: "readdir", path: /^\.lockstep\/updater$/ },
] as const;

for (const transfer of TRANSFERS)
  test(`a call of lockstep update by ${transfer} that fails ends in success or in a named error, and neither lies (seed ${SEED})`, async (t) => {
    const directory = fs.mkdtempSync(join(tmpdir(), "lockstep-faults-"));
    t.after(() => fs.rmSync(directory, { recursive: true, force: true, maxRetries: 3 }));
    const product = await makeProduct(directory, transfer);
    t.after(() => product.dispose());
    const points = await listFaultPoints(product);
    assert.ok(points.length > 300, `an update makes only ${points.length} calls`);

    /** In how many pieces the network brings a content differs from run to run: a late piece may be missing, the first not. */
    const attempt = async (point: FaultPoint, code: string): Promise<Ended> => {
      const { struck, fault, ended } = await tryFault(product, point, code);
      assert.equal(fault, null, describeFault(point, code));
      if (struck) return ended;
      assert.ok(point.call > 1, `not reached: ${describeFault(point, code)}`);
      return await attempt({ ...point, call: Math.floor(point.call / 2) }, code);
    };

    await t.test("what fails after the update has happened does not make it a failure", async () => {
      for (const { process, name, path } of AFTERWARDS) {
        const point = points.findLast(
          (each) => each.process === process && each.name === name && path.test(each.path),
        );
        assert.ok(point !== undefined, `no call ${name} ${path}`);
        assert.equal((await attempt(point, "EIO")).status, 0, describeFault(point, "EIO"));
      }
    });

    await t.test("a large content that cannot be moved into place is told by its path", async () => {
      const point = points.find(
        ({ name, path }) => name === "rename" && path.startsWith(`.lockstep/partial/${LARGE_SHA256}`),
      );
      assert.ok(point !== undefined);
      assert.match((await attempt(point, "EIO")).stderr, /^error INSTALLATION_IO_FAILED/m);
    });

    await t.test(`${POINTS} calls, drawn from ${points.length}`, async () => {
      const prng = new Prng(SEED);
      for (let tried = 0; tried < POINTS; tried++) {
        const point = prng.pick(points);
        const code = point === undefined ? undefined : prng.pick(codesFor(point));
        if (point !== undefined && code !== undefined) await attempt(point, code);
      }
    });
  });

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { StepOutput } from "./step-output.ts";

const piece = fc.oneof(
  { weight: 20, arbitrary: fc.uint8Array({ maxLength: 40 }) },
  // Around what is gathered before it goes to the disk.
  fc.integer({ min: 255 * 1024, max: 600 * 1024 }).map((length) => new Uint8Array(length).fill(length % 251)),
);
/** A piece, or where to cut: as a share of what has been written. */
const action = fc.oneof({ weight: 4, arbitrary: piece }, fc.double({ min: 0, max: 1, noNaN: true }));

test("a step is its head, the deltas that were not cut off, and the digest of both; nothing else is left", (t) => {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-step-output-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const target = join(directory, "step");
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 3 }), fc.array(action, { maxLength: 40 }), (head, actions) => {
      const output = new StepOutput(target);
      let deltas = Buffer.alloc(0);
      for (const each of actions) {
        if (typeof each === "number") {
          deltas = deltas.subarray(0, Math.floor(each * deltas.length));
          output.cut(deltas.length);
        } else {
          output.write(each);
          deltas = Buffer.concat([deltas, each]);
        }
      }
      // In a file without a name: a maker that is killed leaves nothing behind.
      assert.deepEqual(readdirSync(directory), []);
      output.finish(head);
      output.close();
      const step = Buffer.concat([...head, deltas]);
      const digest = createHash("sha256").update(step).digest();
      assert.ok(readFileSync(target).equals(Buffer.concat([step, digest])));
      assert.deepEqual(readdirSync(directory), ["step"]);
      rmSync(target);
    }),
    { numRuns: 40 },
  );
});

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import {
  baseNameOf,
  type GatheredReport,
  packFormerReports,
  packReports,
  unpackReports,
} from "./gathered-reports.ts";
import { BASE_BYTES_MAX, EMPTY_BASE, extendBase, type ReportBase } from "./report-base.ts";

const reportArbitrary: fc.Arbitrary<GatheredReport> = fc.record(
  {
    installation: fc.stringMatching(/^[A-Za-z0-9_-]{1,100}$/),
    authorization: fc.option(fc.stringMatching(/^[ -~]{0,50}$/)),
    body: fc.string({ unit: "binary", maxLength: 200 }).filter((text) => text.isWellFormed()),
    ageSeconds: fc.nat({ max: 86_400 }),
  },
  { noNullPrototype: true },
);

const reportsArbitrary = fc.array(reportArbitrary, { minLength: 1, maxLength: 20 });
const baseArbitrary = fc
  .array(reportArbitrary, { maxLength: 20 })
  .map((before) => extendBase(EMPTY_BASE, before));

test("what was gathered comes out as it went in, in the same order, over whatever base", () => {
  fc.assert(
    fc.property(reportsArbitrary, baseArbitrary, (reports, base) => {
      const packed = packReports(reports, base);
      assert.equal(baseNameOf(packed), base.name);
      assert.deepEqual(unpackReports(packed, base), reports);
    }),
  );
});

test("a hub of an older version gets what it reads: no ages, over no base", () => {
  fc.assert(
    fc.property(reportsArbitrary, (reports) => {
      const packed = packFormerReports(reports);
      assert.equal(baseNameOf(packed), null);
      const present = reports.map((report) => ({ ...report, ageSeconds: 0 }));
      assert.deepEqual(unpackReports(packed), present);
    }),
  );
});

const siteReport = (n: number, revision = 41): GatheredReport => ({
  installation: `0a1b2c3d-${(4096 + n * 977).toString(16)}-4e5f-8a9b-${(n * 7_654_321_987 + 0x100000000000).toString(16)}`,
  authorization: null,
  ageSeconds: 0,
  body: JSON.stringify({
    host: `pc-${1000 + n * 7}.site.example`,
    directory: "/opt/product",
    roles: ["Client"],
    packages: [],
    revision,
    outcome: "updated",
    problem: null,
    autoUpdate: true,
    updaterVersion: "1.2.3",
    releaseLog: { epoch: 1, size: revision, head: createHash("sha256").update(`${revision}`).digest("hex") },
  }),
});

test("what stands in every report hardly travels, also where few come at once; a frame without that is read, too", () => {
  const few = [1, 2, 3, 4].map((n) => siteReport(n));
  const packed = packReports(few);
  const entries = few.map(({ installation, body }) => [installation, 0, body]);
  const head = Buffer.from("[null]");
  const plain = Buffer.concat([
    Buffer.from([0, 0, 0, head.length]),
    head,
    zstdCompressSync(JSON.stringify(entries)),
  ]);
  assert.ok(packed.length < 0.7 * plain.length, `${packed.length} of ${plain.length} bytes`);
  // Relays of an older version send it so.
  assert.deepEqual(unpackReports(plain), few);
});

test("what an installation says again hardly travels, its id included", () => {
  const idOf = (n: number) => createHash("sha256").update(`${n}`).digest("hex").slice(0, 32);
  const all = (revision: number) =>
    Array.from({ length: 50 }, (_, n) => ({ ...siteReport(n, revision), installation: idOf(n) })).sort(
      (a, b) => (a.installation < b.installation ? -1 : 1),
    );
  const base = extendBase(EMPTY_BASE, all(41));
  const next = all(42);
  const packed = packReports(next, base);
  assert.ok(packed.length < 50 * 6, `${packed.length} bytes`);
  assert.ok(packReports(next).length > 50 * 16, "the ids alone, without what was before");
  assert.deepEqual(unpackReports(packed, base), next);
});

test("over another base, or over none, nothing is read", () => {
  const base = extendBase(EMPTY_BASE, [siteReport(1), siteReport(2)]);
  const other = extendBase(EMPTY_BASE, [siteReport(3), siteReport(4)]);
  const packed = packReports([siteReport(1, 43)], base);
  assert.equal(unpackReports(packed, other), null);
  assert.equal(unpackReports(packed), null);
  // Whoever writes another name there: the checksum of the frame is about what was meant.
  const renamed = Buffer.from(packed);
  renamed.write(other.name, 1, "hex");
  assert.equal(unpackReports(renamed, other), null);
});

/** The body with other arrays in its frame. */
function bodyWith(value: unknown, base: ReportBase = EMPTY_BASE): Buffer {
  const head = packReports([siteReport(1)], base).subarray(0, 20 + "[null]".length);
  return Buffer.concat([head, zstdCompressSync(JSON.stringify(value))]);
}

test("what is no gathering of reports is none, whatever stands in it", () => {
  const entry = ["a-1", 0, "{}"];
  assert.deepEqual(unpackReports(bodyWith([[entry], [7]])), [
    { installation: "a-1", authorization: null, body: "{}", ageSeconds: 7 },
  ]);
  for (const wrong of [
    null,
    {},
    [],
    [[], []],
    [[entry]],
    [[entry], [7], 1],
    [[entry], [7, 7]],
    [[entry], []],
    [[entry], [-1]],
    [[entry], [0.5]],
    [[entry], [86_401]],
    [[entry], ["7"]],
    [[entry], null],
    [[["a-1", 1, "{}"]], [7]],
    [[["a-1", -1, "{}"]], [7]],
    [[["a-1", "length", "{}"]], [7]],
    [[["..", 0, "{}"]], [7]],
    [[["a/b", 0, "{}"]], [7]],
    [[["a-1", 0, "{}", 0]], [7]],
    [[["a-1", 0, 1]], [7]],
    [[["a-1", 0, "x".repeat(32 * 1024 + 1)]], [7]],
    [Array.from({ length: 129 }, () => entry), Array.from({ length: 129 }, () => 7)],
  ])
    assert.equal(unpackReports(bodyWith(wrong)), null, JSON.stringify(wrong).slice(0, 80));
  const whole = packReports([siteReport(1)]);
  for (let length = 0; length < whole.length; length++)
    assert.equal(unpackReports(whole.subarray(0, length)), null, `${length} bytes of it`);
  const long = Buffer.from(whole);
  long.writeUIntBE(0xffffff, 17, 3);
  assert.equal(unpackReports(long), null, "credentials beyond its end");
});

test("both sides come to the same base, however the reports before came, and it stays bounded", () => {
  fc.assert(
    fc.property(reportsArbitrary, reportsArbitrary, (first, second) => {
      const once = extendBase(extendBase(EMPTY_BASE, first), second);
      const again = extendBase(extendBase(EMPTY_BASE, first), second);
      assert.equal(once.name, again.name);
      for (const { installation } of second) assert.ok(once.reports.has(installation));
      let sizeBytes = 0;
      for (const [id, body] of once.reports) sizeBytes += id.length + Buffer.byteLength(body);
      assert.equal(once.sizeBytes, sizeBytes);
    }),
  );
  const long = (n: number) => ({ installation: `i-${n}`, body: "x".repeat(32 * 1024) });
  let base = EMPTY_BASE;
  for (let n = 0; n < 20; n++) base = extendBase(base, [long(n)]);
  assert.ok(base.sizeBytes <= BASE_BYTES_MAX);
  assert.ok(base.reports.has("i-19") && !base.reports.has("i-0"), "who reported last is in it");
});

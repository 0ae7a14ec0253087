import assert from "node:assert/strict";
import {
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { isLockstepError } from "@lockstep/protocol/wire";
import { assertSameBytes } from "@lockstep/testing";
import fc from "fast-check";
import { applyDelta, FileSources, makeDelta, sourceOf } from "./index.ts";

const FILES = 100;
const BYTES = 20_000;

function temporaryDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-file-source-"));
  t.after(() => rmSync(directory, { recursive: true }));
  return directory;
}

/** How many files of a directory this process has open. */
function openBelow(directory: string): number {
  const targets = readdirSync("/proc/self/fd").map((file) => {
    try {
      return readlinkSync(join("/proc/self/fd", file));
    } catch {
      return "";
    }
  });
  return targets.filter((target) => target.startsWith(`${realpathSync(directory)}/`)).length;
}

const contentOf = (number: number) =>
  Buffer.from(Array.from({ length: BYTES }, (_, i) => (i * (number + 1)) % 251));

test("any read of any of many files gives its bytes, with few of them open", (t) => {
  const directory = temporaryDirectory(t);
  const contents = Array.from({ length: FILES }, (_, number) => contentOf(number));
  const files = new FileSources();
  const sources = contents.map((bytes, number) => {
    const path = join(directory, `${number}`);
    writeFileSync(path, bytes);
    return files.source(path, bytes.length);
  });
  const reads = fc.array(fc.record({ number: fc.nat(FILES - 1), at: fc.nat(BYTES), length: fc.nat(BYTES) }), {
    maxLength: 200,
  });
  fc.assert(
    fc.property(reads, (list) => {
      for (const { number, at, length } of list) {
        const wanted = contents[number]?.subarray(at, at + length) ?? Buffer.alloc(0);
        assert.deepEqual(Buffer.from(sources[number]?.read(at, wanted.length) ?? []), wanted);
      }
    }),
    { numRuns: 30 },
  );
  for (const source of sources) source.read(0, 1);
  const open = openBelow(directory);
  assert.ok(open > 0 && open < FILES, `${open} open of ${FILES} files`);
  files.close();
  assert.equal(openBelow(directory), 0);
  assert.equal(sources[7]?.read(3, 1)[0], contents[7]?.[3]);
  files.close();
});

test("a file that is used again and again stays open, however many are read meanwhile", (t) => {
  const directory = temporaryDirectory(t);
  const opened: string[] = [];
  const files = new FileSources((path) => {
    opened.push(path);
    return openSync(path, "r");
  });
  t.after(() => files.close());
  const paths = Array.from({ length: FILES }, (_, number) => join(directory, `${number}`));
  const [used, ...others] = paths.map((path, number) => {
    writeFileSync(path, contentOf(number));
    return files.source(path, BYTES);
  });
  // First and last byte in turn: they do not fit into what is read ahead together.
  for (const [number, other] of others.entries()) {
    other.read(0, 1);
    used?.read(number % 2 === 0 ? 0 : BYTES - 1, 1);
  }
  assert.equal(opened.length, FILES);
});

test("a file that became shorter is a delta that cannot be applied", (t) => {
  const path = join(temporaryDirectory(t), "file");
  writeFileSync(path, contentOf(1));
  const files = new FileSources();
  t.after(() => files.close());
  const source = files.source(path, BYTES);
  truncateSync(path, 10);
  assert.throws(
    () => source.read(9, 2),
    (error) => isLockstepError(error, "DELTA_INVALID"),
  );
});

test("a result of many pieces comes whole from a base that is a file, in pieces of bounded size", (t) => {
  const path = join(temporaryDirectory(t), "base");
  const base = Buffer.concat(Array.from({ length: 60 }, (_, number) => contentOf(number)));
  writeFileSync(path, base);
  const content = Buffer.concat([
    Buffer.from("before"),
    base,
    Buffer.from("between"),
    base.subarray(0, 400_000),
  ]);
  content[500_000] = (content[500_000] ?? 0) ^ 1;
  const made = makeDelta(sourceOf(base), sourceOf(content), Number.POSITIVE_INFINITY);
  assert.ok(made !== null);
  const files = new FileSources();
  t.after(() => files.close());
  const pieces: Uint8Array[] = [];
  applyDelta(files.source(path, base.length), sourceOf(Buffer.concat(made)), (bytes) =>
    pieces.push(Uint8Array.from(bytes)),
  );
  assertSameBytes(Buffer.concat(pieces), content);
  assert.ok(Math.max(...pieces.map(({ length }) => length)) <= 256 * 1024);
});

import assert from "node:assert/strict";
import { chmodSync, lstatSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { isLockstepError } from "@lockstep/protocol/wire";
import { digestFiles } from "./digest.ts";
import { carryOut, type WorkAnswer, type WorkOrder } from "./work.ts";

test("a load that is stopped leaves orders behind, and that they fail ends nothing", async (t) => {
  const unhandled: unknown[] = [];
  const note = (error: unknown) => unhandled.push(error);
  process.on("unhandledRejection", note);
  t.after(() => process.off("unhandledRejection", note));
  const settle: { resolve(answer: WorkAnswer): void; reject(error: Error): void }[] = [];
  const pool = {
    ordersWanted: 2,
    run: () => new Promise<WorkAnswer>((resolve, reject) => settle.push({ resolve, reject })),
  };
  const size = 8 * 1024 * 1024;
  // Each file is a batch of its own.
  const files = ["a", "b", "c", "d"].map((path) => ({
    path,
    size,
    mode: 0o644,
    mtimeMs: 0,
    ctimeMs: 0,
    ino: 1,
  }));
  const scan = { base: "/nowhere", files, bytes: 0, excluded: [], emptyFolders: [], specialModes: [] };
  const controller = new AbortController();
  const digested = digestFiles(scan, pool, { signal: controller.signal, onProgress: () => {} });
  const stopped = assert.rejects(digested, { message: "stopped" });
  controller.abort(new Error("stopped"));
  settle[0]?.resolve({ kind: "digest", sha256: ["0"], faults: [] });
  // The first answer makes room for the third order; two are under way when the pool is closed.
  await new Promise((resolve) => setImmediate(resolve));
  for (const each of settle) each.reject(new Error("a worker thread ended"));
  await stopped;
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(unhandled, []);
});

test("files that may not be read are no change of the directory, and all of them are named", async (t) => {
  const base = mkdtempSync(join(tmpdir(), "lockstep-digest-"));
  t.after(() => rmSync(base, { recursive: true, force: true }));
  chmodSync(base, 0o755);
  const files = ["locked", "open", "sealed"].map((path) => {
    writeFileSync(join(base, path), path, { mode: 0o644 });
    if (path !== "open") chmodSync(join(base, path), 0);
    const { size, mode, mtimeMs, ctimeMs, ino } = lstatSync(join(base, path));
    return { path, size, mode, mtimeMs, ctimeMs, ino };
  });
  const scan = { base, files, bytes: 0, excluded: [], emptyFolders: [], specialModes: [] };
  const options = { signal: new AbortController().signal, onProgress: () => {} };
  const pool = { ordersWanted: 1, run: async (order: WorkOrder) => asNobody(() => carryOut(order)) };
  await assert.rejects(digestFiles(scan, pool, options), (error) => {
    assert.ok(isLockstepError(error, "LOAD_SOURCE_UNREADABLE"), String(error));
    assert.deepEqual(
      error.faults.map(({ where }) => where),
      ["locked", "sealed"],
    );
    return true;
  });
  rmSync(join(base, "open"));
  const gone = { ...scan, files: files.filter(({ path }) => path === "open") };
  await assert.rejects(digestFiles(gone, pool, options), { code: "LOAD_SOURCE_CHANGED" });
});

/** Root may read everything. */
function asNobody<T>(action: () => T): T {
  if (process.geteuid?.() !== 0) return action();
  process.seteuid?.(65534);
  try {
    return action();
  } finally {
    process.seteuid?.(0);
  }
}

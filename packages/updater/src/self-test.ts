import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { beginStaging, commit, recover } from "./apply/index.ts";
import { lookAtFiles } from "./digest.ts";
import { installationPaths } from "./layout.ts";
import { tryLock } from "./lock-file.ts";
import { applyContext } from "./recovery.ts";

/**
 * Whether this updater works on this machine: it carries a small update out in an empty directory, with everything that
 * a real one needs of the system (locks, links, renames, durability, digests, decompression). Throws when it does not.
 */
export async function selfTest(): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), "lockstep-self-test-"));
  try {
    const paths = installationPaths(root);
    mkdirSync(join(root, "bin"));
    writeFileSync(join(root, "bin/old"), "old");
    writeFileSync(join(root, "gone"), "gone");
    const attempt = tryLock(paths, systemClock);
    demand(attempt.kind === "acquired", "a lock");
    const context = applyContext(paths);
    const staging = await beginStaging(context);
    const content = Buffer.from("new ".repeat(1000));
    writeFileSync(staging.pathFor(0), zstdDecompressSync(zstdCompressSync(content)));
    const result = await commit(context, {
      staging,
      operations: [
        { n: 0, kind: "put", path: "bin/old", mode: 0o755 },
        { n: 1, kind: "remove", path: "gone" },
      ],
      state: Buffer.from("state"),
      from: null,
      to: 1,
      startedAt: systemClock.now(),
    });
    demand(result.kind === "applied", "a switch");
    demand(readFileSync(join(root, "bin/old")).equals(content), "the new content");
    const [look] = await lookAtFiles([join(root, "bin/old")], { bytesExpected: 0 });
    demand(look?.kind === "file" && look.sha256 !== null, "a digest");
    demand((await recover(context)).kind === "nothing", "an update that is finished");
    attempt.lock.release();
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

function demand(condition: boolean, what: string): asserts condition {
  if (condition) return;
  throw new LockstepError("INTERNAL", `the self-test did not get ${what}`, {
    expected: what,
    hint: "The updater does not work on this machine; the one before it is used.",
  });
}

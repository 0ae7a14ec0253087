import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import { systemErrorCode } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol";
import type { UpdaterSource } from "../repository/update-archive.ts";

/**
 * The bundled updater that goes into Update.zip. Where the hub is shipped it lies beside the hub's own file; in a source
 * checkout it is bundled from the sources, once for each start, so that what is distributed is the code that runs here.
 * A process of its own does that: a bundler takes more memory than the hub, and would keep it.
 */
const SHIPPED = new URL("./updater.mjs", import.meta.url);
/** A text, not an import: the bundler must not follow it into a shipped hub. */
const BUNDLER = "../../../../scripts/bundle-updater.mjs";
const BUNDLE = `import { bundleUpdater } from ${JSON.stringify(new URL(BUNDLER, import.meta.url).href)};
process.stdout.write(await bundleUpdater());`;
const BUNDLE_BYTES_MAX = 64 * 2 ** 20;
const BUNDLE_MS_MAX = 60_000;

export function findUpdater(version: string): UpdaterSource {
  let loaded: Promise<Uint8Array> | null = null;
  return {
    version,
    load: () => {
      loaded ??= loadUpdater().catch((error: unknown) => {
        // The next task tries again: the reason may be gone by then.
        loaded = null;
        throw error;
      });
      return loaded;
    },
  };
}

async function loadUpdater(): Promise<Uint8Array> {
  try {
    return await readFile(SHIPPED);
  } catch (error) {
    if (!isMissing(error)) throw unavailable(error);
  }
  try {
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ["--input-type=module", "--eval", BUNDLE],
      {
        encoding: "buffer",
        maxBuffer: BUNDLE_BYTES_MAX,
        timeout: BUNDLE_MS_MAX,
      },
    );
    return stdout;
  } catch (error) {
    throw unavailable(error);
  }
}

function isMissing(error: unknown): boolean {
  return systemErrorCode(error) === "ENOENT";
}

function unavailable(cause: unknown): LockstepError {
  return new LockstepError("UPDATER_UNAVAILABLE", "there is no updater for Update.zip", {
    expected: "updater.mjs beside the hub, or a checkout that can be bundled",
    found: cause instanceof Error ? cause.message : String(cause),
    hint: "Installations keep the updater that they have. Install Lockstep completely, then run `lockstep setup`.",
    cause,
  });
}

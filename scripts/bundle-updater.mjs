// The updater as it ships inside Update.zip. In a source checkout the hub calls this where no dist/updater.mjs is
// shipped beside it, so that what it distributes is always the code that it was started with.
import { bundle } from "./bundle.mjs";

export const UPDATER_ENTRY = "packages/updater/src/main.ts";

/** Bundles the updater of this checkout. Takes well under two seconds; the same sources give the same bytes. */
export async function bundleUpdater() {
  return new TextEncoder().encode(await bundle(UPDATER_ENTRY));
}

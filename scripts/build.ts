import { cp, mkdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { bundle, bundleInParts } from "./bundle.mjs";
import { UPDATER_ENTRY } from "./bundle-updater.mjs";

/**
 * What ships, in dist/: the command (bin/lockstep.mjs, which starts lockstep.mjs and its parts), the updater as one
 * file for Update.zip, the guard of a virtual server, the maker of steps, and the migrations, which the hub reads from beside its own code,
 * here as in a checkout.
 */
const root = join(import.meta.dirname, "..");
const dist = join(root, "dist");

async function write(file: string, code: string): Promise<void> {
  await mkdir(dirname(join(dist, file)), { recursive: true });
  await writeFile(join(dist, file), code);
}

await rm(dist, { recursive: true, force: true });
const updater = await bundle(UPDATER_ENTRY);
await write("updater.mjs", updater);
const parts = await bundleInParts("packages/cli/src/main.ts", "lockstep.mjs");
for (const { fileName, code } of parts) await write(fileName, code);
// The guard of a virtual server: a process of its own that must start quickly and stay small.
const guard = await bundleInParts("packages/cluster/src/guard/main.ts", "guard.mjs");
for (const { fileName, code } of guard) await write(fileName, code);
// What makes a step between two manifests: a process of its own, below the hub's priority.
for (const { fileName, code } of await bundleInParts("packages/hub/src/steps/main.ts", "step-maker.mjs"))
  await write(fileName, code);
await cp(join(root, "packages/cli/bin"), join(dist, "bin"), { recursive: true });
await cp(join(root, "packages/hub/src/db/sql"), join(dist, "sql"), { recursive: true });
await cp(join(root, "packages/cluster/ocf"), join(dist, "ocf"), { recursive: true });

const kib = (code: string) => Math.round(code.length / 1024);
console.log(`dist/updater.mjs: ${kib(updater)} KiB`);
console.log(`dist/guard.mjs: ${kib(guard[0]?.code ?? "")} KiB, and ${guard.length - 1} parts`);
console.log(
  `dist/lockstep.mjs: ${kib(parts[0]?.code ?? "")} KiB, and ${parts.length - 1} parts with ${kib(parts.map(({ code }) => code).join(""))} KiB in all`,
);

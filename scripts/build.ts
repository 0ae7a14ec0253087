import { existsSync } from "node:fs";
import { cp, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { bundle } from "./bundle.mjs";
import { UPDATER_ENTRY } from "./bundle-updater.mjs";

const root = join(import.meta.dirname, "..");
const OUTPUTS = [
  { entry: UPDATER_ENTRY, file: "dist/updater.mjs" },
  { entry: "packages/cli/src/main.ts", file: "dist/lockstep.mjs" },
];

await mkdir(join(root, "dist"), { recursive: true });
for (const { entry, file } of OUTPUTS) {
  if (!existsSync(join(root, entry))) {
    console.log(`${file}: nothing to build, ${entry} is not there yet`);
    continue;
  }
  const startedAt = performance.now();
  const code = await bundle(entry);
  await writeFile(join(root, file), code);
  console.log(
    `${file}: ${Math.round(code.length / 1024)} KiB in ${Math.round(performance.now() - startedAt)} ms`,
  );
}

// The hub reads its migrations from beside its own code, in a bundle as in a checkout.
await cp(join(root, "packages/hub/src/db/sql"), join(root, "dist/sql"), { recursive: true });

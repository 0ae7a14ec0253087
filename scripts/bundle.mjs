// Makes one file of a program and everything that it imports, so that what ships needs no node_modules and no type
// stripping. The same sources give the same bytes, whatever the directory, time or time zone: Update.zip is compared
// by its hash, and a bundle that differs for no reason would send every installation an update.
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Bundles one entry (a path relative to the checkout) into the text of one ES module for Node. */
export async function bundle(entry) {
  const { rolldown } = await import("rolldown");
  const build = await rolldown({
    input: join(root, entry),
    cwd: root,
    platform: "node",
    tsconfig: false,
    logLevel: "warn",
  });
  try {
    const { output } = await build.generate({ format: "esm", codeSplitting: false, sourcemap: false });
    if (output.length !== 1)
      throw new Error(`the bundle of ${entry} has ${output.length} parts, expected one`);
    return output[0].code;
  } finally {
    await build.close();
  }
}

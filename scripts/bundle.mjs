// Makes one file of a program and everything that it imports, so that what ships needs no node_modules and no type
// stripping. The same sources give the same bytes, whatever the directory, time or time zone: Update.zip is compared
// by its hash, and a bundle that differs for no reason would send every installation an update.
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Bundles one entry (a path relative to the checkout) into the text of one ES module for Node. */
export async function bundle(entry) {
  const [only, ...more] = await generate(entry, { codeSplitting: false });
  if (more.length > 0) throw new Error(`the bundle of ${entry} has ${more.length + 1} parts, expected one`);
  return only.code;
}

/**
 * Bundles one entry into several modules, so that what is imported only when it is needed is also read only then: a
 * program that is started often must not parse what it does not run. Returns names and texts, the entry's first.
 */
export async function bundleInParts(entry, name) {
  const parts = await generate(entry, { entryFileNames: name, chunkFileNames: "[name]-[hash].mjs" });
  return parts.map(({ fileName, code }) => ({ fileName, code }));
}

async function generate(entry, options) {
  const { rolldown } = await import("rolldown");
  const build = await rolldown({
    input: join(root, entry),
    cwd: root,
    platform: "node",
    tsconfig: false,
    logLevel: "warn",
  });
  try {
    const { output } = await build.generate({ format: "esm", sourcemap: false, ...options });
    return output;
  } finally {
    await build.close();
  }
}

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isLockstepError } from "@lockstep/protocol";
import { type Armed, BOMBS } from "./bombs.ts";

/**
 * Lets the named bombs go off one after the other, read as the product reads them (`bomb-process.ts read NAME...`) or by
 * somebody without limits (`harm`). Prints what each ended with, and by how many MiB the memory of this process had grown
 * at its worst, as the system counts it.
 */
const [way, ...names] = process.argv.slice(2);

function memoryMiB(what: "VmHWM" | "VmRSS"): number {
  const found = new RegExp(`^${what}:\\s+(\\d+)`, "m").exec(readFileSync("/proc/self/status", "utf8"));
  return Number(found?.[1]) / 1024;
}

async function outcomeOf(read: NonNullable<Armed["harm"]>): Promise<string> {
  try {
    const found = await read();
    return typeof found === "string" ? found : "accepted";
  } catch (error) {
    return isLockstepError(error) ? `${error.code} ${error.message}` : `FAULT ${String(error)}`;
  }
}

for (const name of names) {
  const place = mkdtempSync(join(tmpdir(), "lockstep-bomb-"));
  const armed = await BOMBS[name]?.make(place);
  const read = way === "harm" ? armed?.harm : armed?.read;
  if (armed !== undefined && read !== undefined) {
    for (let turn = 0; turn < 3; turn++) {
      globalThis.gc?.();
      await new Promise((resolve) => setImmediate(resolve));
    }
    // Forgets the highest so far.
    writeFileSync("/proc/self/clear_refs", "5");
    const before = memoryMiB("VmRSS");
    const outcome = await outcomeOf(read);
    const grownMiB = Math.round(memoryMiB("VmHWM") - before);
    console.log(JSON.stringify({ name, outcome, grownMiB, bytes: armed.bytes }));
  }
  await armed?.dispose?.();
  rmSync(place, { recursive: true, force: true });
}
process.exit(0);

import { readFile } from "node:fs/promises";
import { systemErrorCode } from "@lockstep/platform";
import { usage } from "./options.ts";

/** The bytes of a root of trust that somebody named. Throws USAGE. */
export async function readRootFile(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    throw usage(
      `the root of trust ${path} cannot be read`,
      "a readable file",
      systemErrorCode(error) ?? "an error",
    );
  }
}

import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

/**
 * Where the status page of a running service is, for `lockstep service status` on the same machine: with port 0 the
 * configuration does not say it. A hint only: the file may be of a run that was killed, or not be writable.
 */
const NAME = "status-url";

export async function writeStatusUrl(stateDirectory: string, url: string): Promise<void> {
  try {
    await mkdir(stateDirectory, { recursive: true, mode: 0o700 });
    await writeFile(join(stateDirectory, NAME), `${url}\n`, { mode: 0o600 });
  } catch {
    // Whoever asks takes the address of the configuration then.
  }
}

export async function removeStatusUrl(stateDirectory: string): Promise<void> {
  await rm(join(stateDirectory, NAME), { force: true }).catch(() => {});
}

/** Null: no service has left word. */
export async function readStatusUrl(stateDirectory: string): Promise<string | null> {
  const text = await readFile(join(stateDirectory, NAME), "utf8").catch(() => "");
  return URL.canParse(text.trim()) ? text.trim() : null;
}

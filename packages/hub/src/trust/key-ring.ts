import { link, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Logger, systemErrorCode } from "@lockstep/platform";
import {
  formatKeyFile,
  KEY_PURPOSES,
  type KeyPurpose,
  makeSecret,
  openKeyFile,
  parseKeyFile,
  type Signer,
} from "@lockstep/trust";

/**
 * The keys that a hub has: the files in `keys/` of its data directory. For a first try all five kinds are there, made
 * at the first start; in production root and targets (the release key) are taken away to where releases are signed, and
 * what remains can keep metadata fresh and nothing more.
 *
 * They are read anew whenever something is to be signed: keys come and go while a hub runs.
 */
export type KeyRing = Readonly<Record<KeyPurpose, readonly Signer[]>>;

export function keysDirectory(dataDirectory: string): string {
  return join(dataDirectory, "keys");
}

/** Reads the keys; a missing directory holds none. Throws KEY_FILE_INVALID, KEY_PASSPHRASE_WRONG. */
export async function readKeyRing(directory: string, passphrase: string | null): Promise<KeyRing> {
  const ring: Record<KeyPurpose, Signer[]> = {
    root: [],
    targets: [],
    snapshot: [],
    timestamp: [],
    orders: [],
  };
  for (const name of await keyFiles(directory)) {
    const path = join(directory, name);
    const text = await readFile(path, "utf8");
    ring[parseKeyFile(text, path).role].push(await openKeyFile(text, path, passphrase));
  }
  return ring;
}

/** Makes one key for each of these roles. */
export async function makeKeys(
  directory: string,
  roles: readonly KeyPurpose[],
  nowMs: number,
): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  for (const role of roles) {
    const text = await formatKeyFile(makeSecret(), role, nowMs, null);
    const path = join(directory, `${role}-${parseKeyFile(text, role).keyId.slice(0, 12)}.json`);
    // Whole or not at all, and durable before anybody relies on its public half.
    const temporary = `${path}.${process.pid}`;
    await writeFile(temporary, text, { mode: 0o600, flag: "w", flush: true });
    try {
      await link(temporary, path);
    } finally {
      await rm(temporary, { force: true });
    }
  }
}

/** Makes what is missing for a hub that begins: one key for each role that has none. */
export async function makeMissingKeys(directory: string, nowMs: number, log: Logger): Promise<void> {
  const ring = await readKeyRing(directory, null);
  const missing = KEY_PURPOSES.filter((role) => ring[role].length === 0);
  if (missing.length === 0) return;
  await makeKeys(directory, missing, nowMs);
  log.info("made keys", { directory, roles: missing.join(", ") });
}

/** Takes the keys of a role away that are not among these. */
export async function dropKeys(
  directory: string,
  role: KeyPurpose,
  kept: ReadonlySet<string>,
): Promise<void> {
  for (const name of await keyFiles(directory)) {
    const path = join(directory, name);
    const file = parseKeyFile(await readFile(path, "utf8"), path);
    if (file.role === role && !kept.has(file.keyId)) await rm(path);
  }
}

async function keyFiles(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).filter((name) => name.endsWith(".json")).sort();
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return [];
    throw error;
  }
}
